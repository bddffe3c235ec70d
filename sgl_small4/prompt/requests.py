"""What a request asks of this model, settled before the route's own types see its JSON.

SGLang's request types drop fields that they do not know, and each route reads an effort in its own way. Here one rule
holds for all of them:

route                                 effort                                        limit on trace tokens
------------------------------------  --------------------------------------------  -----------------------------
/v1/chat/completions, /v1/tokenize    `reasoning_effort`, `reasoning.effort`,       `max_thinking_tokens`
/v1/responses                           `chat_template_kwargs.reasoning_effort`     `max_thinking_tokens`
/v1/messages                          those, `output_config.effort`, `thinking`:    `thinking.budget_tokens`
                                        enabled and adaptive high, disabled none
/v1/completions, /generate            in the prompt's own ids, a field is refused   `max_thinking_tokens`

Efforts at two places must agree, `extra_body` is the top level, and a limit at effort none has no effect. The switches
of other model families are refused by name. The limit travels as `custom_params.thinking_budget`, SGLang's own name.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sglang.srt.entrypoints.anthropic.protocol import AnthropicCountTokensRequest, AnthropicMessagesRequest
from sglang.srt.entrypoints.openai.protocol import (
    ChatCompletionRequest,
    CompletionRequest,
    DetokenizeRequest,
    ResponsesRequest,
    TokenizeRequest,
)
from sglang.srt.managers.io_struct import GenerateReqInput
from sglang.srt.runtime_context import get_serving
from sglang.srt.sampling.sampling_params import SamplingParams

from sgl_small4.admission import check_types
from sgl_small4.prompt import passage
from sgl_small4.prompt.budget import Controls, prompt_thinks, thinking_budget
from sgl_small4.prompt.format import Effort, PromptError, effort_of
from sgl_small4.prompt.history import ROLES
from sgl_small4.prompt.served import served_format

Body = dict[str, Any]

# Fields that hold a reply to something, here or on other servers.
CONSTRAINTS = (
    "regex ebnf json_schema structural_tag response_format whitespace_pattern guided_json guided_regex guided_choice "
    "guided_grammar structured_outputs grammar".split()
)
CONSTRAINED_BY: dict[Any, str] = {
    ResponsesRequest: "text.format",
    AnthropicMessagesRequest: "output_config.format",
    AnthropicCountTokensRequest: "output_config.format",
    GenerateReqInput: "sampling_params.json_schema, .regex, .ebnf or .structural_tag",
}

BUDGET = "thinking_budget"  # in custom_params
MAX_NEW_TOKENS = SamplingParams().max_new_tokens  # of /generate, where a request says nothing
LARGEST = 2**31 - 1  # a larger limit limits nothing, and does not fit into SGLang's messages

# Fields about traces that change neither the effort nor the limit: how a reply is shown, and SGLang's own bookkeeping.
FORM_OF_REPLY = frozenset({"separate_reasoning", "stream_reasoning", "include_reasoning", "require_reasoning"})
LOOKS_LIKE_A_SWITCH = re.compile("think|reason|effort|prompt_mode", re.IGNORECASE)


def settle(kind: object, body: object) -> object:
    """The body of a request of type `kind`, with one effort and one limit in the places where SGLang looks for them.

    Raises PromptError with a sentence for the client. A body for another route stays as it is.
    """
    rule = RULES.get(kind)
    if rule is None:
        return body
    if not isinstance(body, dict):
        got = f"got {body!r:.80}" if isinstance(body, list | str | int | float | None) else "it is empty"
        raise PromptError(f"The body must be a JSON object with the request's fields, {got}.")
    extra = body.get("extra_body")
    if extra is not None:
        body = _merged(body, extra)
    _refuse_unreadable(body)
    _refuse_unknown_constraints(kind, body)
    return rule(body)


def _merged(body: Body, extra: object) -> Body:
    """A client that wrote `extra_body` itself meant the top level, where the openai client puts its fields."""
    if not isinstance(extra, Mapping):
        raise PromptError(f"extra_body must be an object of fields for the top level, got {extra!r:.80}.")
    for name, value in extra.items():
        if name in body and body[name] != value:
            raise PromptError(f"{name} is given twice, {body[name]!r:.80} and in extra_body {value!r:.80}; give one.")
    return {name: value for name, value in {**body, **extra}.items() if name != "extra_body"}


def _refuse_unreadable(body: Body) -> None:
    """Refuse what SGLang's types stumble over instead of refusing it."""
    sampling = body.get("sampling_params")
    for name, value in [*body.items(), *(sampling.items() if isinstance(sampling, dict) else ())]:
        if isinstance(value, int | float) and not (math.isfinite(value) and abs(value) < 2**63):
            raise PromptError(f"{name} must be a finite number of at most 64 bits, got {value!r:.40}.")
    template = body.get("chat_template_kwargs")
    if template is not None and not isinstance(template, dict):
        raise PromptError(f"chat_template_kwargs must be an object, got {template!r:.80}.")
    messages = body.get("messages")
    for index, message in enumerate(messages if isinstance(messages, list) else []):
        role = message.get("role") if isinstance(message, dict) else None
        if role is not None and (not isinstance(role, str) or role.lower() not in ROLES):
            raise PromptError(f"messages[{index}]: the role must be one of {', '.join(ROLES)}; got {role!r:.80}.")
    wanted = body.get("response_format")
    if wanted is not None and not isinstance(wanted, dict):
        raise PromptError(f"response_format must be an object with a type, got {wanted!r:.80}.")
    schema = wanted.get("schema") if wanted else None
    if schema is not None and not isinstance(schema, dict):
        raise PromptError(f"response_format.schema must be an object, got {schema!r:.80}.")


