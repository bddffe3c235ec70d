"""Speed on this CPU against transformers: prefill, decode, and a question on a cached document, measured in turns.

Both run the same random checkpoint in bfloat16 on the same cores. Every round measures one side right after the other
and gives one ratio; the median of the rounds is shown, because a shared machine changes from minute to minute.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from sglang import Engine
from transformers import DynamicCache, Mistral4ForCausalLM
from transformers.utils.logging import disable_progress_bar

from launch.bench import random_model
from launch.bench.figures import Row, report

BATCH, PROMPT, REPLY = 16, 256, 32
DOCUMENTS = (2000, 4000, 8000)
QUESTION = 20
FIRST_ID = 100  # below are control ids


class Rounds:
    """Seconds of named measurements, one per round."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def measure(self, name: str, run: Callable[..., Any], *arguments: Any) -> Any:
        start = time.perf_counter()
        result = run(*arguments)
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)
        return result

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, other: str) -> float:
        """The median of `name` over `other`, round by round."""
        return statistics.median(a / b for a, b in zip(self.seconds[name], self.seconds[other], strict=True))

    def subtract(self, name: str, whole: str, part: str) -> None:
        self.seconds[name] = [a - b for a, b in zip(self.seconds[whole], self.seconds[part], strict=True)]


def prompts(count: int, length: int) -> list[list[int]]:
    """Token ids that no cache has seen."""
    return [random.choices(range(FIRST_ID, random_model.VOCABULARY), k=length) for _ in range(count)]


class Served:
    """Our side: an engine with the platform's defaults, asked by token ids, so that no text is encoded."""

    def __init__(self, folder: Path) -> None:
        self.engine = Engine(
            model_path=str(folder),
            skip_tokenizer_init=True,
            sleep_on_idle=True,
            context_length=16384,
            log_level="error",
        )

    def generate(self, ids: list[list[int]], tokens: int) -> list[dict[str, Any]]:
        sampling = {"max_new_tokens": tokens, "temperature": 0, "ignore_eos": True}
        return self.engine.generate(input_ids=ids, sampling_params=sampling)


class Reference:
    """The other side: transformers' own generate and forward."""

    def __init__(self, model: Mistral4ForCausalLM) -> None:
        self.model = model

    def generate(self, ids: list[list[int]], tokens: int) -> None:
        batch = torch.tensor(ids)
        self.model.generate(
            batch, attention_mask=torch.ones_like(batch), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False
        )

    def read(self, document: list[int]) -> DynamicCache:
        """A document's cache."""
        return self.model(torch.tensor([document]), use_cache=True, logits_to_keep=1).past_key_values

    def ask(self, cache: DynamicCache, question: list[int]) -> None:
        """One forward over the question; `cache` is cut back to the document by the caller."""
        self.model(torch.tensor([question]), past_key_values=cache, use_cache=True, logits_to_keep=1)


@torch.inference_mode()
def measure(served: Served, reference: Reference, rounds: int) -> tuple[Rounds, dict[int, int]]:
    """All measurements, and how many tokens of each document's question were cached (the least of all rounds)."""
    times, cached = Rounds(), dict.fromkeys(DOCUMENTS, sys.maxsize)
    longest = DOCUMENTS[-1]
    documents = {length: prompts(1, length)[0] for length in DOCUMENTS}
    served.generate(prompts(BATCH, PROMPT), 2)  # neither side's first call is measured
    reference.generate(prompts(BATCH, PROMPT), 2)
    cache = times.measure("reference document", reference.read, documents[longest])
    for length, document in documents.items():
        times.measure(f"document {length}", served.generate, [document], 1)
    for _ in range(rounds):
        for tokens in (1, 1 + REPLY):
            times.measure(f"reference {tokens}", reference.generate, prompts(BATCH, PROMPT), tokens)
            times.measure(f"served {tokens}", served.generate, prompts(BATCH, PROMPT), tokens)
        times.measure("reference question", reference.ask, cache, *prompts(1, QUESTION))
        cache.crop(-QUESTION)
        for length, document in documents.items():
            whole = [document + question for question in prompts(1, QUESTION)]
            answer = times.measure(f"question {length}", served.generate, whole, 1)[0]
            cached[length] = min(cached[length], answer["meta_info"]["cached_tokens"])
    for side in ("reference", "served"):
        times.subtract(f"{side} decode", f"{side} {1 + REPLY}", f"{side} 1")
    return times, cached


def rows(times: Rounds, cached: dict[int, int]) -> Iterator[Row]:
    """The table, with the targets of the project."""

    def speed(name: str, tokens: int) -> str:
        return f"{tokens / times.median(name):.0f}"

    def compared(what: str, side: str, tokens: int, least: float) -> Row:
        ratio = times.ratio(f"reference {side}", f"served {side}")
        both = f"{speed(f'served {side}', tokens)} against {speed(f'reference {side}', tokens)} tokens/s"
        return Row(what, f"at least {least:g} times transformers", f"{ratio:.2f} times: {both}", ratio >= least)

    yield compared(f"prefill of {BATCH} x {PROMPT} tokens", "1", BATCH * PROMPT, 1.0)
    yield compared(f"decode of {BATCH} requests", "decode", BATCH * REPLY, 2.5)
    longest = DOCUMENTS[-1]
    for length in DOCUMENTS:
        what = f"{QUESTION}-token question on a cached document of {length:,} tokens"
        measured = f"{1000 * times.median(f'question {length}'):.0f} ms, {cached[length]:,} tokens cached"
        yield Row(what, "all of it cached", measured, cached[length] == length)
    ratio = times.ratio(f"question {longest}", "reference question")
    both = f"{ratio:.2f} times: against {1000 * times.median('reference question'):.0f} ms"
    yield Row(f"the last of these against transformers' forward on its cache of {longest:,}", "at most 0.8 times", both,
              ratio <= 0.8)  # fmt: skip
    for short, long in zip(DOCUMENTS[:-1], DOCUMENTS[1:], strict=True):
        growth = times.ratio(f"question {long}", f"question {short}")
        yield Row(f"its time at {long:,} against {short:,}", f"at most {long / short:g} times", f"{growth:.2f} times",
                  growth <= long / short)  # fmt: skip
    both = f"{speed(f'document {longest}', longest)} against {speed('reference document', longest)} tokens/s"
    yield Row(f"cold prefill of {longest:,} tokens", "reported", both, None)


def main() -> int:
    """Print the table; the exit code is 1 when a target is missed."""
    parser = argparse.ArgumentParser(description="Compare the served model with transformers on this CPU.")
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    disable_progress_bar()
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        reference = Reference(random_model.write(Path(folder)))
        served = Served(Path(folder))
        try:
            found = list(rows(*measure(served, reference, given.rounds)))
        finally:
            served.engine.shutdown()
    missed = report(found, given.json)
    print(
        f"medians of {given.rounds} rounds on {torch.get_num_threads()} threads; load average {os.getloadavg()[0]:.1f}"
    )
    return missed


if __name__ == "__main__":
    sys.exit(main())
