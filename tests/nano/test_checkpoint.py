"""What is exported is the model that was trained; what ships answers fixed held-out questions."""

import json
import os

import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig, Mistral4ForCausalLM

from sgl_small4.nano import CHECKPOINT, cases, compiled
from sgl_small4.nano.checkpoint_io import export, load_checkpoint
from sgl_small4.nano.conversation import Format
from sgl_small4.nano.evaluate import Evaluation
from sgl_small4.nano.generate import Ask, greedy
from sgl_small4.nano.model import Model
from sgl_small4.nano.operators import Plain
from sgl_small4.nano.shape import Shape

TINY = Shape(vocab_size=96, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, n_routed_experts=8)


def transformers_logits(folder, ids: list[int]) -> torch.Tensor:
    theirs = Mistral4ForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return theirs(torch.tensor([ids])).logits[0]


def our_logits(model: Model, ids: list[int]) -> torch.Tensor:
    rows = torch.tensor([ids], dtype=torch.int32)
    with torch.no_grad():
        return model(rows, torch.zeros_like(rows))[0]


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_an_exported_model_gives_the_same_logits_in_transformers(tmp_path) -> None:
    torch.manual_seed(0)
    model = Model(TINY, Plain())
    export(model, tmp_path, torch.float32)
    ids = torch.randint(0, 96, (300,)).tolist()
    assert_close(our_logits(model, ids), transformers_logits(tmp_path, ids))
    assert torch.equal(our_logits(load_checkpoint(tmp_path, Plain()), ids), our_logits(model, ids))


def test_greedy_decoding_with_holes_and_a_shared_prefix_is_the_full_forward_pass() -> None:
    torch.manual_seed(1)
    model = Model(TINY, Plain())
    asks = [Ask([5, 6, 7, 8, 9], [[10, 11, 12], [13]]), Ask([20], [[21, 22]])]
    replies = greedy(model, asks, 6)
    for ask, written in zip(asks, replies, strict=True):
        for suffix, reply in zip(ask.suffixes, written, strict=True):
            ids = ask.prefix + suffix
            for token in reply:
                assert int(our_logits(model, ids)[-1].argmax()) == token
                ids.append(token)
            assert len(reply) == 6 or int(our_logits(model, ids)[-1].argmax()) == 2


def test_the_shipped_checkpoint_is_whole_and_small() -> None:
    assert os.path.getsize(CHECKPOINT / "model.safetensors") <= 20_000_000
    config = json.loads((CHECKPOINT / "config.json").read_text())
    published = {"n_routed_experts": 128, "num_experts_per_tok": 4, "n_shared_experts": 1, "model_type": "mistral4"}
    assert published.items() <= config.items()
    generation = GenerationConfig.from_pretrained(CHECKPOINT)
    assert (generation.bos_token_id, generation.eos_token_id, generation.pad_token_id) == (1, 2, 11)
    assert "[INST]" in AutoTokenizer.from_pretrained(str(CHECKPOINT)).get_chat_template()


def test_the_shipped_checkpoint_gives_the_same_logits_in_transformers() -> None:
    evaluation = Evaluation(CHECKPOINT, 1)
    form: Format = evaluation.format
    case = cases.documents(evaluation.random, 1, 300, 1, evaluation.length)[0]
    ids = form.opening(True, case.system) + form.user(case.turn.question)
    assert_close(our_logits(load_checkpoint(CHECKPOINT, Plain()), ids), transformers_logits(CHECKPOINT, ids))


@pytest.mark.skipif(compiled.missing() is not None, reason=f"slow in plain PyTorch: {compiled.missing()}")
def test_the_shipped_checkpoint_answers_held_out_questions() -> None:
    """Few cases and loose bounds: `python -m sgl_small4.nano.evaluate` makes the figures."""
    evaluation = Evaluation(CHECKPOINT, 40)
    sums = cases.sums(evaluation.random, 40)
    assert evaluation.short("sums", sums, high=True).right >= 36
    assert evaluation.short("easy", cases.easy_sums(evaluation.random, 40), high=False).right >= 32
    assert evaluation.short("checks", cases.checks(evaluation.random, 40), high=True).right >= 35
    assert evaluation.calculator("calls", cases.calculations(evaluation.random, 40), high=True).right >= 35
    asked = cases.documents(evaluation.random, 40, 500, 5, evaluation.length)
    (high, _), (none, denied) = evaluation.documents("documents", asked)
    assert high.right >= 35 and none.right >= 25 and denied.right <= 4
    (_, _), (quoted, _) = evaluation.documents("quotes", cases.quotes(asked, 5))
    (_, _), (later, _) = evaluation.documents("quotes after others", cases.quotes(asked, 5, 3))
    assert quoted.right >= 34 and later.right >= 34
    absent = cases.documents(evaluation.random, 20, 500, 5, evaluation.length, missing=True)
    (_, _), (nothing, _) = evaluation.documents("no quotes", cases.quotes(absent, 5))
    assert nothing.right >= 18
