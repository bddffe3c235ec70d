"""The scheduler and the detokenizer: what constrains a reply, what counts as its trace, where it stops."""

from collections.abc import Callable

from sglang.srt.plugins.hook_registry import HookType
from sglang.srt.runtime_context import get_model

from sgl_small4.plugin.engine import local_folder
from sgl_small4.plugin.hooks import hook
from sgl_small4.prompt import grammar


@hook("sglang.srt.managers.detokenizer_manager.DetokenizerManager.trim_matched_stop", HookType.AROUND)
def cut_at_last_stop(trim: Callable, manager, output, finished_reason, no_stop_trim: bool):
    """Upstream cuts a text at the first place of the stop string that ended it; here a trace may hold it too."""
    matched = (finished_reason or {}).get("matched")
    if not isinstance(matched, str) or not isinstance(output, str) or not local_folder(get_model().model_path, None):
        return trim(manager, output, finished_reason, no_stop_trim)
    before, stop, _ = output.rpartition(matched)
    return output if not stop else before + stop if no_stop_trim else before


@hook("sglang.srt.constrained.grammar_manager.GrammarManager.__init__", HookType.BEFORE)
def constrain_text_only(_manager, scheduler) -> None:
    """Upstream's vocabulary lets a grammar spell text with control ids, and JSON hold white space without end."""
    grammar.prepare(scheduler)


@hook("sglang.srt.constrained.grammar_manager.GrammarManager.process_req_with_grammar", HookType.AROUND)
def hold_to_grammar(process: Callable, manager, req) -> bool:
    """Upstream's gate counts a trace from the first token, needs server flags, and forbids a trace without them."""
    grammar.follow_reply(manager, req)
    waits = process(manager, req)
    if not waits:
        grammar.hold(manager, req)
    return waits


@hook("sglang.srt.constrained.grammar_manager.GrammarManager.get_ready_grammar_requests", HookType.AFTER)
def hold_to_compiled_grammar(ready: list, manager) -> list:
    """The twin of `hold_to_grammar` for constraints that had to be compiled first."""
    for req in ready:
        grammar.hold(manager, req)
    return ready


@hook(
    "sglang.srt.managers.scheduler_components.batch_result_processor.SchedulerBatchResultProcessor"
    "._maybe_update_reasoning_tokens",
    HookType.AROUND,
)
def count_trace_by_ids(count: Callable, processor, req, next_token_id) -> None:
    """Upstream counts from the first token to a marker found by encoding it, and only with a reasoning parser."""
    reply = getattr(req, "small4_reply", None)
    if reply is None:
        count(processor, req, next_token_id)
        return
    for id in next_token_id if isinstance(next_token_id, list) else [next_token_id]:
        reply.follow(id)
    req.reasoning_tokens = reply.trace_tokens


@hook("sglang.srt.managers.schedule_batch.Req._check_str_based_finish", HookType.AROUND)
def stop_in_answer_alone(check: Callable, req, new_accepted_len: int = 1) -> bool:
    """Upstream ends a reply at a stop string anywhere: in a trace, in a call's arguments, in a marker's letters."""
    reply = getattr(req, "small4_reply", None)
    return (reply is None or reply.may_stop) and check(req, new_accepted_len)


@hook("sglang.srt.managers.schedule_batch.Req._stop_match_tail_len", HookType.AFTER)
def look_back_within_answer(length: int, req, *_args) -> int:
    """Where upstream would look for the end of a stop string in the trace before the answer."""
    reply = getattr(req, "small4_reply", None)
    return length if reply is None else max(1, min(length, reply.text_tokens))