def _refuse_unknown_constraints(kind: Any, body: Body) -> None:
    """Refuse, by name, a constraint that the route has no field for: SGLang would drop it and answer freely."""
    known = getattr(kind, "model_fields", None) or getattr(kind, "__dataclass_fields__", {})
    for name in CONSTRAINTS:
        if body.get(name) is not None and name not in known:
            way = CONSTRAINED_BY.get(kind, "response_format, regex or ebnf")
            raise PromptError(f"{name} is no field of this route, so it would not be held to; constrain with {way}.")
        if body.get(name) == "":
            raise PromptError(f"{name} is empty: leave it out, or give a constraint.")
    wanted = body.get("response_format")
    if isinstance(wanted, dict) and wanted.get("whitespace_pattern") is not None:
        raise PromptError("response_format.whitespace_pattern is not supported; leave it out.")


def _chat(body: Body) -> Body:
    _refuse_switches(body, allowed={"reasoning", "reasoning_effort", "max_thinking_tokens"})
    effort = _effort_in_ids(body) or _effort(body)
    settled = passage.fold(_without_efforts(body) | {"reasoning_effort": effort})
    limit = "max_completion_tokens" if body.get("max_completion_tokens") else "max_tokens"
    return _with_budget(settled, _budget(body, limit))


def _effort_in_ids(body: Body) -> Effort | None:
    """The effort of a chat whose prompt the client encoded itself."""
    ids = body.get("input_ids")
    if not isinstance(ids, list) or not all(isinstance(id, int) for id in ids):
        return None
    _refuse_efforts(body, "input_ids")
    return "high" if prompt_thinks(Controls.of(served_format()), ids) else "none"


def _responses(body: Body) -> Body:
    _refuse_switches(body, allowed={"reasoning", "reasoning_effort", "max_thinking_tokens"})
    effort = _effort(body)
    settled = _without_efforts(body)
    settled["reasoning"] = {**(settled.get("reasoning") or {}), "effort": effort}
    if settled.get("model") is None:  # optional in the type, but not in the chat that is made of it
        settled["model"] = get_serving().served_model_name
    metadata = body.get("metadata")
    if metadata is None or isinstance(metadata, Mapping):
        settled["metadata"] = {**(metadata or {}), "reasoning_effort": effort}
    budget = _budget(body, "max_output_tokens")
    settled.pop("max_thinking_tokens", None)
    if budget is not None:  # the type has no custom_params; responses.sampling_params takes it from here
        settled["chat_template_kwargs"] = {**(settled.get("chat_template_kwargs") or {}), BUDGET: budget}
    return settled


