"""Ranks that share the work give one rank's numbers: tensor, expert and pipeline parallel on two cores."""

import pytest
import torch

from tests.checkpoints import Checkpoint, Shape, write_hf
from tests.model.oracle import oracle, reference_logits
from tests.model.served import in_fresh_process

RANKS = {
    "tensor": {"tp_size": 2},
    "tensor and expert": {"tp_size": 2, "ep_size": 2},
    "pipeline": {"pp_size": 2},
}


def engine_logprobs(folder: str, prompts: list[list[int]], server_args: dict) -> list[list[float]]:
    """The log-probability of each prompt token after the first, and of two greedy tokens after the prompt."""
    import sglang

    engine = sglang.Engine(
        model_path=folder, skip_tokenizer_init=True, dtype="float32", context_length=256, max_running_requests=4,
        max_total_tokens=1024, chunked_prefill_size=32, log_level="error", **server_args,
    )  # fmt: skip
    try:
        answers = engine.generate(
            input_ids=prompts,
            sampling_params={"temperature": 0, "max_new_tokens": 2},
            return_logprob=True,
            logprob_start_len=0,
        )
    finally:
        engine.shutdown()
    return [
        [entry[0] for entry in answer["meta_info"]["input_token_logprobs"][1:]]
        + [entry[0] for entry in answer["meta_info"]["output_token_logprobs"]]
        for answer in answers
    ]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", RANKS.values(), ids=RANKS)
def test_several_ranks_give_the_log_probabilities_of_the_reference(ranks, tmp_path):
    checkpoint = Checkpoint.random(Shape())
    made = torch.Generator().manual_seed(5)
    prompts = [torch.randint(0, 96, (length,), generator=made).tolist() for length in (50, 20, 7)]
    found = in_fresh_process(engine_logprobs, str(write_hf(checkpoint, tmp_path)), prompts, ranks)
    reference = oracle(checkpoint)
    for prompt, logprobs in zip(prompts, found, strict=True):
        ids = list(prompt)
        for _ in range(2):
            ids.append(int(reference_logits(reference, tuple(ids))[-1].argmax()))
        expected = reference_logits(reference, tuple(ids)).log_softmax(-1)[range(len(ids) - 1), ids[1:]]
        torch.testing.assert_close(torch.tensor(logprobs), expected, rtol=0, atol=1e-4)
