"""A transport that answers as a test tells it to, and keeps what it was asked."""

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sgl_small4.nano import CHECKPOINT
from sgl_small4.prompt.format import PromptFormat
from sgl_small4.prompt.parse import parse

FORMAT = PromptFormat.from_folder(CHECKPOINT)
EOS = 2


def control(name: str) -> int:
    return FORMAT.tokenizer.get_special_token(name)


def ids_of(reply: str) -> list[int]:
    """The ids of a reply written with control tokens by name: `[THINK]3+4[/THINK]7</s>`."""
    names = [piece for piece in ("[THINK]", "[/THINK]", "[TOOL_CALLS]", "[ARGS]", "</s>") if piece in reply]
    if not names:
        return FORMAT.encode_text(reply) if reply else []
    before, _, after = reply.partition(names[0])
    return [*ids_of(before), control(names[0]), *ids_of(after)]


class Scripted:
    """Each prompt is answered by `reply(ids, fields)`: text with control tokens by name, ids, or an exception."""

    where = "The script"

    def __init__(self, reply: Callable[[list[int], Mapping[str, Any]], Any], model_type: str = "mistral4") -> None:
        self._reply, self._model_type = reply, model_type
        self.asked: list[Mapping[str, Any]] = []
        self.aborted: list[str] = []
        self.running: set[str] = set()
        self._lock = threading.Lock()

    def model_info(self) -> dict[str, Any]:
        folder = str(CHECKPOINT)
        return {"model_path": folder, "tokenizer_path": folder, "model_type": self._model_type, "context_length": 32768}

    def generate(self, fields: Mapping[str, Any], rid: str) -> Any:
        with self._lock:
            self.asked.append(fields)
            self.running.add(rid)
        try:
            return self._answered(fields)
        finally:
            with self._lock:
                self.running.discard(rid)

    def _answered(self, fields: Mapping[str, Any]) -> Any:
        if isinstance(fields["input_ids"][0], list):
            return [self._scored(ids, fields) for ids in fields["input_ids"]]
        reply = self._reply(fields["input_ids"], fields) if fields["sampling_params"]["max_new_tokens"] else ""
        if isinstance(reply, Exception):
            raise reply
        return self._answer(ids_of(reply) if isinstance(reply, str) else reply, fields)

    def stream(self, fields: Mapping[str, Any], rid: str) -> Iterator[dict[str, Any]]:
        whole = self.generate(fields, rid)
        for end in range(1, len(whole["output_ids"]) + 1):
            meta = whole["meta_info"] | {"completion_tokens": end}
            yield {"output_ids": whole["output_ids"][:end], "meta_info": meta}

    def abort(self, rid: str) -> None:
        self.aborted.append(rid)

    def close(self) -> None:
        """Nothing is open."""

    def _answer(self, ids: list[int], fields: Mapping[str, Any]) -> dict[str, Any]:
        """As the server ends a reply: at the end of the turn, at a stop string of the answer, or at the limit."""
        limit = fields["sampling_params"]["max_new_tokens"]
        ids, reason = ids[:limit], {"type": "length", "length": limit}
        if EOS in ids:
            ids, reason = ids[: ids.index(EOS) + 1], {"type": "stop", "matched": EOS}
        for stop in fields["sampling_params"].get("stop") or ():
            count = next((n for n in range(len(ids)) if stop in parse(ids[:n], FORMAT).answer), None)
            if count is not None:
                ids, reason = ids[:count], {"type": "stop", "matched": stop}
        end = control("[/THINK]")
        meta = {
            "finish_reason": reason,
            "prompt_tokens": len(fields["input_ids"]),
            "cached_tokens": 0,
            "completion_tokens": len(ids),
            "reasoning_tokens": max(0, ids.index(end) - 1) if end in ids else 0,
        }
        if fields.get("return_logprob"):
            meta["output_token_logprobs"] = [[-0.1, id, None] for id in ids]
        return {"output_ids": ids, "meta_info": meta}

    def _scored(self, ids: list[int], fields: Mapping[str, Any]) -> dict[str, Any]:
        """Every id behind the start has the log-probability of minus its number over a thousand."""
        entries = [[None, 0, None]] + [[-id / 1000, id, None] for id in ids[fields["logprob_start_len"] + 1 :]]
        counts = {"prompt_tokens": len(ids), "cached_tokens": 0}
        return {"output_ids": [], "meta_info": {"input_token_logprobs": entries, "output_token_logprobs": [], **counts}}
