"""The served model's float32 logits against transformers', in every way a token can meet its prefix."""

import itertools
import shutil

import pytest
import torch

from tests.checkpoints import Checkpoint, Shape, write_hf, write_native
from tests.model.oracle import oracle, reference_logits
from tests.model.served import Request, logits

TOLERANCE = 1e-4

SHAPES = {
    "tiny": Shape(),
    "one head, one layer": Shape(layers=1, heads=1, experts=4, active=2, kv_lora=32, rope=8),
    "as published, fewer layers and experts": Shape(
        hidden=256, layers=2, heads=4, q_lora=128, kv_lora=256, nope=64, rope=64, v=128, experts=16, inner=64
    ),
    "scaled softmax": Shape(scaled=True),
    "scaled by half": Shape(scaled=True, mscale_all_dim=0.5),
}


def sequence(length: int, vocab: int = 96, seed: int = 1) -> tuple[int, ...]:
    return tuple(torch.randint(0, vocab, (length,), generator=torch.Generator().manual_seed(seed)).tolist())


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    error = (found - expected).abs().max() / expected.abs().max()
    assert error < TOLERANCE, f"relative error {error:.2e}"


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_logits_equal_the_reference_in_prefill_chunks_and_decode(shape, tmp_path):
    checkpoint = Checkpoint.random(shape)
    reference = oracle(checkpoint)
    # One batch of requests of different lengths: a prefill, a chunk on a prefix, a short question, decode steps.
    requests = [
        Request(sequence(70, seed=1), (30, 60, 64, 65, 66, 70)),
        Request(sequence(40, seed=2), (5, 30, 31, 32, 33, 40)),
        Request(sequence(90, seed=3), (1, 80, 86, 87, 88, 90)),
    ]
    found = logits(write_hf(checkpoint, tmp_path / "hf"), requests, dtype="float32")
    for request, rows in zip(requests, found, strict=True):
        expected = reference_logits(reference, request.ids)[[end - 1 for end in request.ends]]
        assert_close(rows, expected)


def test_logits_equal_the_reference_where_the_query_scale_steps(tmp_path):
    """Positions 8191/8192 and 16383/16384 (counted from 0), by prefill, chunk, cached question and decode."""
    checkpoint = Checkpoint.random(Shape(layers=2, heads=2))
    ids = sequence(16400)
    ends = (8180, 8190, 8191, 8192, 8193, 8194, 16380, 16383, 16384, 16385, 16386, 16400)
    found = logits(write_native(checkpoint, tmp_path), [Request(ids, ends)], dtype="float32")[0]
    expected = _reference_at(checkpoint, ids, ends)
    assert_close(found, expected)
    # The step is real: without it the logits would be elsewhere.
    unscaled = _reference_at(checkpoint, ids, ends, query_scale_beta=0.0)
    assert (unscaled - expected).abs().max() / expected.abs().max() > 10 * TOLERANCE


@pytest.mark.slow
def test_logits_equal_the_reference_at_the_last_position_of_the_served_context(tmp_path):
    """Position 262,143 of a one-layer model, at the end of a cold prefill and as a question on the cached rest."""
    checkpoint = Checkpoint.random(Shape(layers=1, heads=1, kv_lora=16, rope=8, nope=8, v=8, q_lora=16))
    ids = sequence(262_144)
    chunks = tuple(range(32_768, 262_144, 32_768))
    folder = write_native(checkpoint, tmp_path)
    cold = logits(folder, [Request(ids, (*chunks, 262_144))], dtype="float32")[0][-1:]
    cached = logits(folder, [Request(ids, (*chunks, 262_124, 262_144))], dtype="float32")[0][-1:]
    expected = _reference_at(checkpoint, ids, (262_144,))
    assert_close(cold, expected)
    assert_close(cached, expected)


