"""Runs SGLang's Triton attention kernels in Triton's interpreter, on CPU tensors, against plain PyTorch.

A program of its own because TRITON_INTERPRET is read when the kernels are imported:
`TRITON_INTERPRET=1 python -m tests.backends.triton_interpreted` prints a JSON object, case to largest absolute error.
"""

import json
from collections.abc import Callable

import torch
from sglang.kernels.ops.attention import decode_attention, extend_attention, merge_state
from sglang.kernels.ops.attention.kv_indices import create_chunked_prefix_cache_kv_indices
from sglang.kernels.ops.kvcache import mla_buffer
from sglang.srt.platforms import current_platform
from sglang.srt.platforms.interface import PlatformCapabilities
from triton.runtime.errors import InterpreterError

from sgl_small4.plugin import engine, hooks

LATENT, ROPE = 256, 64
SCALE = 0.08
SLOTS = 256


def attend(query, key, value, visible=None):
    """Softmax attention of one sequence.

    query [new, heads, width], key [tokens, kv_heads, width], value [tokens, kv_heads, value_width]; visible
    [new, tokens] marks what each new token sees, all of it if None. Returns the output [new, heads, value_width] and
    the log of each row's sum [new, heads].
    """
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = torch.einsum("qhd,khd->hqk", query, key) * SCALE
    if visible is not None:
        scores = scores.masked_fill(~visible, float("-inf"))
    output = torch.einsum("hqk,khd->qhd", scores.softmax(-1), value)
    return output.contiguous(), scores.logsumexp(-1).T.contiguous()  # the merge kernel reads rows without strides


def causal(new: int, prefix: int) -> torch.Tensor:
    """What each of `new` tokens behind `prefix` cached ones sees, [new, prefix + new]."""
    return torch.ones(new, prefix + new, dtype=torch.bool).tril(prefix)


def indptr(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)


def decode(heads: int) -> float:
    """An absorbed step of two sequences whose rows lie scattered in the pool."""
    lengths = [70, 30]
    query, pool = torch.randn(2, heads, LATENT + ROPE), torch.randn(SLOTS, 1, LATENT + ROPE)
    slots, ends, splits = torch.randperm(SLOTS)[: sum(lengths)], indptr(lengths), 4
    output = torch.zeros(2, heads, LATENT)
    decode_attention.decode_attention_fwd(
        q=query,
        k_buffer=pool,
        v_buffer=pool[..., :LATENT],
        o=output,
        kv_indptr=ends,
        kv_indices=slots,
        attn_logits=torch.zeros(2, heads, splits, LATENT),
        attn_lse=torch.zeros(2, heads, splits),
        num_kv_splits=torch.full((2,), splits, dtype=torch.int32),
        max_kv_splits=splits,
        sm_scale=SCALE,
        k_scale=1.0,
        v_scale=1.0,
        has_mla=True,
    )
    rows = [pool[slots[begin:end]] for begin, end in zip(ends, ends[1:], strict=False)]
    expected = [attend(query[i : i + 1], row, row[..., :LATENT])[0] for i, row in enumerate(rows)]
    return error(output, torch.cat(expected))


def extend(heads: int, kv_heads: int, width: int, value_width: int, prefixes: list[int], tree: bool = False) -> float:
    """New tokens of two sequences behind cached ones; with `tree`, each sees itself and the first of them only."""
    new = [9, 40]
    query, pool = torch.randn(sum(new), heads, width), torch.randn(SLOTS, kv_heads, width)
    key, value = torch.randn(sum(new), kv_heads, width), torch.randn(sum(new), kv_heads, value_width)
    slots, output = torch.randperm(SLOTS)[: sum(prefixes)], torch.zeros(sum(new), heads, value_width)
    visible = [causal(count, prefix) for count, prefix in zip(new, prefixes, strict=True)]
    if tree:
        for mask, prefix in zip(visible, prefixes, strict=True):
            mask[:, prefix:] = torch.eye(len(mask), dtype=torch.bool)
            mask[:, prefix] = True
    extend_attention.extend_attention_fwd(
        query,
        key,
        value,
        output,
        pool,
        pool[..., :value_width],
        indptr(new),
        indptr(prefixes),
        slots,
        torch.cat([mask.flatten() for mask in visible]) if tree else None,
        True,
        indptr([mask.numel() for mask in visible]).long() if tree else None,
        max(new),
        1.0,
        1.0,
        sm_scale=SCALE,
    )
    expected = []
    for i, mask in enumerate(visible):
        mine = slice(indptr(new)[i], indptr(new)[i + 1])
        cached = pool[slots[indptr(prefixes)[i] : indptr(prefixes)[i + 1]]]
        keys, values = torch.cat([cached, key[mine]]), torch.cat([cached[..., :value_width], value[mine]])
        expected.append(attend(query[mine], keys, values, mask)[0])
    return error(output, torch.cat(expected))


