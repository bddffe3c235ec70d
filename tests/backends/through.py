"""The served model's logits through the stand-in for a GPU backend, step by step, in a fresh process."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from tests.backends.conventions import BACKENDS, Call, InPyTorch, chunk_slots, merge, sequence_slots, stand_in
from tests.model import served

Mode = Literal["extend", "decode", "verify"]


@dataclass(frozen=True)
class Step:
    """One batch of all sequences: each from where it stands to its `ends`; a decode step takes one token of each."""

    mode: Mode
    ends: tuple[int, ...]


@dataclass(frozen=True)
class Setting:
    """What decides between the two forms besides the batch; the defaults are SGLang's."""

    threshold: int = 8192  # SGLANG_CHUNKED_PREFIX_CACHE_THRESHOLD
    capacity: int = 131072  # SGLANG_MAX_KV_CHUNK_CAPACITY
    disable_chunked_prefix_cache: bool = False


def run(
    backend: str, setting: Setting, folder: Path, sequences: list[tuple[int, ...]], steps: list[Step]
) -> tuple[list[np.ndarray], list[list[Call]]]:
    """The logits of each step, one row per sequence (verify: one per token), and the calls the backend got in it."""
    from sglang.srt.environ import envs
    from sglang.srt.layers.attention.attention_registry import ATTENTION_BACKENDS
    from sglang.srt.mem_cache import kv_index_translator
    from sglang.srt.model_executor import forward_batch_deepseek_mha_mixin as chunks
    from sglang.srt.plugins import load_plugins
    from sglang.srt.runtime_context import override_platform

    load_plugins()
    from sgl_small4.model import attention

    made = []

    def create(runner):
        made.append(BACKENDS[backend](runner))
        made[0].disable_chunked_prefix_cache = setting.disable_chunked_prefix_cache
        return stand_in(made[0], runner)

    ATTENTION_BACKENDS[backend] = create
    # Kernels that do not run here; test_triton_interpreted.py has them against PyTorch.
    attention.merge_state = merge
    chunks.create_chunked_prefix_cache_kv_indices = InPyTorch(chunk_slots)
    kv_index_translator.create_flashinfer_kv_indices_triton = InPyTorch(sequence_slots)
    envs.SGLANG_CHUNKED_PREFIX_CACHE_THRESHOLD.set(setting.threshold)
    envs.SGLANG_MAX_KV_CHUNK_CAPACITY.set(setting.capacity)
    arguments = {
        "attention_backend": backend,
        "disable_chunked_prefix_cache": setting.disable_chunked_prefix_cache,
        "dtype": "float32",
        "moe_runner_backend": "auto",
    }
    with override_platform(is_blackwell=backend == "trtllm_mla"):  # asked for when the arguments are checked
        runner = served._model_runner(str(folder), max(map(len, sequences)), len(sequences), arguments)

    slots = hand_out_slots(runner, [len(ids) for ids in sequences])
    done, logits, calls = [0] * len(sequences), [], []
    for step in steps:
        made[0].calls.clear()
        batch = forward_batch(step, sequences, done, slots)
        logits.append(runner.forward(batch).logits_output.next_token_logits.float().clone().numpy())
        calls.append(list(made[0].calls))
        done = list(step.ends)
    return logits, calls


def hand_out_slots(runner, lengths: list[int]) -> torch.Tensor:
    """Give request i the slots in row i + 1 of the table of requests, scattered over the pool; returns the table."""
    table = runner.req_to_token_pool.req_to_token
    scattered = 1 + torch.randperm(runner.token_to_kv_pool.size - 1, generator=torch.Generator().manual_seed(0))
    for row, length in enumerate(lengths, start=1):
        table[row, :length], scattered = scattered[:length], scattered[length:]
    return table


def forward_batch(step: Step, sequences: list[tuple[int, ...]], done: list[int], slots: torch.Tensor):
    from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode, ForwardBatch, ForwardMode
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

    modes = {"extend": ForwardMode.EXTEND, "decode": ForwardMode.DECODE, "verify": ForwardMode.TARGET_VERIFY}
    pieces = list(zip(sequences, done, step.ends, strict=True))
    # Of a verify batch, the lengths do not count the drafted tokens yet.
    lengths = torch.tensor(done if step.mode == "verify" else step.ends)
    batch = ForwardBatch(
        forward_mode=modes[step.mode],
        batch_size=len(sequences),
        input_ids=torch.tensor([token for ids, start, end in pieces for token in ids[start:end]]),
        req_pool_indices=torch.arange(1, len(sequences) + 1),
        seq_lens=lengths,
        seq_lens_cpu=lengths,
        seq_lens_sum=int(lengths.sum()),
        out_cache_loc=torch.cat([slots[row, start:end] for row, (_, start, end) in enumerate(pieces, start=1)]).long(),
        positions=torch.cat([torch.arange(start, end) for _, start, end in pieces]),
        spec_algorithm=SpeculativeAlgorithm.NONE,
        capture_hidden_mode=CaptureHiddenMode.NULL,
    )
    if step.mode == "extend":
        batch.extend_prefix_lens_cpu = done
        batch.extend_seq_lens_cpu = [end - start for _, start, end in pieces]
        batch.extend_prefix_lens = torch.tensor(batch.extend_prefix_lens_cpu)
        batch.extend_seq_lens = torch.tensor(batch.extend_seq_lens_cpu)
        batch.extend_start_loc = batch.extend_seq_lens.cumsum(0) - batch.extend_seq_lens
        batch.extend_num_tokens = sum(batch.extend_seq_lens_cpu)
    return batch
