"""A start for training: a rough copying circuit set by hand, instead of waiting for one to form.

The residual stream is divided into orthogonal parts: the token itself, the tokens one and two places back, a predicted
token, and a constant. Two heads of layer 0 look one and two places back, by RoPE alone, and write what they find to the
second and third part. Two heads of layer 1 look for a place whose earlier tokens are the present ones and write the
token found there to the prediction, which the output matrix reads. All of it is trained on. From random weights the
same skill had not appeared after 4 million tokens (measured here); with this start it is there at once."""

from typing import NamedTuple

import torch

from sgl_small4.nano.model import Layer, Model

TOKEN, BACK_1, BACK_2, PREDICTED = 48, 24, 16, 24  # widths of the parts
NAME = 24  # of a token's 48 coordinates, the half by which it is matched; the other half is copied
CONSTANT = 6.0  # length of the constant part, against about 7 of a token's
GAIN = 2.5  # of the matching heads


class _Parts(NamedTuple):
    """Orthonormal bases [hidden, width]."""

    constant: torch.Tensor
    token: torch.Tensor
    back_1: torch.Tensor
    back_2: torch.Tensor
    predicted: torch.Tensor


@torch.no_grad()
def set_by_hand(model: Model) -> None:
    """Change a freshly initialised model in place."""
    shape = model.shape
    basis = torch.linalg.qr(torch.randn(shape.hidden_size, shape.hidden_size))[0]
    widths = [1, TOKEN, BACK_1, BACK_2, PREDICTED]
    parts = _Parts(*basis[:, : sum(widths)].split(widths, 1))
    code = torch.randn(shape.vocab_size, TOKEN)
    mixing = torch.linalg.qr(torch.randn(TOKEN, TOKEN))[0]
    name, copied = mixing[:, :NAME], mixing[:, NAME:]
    noise = 0.1 * torch.randn(shape.vocab_size, shape.hidden_size)
    model.embedding.copy_(code @ parts.token.T + CONSTANT * parts.constant.T + noise)
    _look_back(model.layers[0], model.frequencies, parts, name)
    _match(model.layers[1], parts, name, copied)
    model.head.mul_(0.1).add_(0.4 * parts.predicted @ copied.T @ code.T)
    for layer in model.layers:
        layer.down *= 0.3  # the experts begin as a small addition


def _look_back(layer: Layer, frequencies: torch.Tensor, parts: _Parts, name: torch.Tensor) -> None:
    """Heads 0 and 1 attend one and two places back and write that token's name."""
    shape = layer.shape
    rms = ((TOKEN + CONSTANT**2) / shape.hidden_size) ** 0.5  # of an embedding, which the norm divides by
    rope = slice(shape.kv_lora_rank, None)
    layer.kv_a[:, :NAME] = rms * parts.token @ name
    layer.kv_a[:, rope] *= 0.1
    layer.kv_a[:, rope][:, ::2] += rms * parts.constant / CONSTANT  # every key is 1 in the even rope dimensions
    layer.q_a[:, 0] = 4 * rms * parts.constant[:, 0] / CONSTANT
    latent = 4 / ((shape.q_lora_rank - 1 + 16) / shape.q_lora_rank) ** 0.5  # the query's constant after its norm
    pairs = min(5, shape.qk_rope_head_dim // 2)
    strength = torch.tensor([30.0, 30.0, 16.0, 8.0, 8.0])[:pairs] / latent
    for head, (part, width) in enumerate(((parts.back_1, BACK_1), (parts.back_2, BACK_2))):
        angle = frequencies[:pairs] * (head + 1)
        first = head * shape.qk_head_dim + shape.qk_nope_head_dim
        layer.q_b[:, head * shape.qk_head_dim : (head + 1) * shape.qk_head_dim] *= 0.1
        layer.q_b[0, first : first + 2 * pairs : 2] = strength * angle.cos()
        layer.q_b[0, first + 1 : first + 2 * pairs : 2] = -strength * angle.sin()
        value, out = _value_columns(layer, head)
        layer.kv_b[:, value] = 0
        layer.kv_b[:width, value.start : value.start + width] = torch.eye(width)
        layer.o[out] = 0
        layer.o[out.start : out.start + width] = part.T


def _match(layer: Layer, parts: _Parts, name: torch.Tensor, copied: torch.Tensor) -> None:
    """Heads 0 and 1 look for the present token one place before the key; head 1 for the one before it as well."""
    shape = layer.shape
    once, twice, found = slice(0, NAME), slice(NAME, NAME + 16), slice(NAME + 16, NAME + 16 + PREDICTED)
    layer.kv_a[:, once], layer.kv_a[:, twice], layer.kv_a[:, found] = parts.back_1, parts.back_2, parts.token @ copied
    layer.q_a[:, once], layer.q_a[:, twice] = parts.token @ name, parts.back_1[:, :16]
    for head in range(2):
        value, out = _value_columns(layer, head)
        query = head * shape.qk_head_dim
        key = head * (shape.qk_nope_head_dim + shape.v_head_dim)
        layer.q_b[:, query : query + shape.qk_head_dim] *= 0.1
        layer.kv_b[:, key : key + shape.qk_nope_head_dim] = 0
        layer.kv_b[:, value] = 0
        width = NAME if head == 0 else 16
        layer.kv_b[:width, key : key + width] = torch.eye(width)
        layer.q_b[:width, query : query + width] = GAIN * torch.eye(width)
        if head == 1:
            layer.kv_b[twice, key + 16 : key + 32] = torch.eye(16)
            layer.q_b[twice, query + 16 : query + 32] = GAIN * torch.eye(16)
        layer.kv_b[found, value.start : value.start + PREDICTED] = torch.eye(PREDICTED)
        layer.o[out] = 0
        layer.o[out.start : out.start + PREDICTED] = parts.predicted.T


def _value_columns(layer: Layer, head: int) -> tuple[slice, slice]:
    """The columns of `kv_b` that make a head's values, and the rows of `o` that take them."""
    shape = layer.shape
    first = head * (shape.qk_nope_head_dim + shape.v_head_dim) + shape.qk_nope_head_dim
    return slice(first, first + shape.v_head_dim), slice(head * shape.v_head_dim, (head + 1) * shape.v_head_dim)