def chunked_prefix(heads: int) -> float:
    """A prefix attended in two chunks and joined with the new tokens equals attention over all of it at once.

    The chunks' slots come from the indices kernel, their latents from the gathering one after the writing one put them
    there: what expanded prefill does behind a long prefix.
    """
    prefix, new, chunk = 50, 6, 32
    pool, slots = torch.zeros(SLOTS, 1, LATENT + ROPE), torch.randperm(SLOTS - 1)[: prefix + new] + 1
    latent, rope = torch.randn(prefix + new, 1, LATENT), torch.randn(prefix + new, 1, ROPE)
    mla_buffer.set_mla_kv_buffer_triton(pool, slots, latent, rope)
    table = torch.zeros(3, 64, dtype=torch.int32)
    table[2, : prefix + new] = slots
    expand = torch.randn(heads, LATENT, 2 * ROPE) * LATENT**-0.5
    query = torch.randn(new, heads, 2 * ROPE)

    def key_and_value(latent, rope):
        plain = torch.einsum("tl,hlk->thk", latent[:, 0], expand)
        return torch.cat([plain[..., :ROPE], rope.expand(-1, heads, -1)], -1), plain

    key, value = key_and_value(latent, rope)
    expected, _ = attend(query, key, value, causal(new, prefix))
    output, lse = attend(query, key[prefix:], value[prefix:], causal(new, 0))
    for start in range(0, prefix, chunk):
        length = min(chunk, prefix - start)
        found = torch.zeros(length, dtype=torch.int32)
        number = [torch.tensor([x], dtype=torch.int32) for x in (2, start, length)]
        create_chunked_prefix_cache_kv_indices[(1,)](table, *number, indptr([length]), found, table.shape[1])
        gathered = torch.zeros(length, 1, LATENT), torch.zeros(length, 1, ROPE)
        mla_buffer.get_mla_kv_buffer_triton(pool, found, *gathered)
        part, part_lse = attend(query, *key_and_value(*gathered))
        output, lse = merge_state.merge_state_triton(part, part_lse, output, lse)
    return error(output, expected)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return (found - expected).abs().max().item()


def compiles_upstream() -> bool:
    """Whether upstream's own launch, without the hook, runs at this shape."""
    hooked = decode_attention._decode_grouped_att_m_fwd
    decode_attention._decode_grouped_att_m_fwd = hooked.__wrapped__
    try:
        decode(heads=32)
    except InterpreterError:
        return False
    finally:
        decode_attention._decode_grouped_att_m_fwd = hooked
    return True


CASES: dict[str, Callable[[], float]] = {
    "decode, tp 1": lambda: decode(heads=32),
    "decode, tp 4": lambda: decode(heads=8),
    "extend, absorbed, with prefixes": lambda: extend(8, 1, LATENT + ROPE, LATENT, [70, 13]),
    "extend, absorbed, one prefix": lambda: extend(8, 1, LATENT + ROPE, LATENT, [0, 33]),
    "extend, absorbed, tree mask": lambda: extend(8, 1, LATENT + ROPE, LATENT, [20, 33], tree=True),
    "extend, expanded, cold": lambda: extend(8, 8, 128, 128, [0, 0]),
    "expanded behind a chunked prefix": lambda: chunked_prefix(heads=8),
}


def main() -> None:
    torch.manual_seed(0)
    [launcher] = [entry for entry in hooks.HOOKS if entry.function is engine.load_values_apart]
    hooks.apply(launcher)
    current_platform.capabilities = PlatformCapabilities(supports_triton=True)
    print(json.dumps({"upstream compiles": compiles_upstream()} | {name: case() for name, case in CASES.items()}))


if __name__ == "__main__":
    main()
