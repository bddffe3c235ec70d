"""Traces that other servers leave in the text of a reply, between tags."""

import re

# Qwen, DeepSeek and most others; Magistral's template; and the long form that some prompts ask for. Servers that parse
# traces give them apart, and this model's own traces are told by token ids: this is for `content` of other servers.
_TAG = re.compile(r"<(?P<slash>/?)think(?:ing)?>|\[(?P<bar>/?)THINK\]", re.IGNORECASE)


def take_out_trace(content: str) -> tuple[str, str, bool]:
    """The answer, the trace, and whether there was any tag.

    What stands after an opening that is never closed is trace: it is not graded. So is all that stands before a closing
    without an opening, because templates that end with the opening (DeepSeek R1, Qwen 3) leave the closing alone in the
    reply. Openings inside a trace are part of it.
    """
    answer, trace, at, inside = [], [], 0, False
    for tag in _TAG.finditer(content):
        closes = bool(tag["slash"] or tag["bar"])
        piece, at = content[at : tag.start()], tag.end()
        if inside:
            trace.append(piece)
        else:
            answer.append(piece)
            if closes:
                trace += answer
                answer = []
        inside = not closes
    (trace if inside else answer).append(content[at:])
    return "".join(answer).strip() if at else content, "".join(trace), at > 0