def _messages(body: Body) -> Body:
    _refuse_switches(body, allowed={"reasoning", "reasoning_effort", "thinking"})
    thinking, output = body.get("thinking"), body.get("output_config")
    kind = thinking.get("type") if isinstance(thinking, Mapping) else None
    more: list[tuple[str, object]] = []
    if isinstance(output, Mapping):
        more.append(("output_config.effort", output.get("effort")))
    if kind in ("enabled", "disabled"):
        more.append((f"thinking.type {kind}", "high" if kind == "enabled" else "none"))
    effort = _effort(body, more, otherwise="high" if kind == "adaptive" else None)
    settled = _without_efforts(body)
    settled.pop("reasoning", None)
    settled.pop("chat_template_kwargs", None)
    if isinstance(output, Mapping):
        settled["output_config"] = {name: value for name, value in output.items() if name != "effort"}
    if isinstance(thinking, Mapping) and kind == "enabled":
        budget = thinking.get("budget_tokens")
        if budget is not None:  # the route's own type refuses what is missing, or below 1024
            thinking_budget(budget, _number(body.get("max_tokens")), "thinking.budget_tokens", "max_tokens")
    elif thinking is None or (kind == "adaptive" and effort == "none"):
        settled["thinking"] = {"type": "adaptive" if effort == "high" else "disabled"}
    return settled


def _completions(body: Body) -> Body:
    _refuse_efforts(body, "prompt")
    default = CompletionRequest.model_fields["max_tokens"].default
    return _with_budget(body, _budget({"max_tokens": default, **body}, "max_tokens"))


def _generate(body: Body) -> Body:
    _refuse_efforts(body, "prompt")
    sampling = body.get("sampling_params")
    if isinstance(sampling, list) and isinstance(body.get("text"), str):
        raise PromptError("sampling_params must be one object where text is one prompt, got a list.")
    given = sampling if isinstance(sampling, list) else [sampling or {}]
    for one in given:
        if isinstance(one, Mapping):
            _refuse_efforts(one, "prompt", "sampling_params.")
            check_types({name: value for name, value in one.items() if name != "max_thinking_tokens"})
            limits = {"max_thinking_tokens": body.get("max_thinking_tokens"), "max_new_tokens": MAX_NEW_TOKENS, **one}
            _budget(limits, "max_new_tokens")
    return body  # the limit is taken from the request itself, which Engine.generate makes too: take_budget


def _detokenize(body: Body) -> Body:
    last = served_format().tokenizer.n_words - 1
    tokens = body.get("tokens")
    for id in tokens if isinstance(tokens, list) else []:
        for one in id if isinstance(id, list) else [id]:
            if isinstance(one, int) and not 0 <= one <= last:
                raise PromptError(f"tokens holds the id {one}: the vocabulary has ids 0 to {last}.")
    return body


RULES: dict[object, Callable[[Body], Body]] = {
    ChatCompletionRequest: _chat,
    TokenizeRequest: _chat,
    ResponsesRequest: _responses,
    AnthropicMessagesRequest: _messages,
    AnthropicCountTokensRequest: _messages,
    CompletionRequest: _completions,
    GenerateReqInput: _generate,
    DetokenizeRequest: _detokenize,
}


def take_budget(request: GenerateReqInput) -> None:
    """Move a request's `max_thinking_tokens` to where the scheduler reads it; raises PromptError when it is none."""
    budget = thinking_budget(request.max_thinking_tokens, None)
    if budget is None:
        return
    request.max_thinking_tokens = None
    sampling = request.sampling_params or {}
    one_each = isinstance(sampling, list)
    settled = [_with_budget(dict(one), min(budget, LARGEST)) for one in (sampling if one_each else [sampling])]
    request.sampling_params = settled if one_each else settled[0]


def _effort(body: Body, more: Iterable[tuple[str, object]] = (), otherwise: Effort | None = None) -> Effort:
    """The one effort that a request gives; else `otherwise`, else the server's default, else none."""
    given = [(place, value) for place, value in [*_efforts(body), *more] if value is not None]
    for place, value in given[1:]:
        if effort_of(value) != effort_of(given[0][1]):
            raise PromptError(
                f"Two efforts are given, {given[0][1]!r} as {given[0][0]} and {value!r} as {place}; give one "
                f"reasoning_effort."
            )
    if given:
        return effort_of(given[0][1])
    return otherwise or effort_of((get_serving().default_chat_template_kwargs or {}).get("reasoning_effort"))