@pytest.mark.parametrize("name", ["mistral-small-4", "ft-run-7", "with a space"])
def test_both_formats_give_the_same_logits_under_any_folder_name(name, tmp_path):
    checkpoint = Checkpoint.random(Shape())
    ids = sequence(24)
    request = Request(ids, (16, 20, 21, 24))
    folders = {
        "native": write_native(checkpoint, tmp_path / "native" / name),
        "hf": write_hf(checkpoint, tmp_path / "hf" / name),
    }
    if name == "ft-run-7":
        link = tmp_path / "a link"
        link.symlink_to(folders["native"])
        folders["symbolic link"] = link
        folders["both"] = shutil.copytree(folders["native"], tmp_path / "both")
        write_hf(checkpoint, folders["both"])
    found = [logits(folder, [request], dtype="float32")[0] for folder in folders.values()]
    for first, second in itertools.pairwise(found):
        assert torch.equal(first, second)
    assert_close(found[0], reference_logits(oracle(checkpoint), ids)[[end - 1 for end in request.ends]])


@pytest.mark.parametrize("form", ["hf", "hf wrapper", "hf wrapper, newer prefix", "native", "native with vision"])
def test_the_published_fp8_form_gives_the_logits_of_its_dequantised_weights(form, tmp_path):
    source = Checkpoint.random(Shape())
    checkpoint = source.quantised()
    prefix = {"hf wrapper": "language_model.model.", "hf wrapper, newer prefix": "model.language_model."}.get(form)
    if form.startswith("native"):
        folder = write_native(checkpoint, tmp_path, vision="vision" in form)
    else:
        folder = write_hf(checkpoint, tmp_path, wrapper=prefix)
    ids = sequence(24)
    found = logits(folder, [Request(ids, (16, 24))], dtype="float32")[0]
    assert_close(found, reference_logits(oracle(checkpoint), ids)[[15, 23]])
    # Quantisation changes the logits, and only within its error: e4m3 has 3 bits of mantissa.
    exact = reference_logits(oracle(source), ids)[[15, 23]]
    difference = (found - exact).norm() / exact.norm()
    assert 1e-3 < difference < 0.2, f"{difference:.3f} of the bf16 source's logits"


def _reference_at(
    checkpoint: Checkpoint, ids: tuple[int, ...], ends: tuple[int, ...], query_scale_beta: float = 0.1
) -> torch.Tensor:
    """Reference logits of the tokens before `ends` alone: a full attention matrix would not fit the memory.

    The reference's own layers compute all cached rows, layer by layer, but attend only from the wanted positions in the
    last layer; earlier layers attend in slices.
    """
    model = oracle(checkpoint)
    model.config.rope_parameters["llama_4_scaling_beta"] = query_scale_beta
    wanted = torch.tensor([end - 1 for end in ends])
    positions = torch.arange(len(ids))[None]
    with torch.no_grad():
        hidden = model.model.embed_tokens(torch.tensor([ids]))
        cos, sin = model.model.rotary_emb(hidden, positions)
        for number, layer in enumerate(model.model.layers):
            last = number == len(model.model.layers) - 1
            rows = [wanted] if last else torch.arange(len(ids)).split(1024)
            hidden = torch.cat([_layer_at(layer, hidden, cos, sin, part) for part in rows], dim=1)
        return model.lm_head(model.model.norm(hidden))[0].float()


def _layer_at(layer, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """One reference layer's output at `rows`, which attend to every earlier row of `hidden` [1, tokens, hidden_size].

    The rows to attend from stand alone in the input; the others meet them as a cache that returns all latents.
    """

    class Everything:
        """A cache that already holds the whole sequence."""

        def update(self, _latent, _key_rope, _layer):
            return self.latent, self.key_rope

    cache = Everything()
    attention, normed = layer.self_attn, layer.input_layernorm(hidden)

    class Capture:
        def update(self, latent, key_rope, _layer):
            cache.latent, cache.key_rope = latent, key_rope
            raise StopIteration

    try:
        attention(normed, (cos, sin), None, torch.arange(hidden.shape[1])[None], past_key_values=Capture())
    except StopIteration:
        pass
    mask = torch.where(torch.arange(hidden.shape[1])[None] <= rows[:, None], 0.0, -torch.inf)[None, None]
    attended = attention(normed[:, rows], (cos[:, rows], sin[:, rows]), mask, rows[None], past_key_values=cache)[0]
    hidden = hidden[:, rows] + attended
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))
