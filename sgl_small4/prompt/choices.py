"""Choosing among texts by what the model thinks of each, token by token.

Upstream's default (`token_length_normalized`, sglang/lang/choices.py) takes the mean over an option's tokens, which
favours long options whose end is easy to guess. The likelihood of an option is the sum. Where the ids of one option
begin with those of another, the end of the turn counts as part of each, since the shorter would win always.
"""

import math
from collections.abc import Sequence
from typing import Any

from sglang.lang.choices import ChoicesDecision, ChoicesSamplingMethod


class Likelihood(ChoicesSamplingMethod):
    """The option with the greatest likelihood; its share among the options is its probability."""

    def __call__(
        self,
        *,
        choices: list[str],
        normalized_prompt_logprobs: list[float],
        input_token_logprobs: list[list[Any]],
        output_token_logprobs: list[list[Any]],
        unconditional_token_logprobs: list[list[Any]] | None = None,
    ) -> ChoicesDecision:
        sums = [sum(entry[0] for entry in entries) for entries in input_token_logprobs]
        best = max(range(len(choices)), key=sums.__getitem__)
        return ChoicesDecision(
            decision=choices[best],
            meta_info={
                "normalized_prompt_logprobs": normalized_prompt_logprobs,
                "input_token_logprobs": input_token_logprobs,
                "output_token_logprobs": output_token_logprobs,
            },
        )


likelihood = Likelihood()


def shares(sums: Sequence[float]) -> list[float]:
    """Likelihoods (natural logarithms) as shares of their total."""
    greatest = max(sums)
    weights = [math.exp(value - greatest) for value in sums]
    return [weight / sum(weights) for weight in weights]


def overlap(options: Sequence[Sequence[int]]) -> bool:
    """Whether the ids of one option begin with all ids of another."""
    return any(
        len(short) <= len(long) and list(long[: len(short)]) == list(short)
        for index, short in enumerate(options)
        for other, long in enumerate(options)
        if index != other
    )