def _efforts(body: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Where a request may say its effort, and what it says there."""
    reasoning, template = body.get("reasoning") or {}, body.get("chat_template_kwargs")
    if not isinstance(reasoning, Mapping):
        raise PromptError(f'reasoning must be an object such as {{"effort": "high"}}, got {reasoning!r:.80}.')
    efforts = [
        ("reasoning_effort", body.get("reasoning_effort")),
        ("reasoning.effort", reasoning.get("effort")),
        ("reasoning.reasoning_effort", reasoning.get("reasoning_effort")),
    ]
    if isinstance(template, Mapping):
        efforts.append(("chat_template_kwargs.reasoning_effort", template.get("reasoning_effort")))
    return efforts


def _without_efforts(body: Body) -> Body:
    settled = {name: value for name, value in body.items() if name != "reasoning_effort"}
    if isinstance(settled.get("chat_template_kwargs"), Mapping):
        template = settled["chat_template_kwargs"]
        ours = ("reasoning_effort", passage.OPEN_TRACES)
        settled["chat_template_kwargs"] = {name: template[name] for name in template if name not in ours}
    if isinstance(settled.get("reasoning"), Mapping):
        reasoning = settled["reasoning"]
        settled["reasoning"] = {
            name: reasoning[name] for name in reasoning if name not in ("effort", "reasoning_effort")
        }
    return settled


def _refuse_switches(body: Body, allowed: set[str]) -> None:
    """Refuse, by name, what turns thinking on or off in other model families."""
    reasoning, template = body.get("reasoning"), body.get("chat_template_kwargs")
    switches = [name for name in body if name not in allowed | FORM_OF_REPLY and LOOKS_LIKE_A_SWITCH.search(name)]
    found = [(name, body[name]) for name in switches]
    if isinstance(template, Mapping):
        switches = [name for name in template if name != "reasoning_effort" and LOOKS_LIKE_A_SWITCH.search(str(name))]
        found += [(f"chat_template_kwargs.{name}", template[name]) for name in switches]
    if isinstance(reasoning, Mapping):
        found += [
            (f"reasoning.{name}", reasoning[name]) for name in ("enabled", "enable", "max_tokens") if name in reasoning
        ]
    for place, value in found:
        if value is not None:
            budget = "thinking.budget_tokens" if "thinking" in allowed else "max_thinking_tokens"
            raise PromptError(
                f"{place} is no switch of this model: reasoning_effort (none or high) turns its trace off and on, "
                f"{budget} limits it."
            )


def _refuse_efforts(body: Mapping[str, Any], where: str, place: str = "") -> None:
    """Refuse an effort beside a prompt that carries its own."""
    template = body.get("chat_template_kwargs")
    named = [name for name in body if LOOKS_LIKE_A_SWITCH.search(str(name)) and body[name] is not None]
    found = [place + name for name in named if name not in FORM_OF_REPLY | {"max_thinking_tokens"}]
    if isinstance(template, Mapping):
        found += [f"chat_template_kwargs.{name}" for name in template if LOOKS_LIKE_A_SWITCH.search(str(name))]
    if found:
        raise PromptError(
            f"{found[0]} has no effect here: the {where} itself carries the reasoning_effort, between "
            f"[MODEL_SETTINGS] and [/MODEL_SETTINGS]; leave it out, or use /v1/chat/completions."
        )


def _budget(body: Mapping[str, Any], limit: str) -> int | None:
    """A request's limit on trace tokens, checked against its limit on all tokens, the field `limit`."""
    custom = body.get("custom_params")
    given = {
        "max_thinking_tokens": body.get("max_thinking_tokens"),
        f"custom_params.{BUDGET}": custom.get(BUDGET) if isinstance(custom, Mapping) else None,
    }
    values = {place: value for place, value in given.items() if value is not None}
    for place, value in values.items():
        thinking_budget(value, _number(body.get(limit)), place, limit)
    if len(set(values.values())) > 1:
        raise PromptError(
            f"Two limits are given, {' and '.join(f'{place} {values[place]}' for place in values)}; give one."
        )
    return min(min(values.values()), LARGEST) if values else None


def _number(value: object) -> int | None:
    """A limit on tokens as far as it is one; what is none is refused by the route's own type."""
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _with_budget(body: Body, budget: int | None) -> Body:
    settled = {name: value for name, value in body.items() if name != "max_thinking_tokens"}
    if budget is not None:
        settled["custom_params"] = {**(settled.get("custom_params") or {}), BUDGET: budget}
    return settled
