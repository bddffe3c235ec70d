"""A run that was stopped goes on with what it would have done; a finished checkpoint practises on."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sgl_small4.nano import CHECKPOINT, train
from sgl_small4.nano.checkpoint_io import export
from sgl_small4.nano.operators import Plain
from sgl_small4.nano.schedule import FROM_NOTHING, PRACTICE
from sgl_small4.nano.shape import Shape
from sgl_small4.nano.tokenizer import TOKENIZER_FILES, Coder
from sgl_small4.nano.train import Settings, Trainer, new_model, practising

SETTINGS = Settings(steps=40, minutes=1000, seed=3, shape=Shape(num_hidden_layers=2, n_routed_experts=8))


@pytest.fixture
def coder(monkeypatch) -> Coder:
    monkeypatch.setattr(train, "STEP_TOKENS", 512)
    return Coder(CHECKPOINT / "tekken.json")


def new(settings: Settings, coder: Coder) -> Trainer:
    return Trainer(settings, coder, new_model(settings, Plain()))


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([parameter.detach().view(-1) for parameter in trainer.model.parameters()])


def test_a_resumed_run_continues_identically(coder: Coder, tmp_path: Path) -> None:
    whole = new(SETTINGS, coder)
    for _ in range(2):
        whole.advance()
    whole.save(tmp_path / "state.pt")
    losses = [whole.advance() for _ in range(2)]

    resumed = new(SETTINGS, coder)
    resumed.load(tmp_path / "state.pt")
    assert (resumed.step, resumed.tokens) == (2, 1024)
    assert [resumed.advance() for _ in range(2)] == losses
    assert torch.equal(weights(resumed), weights(whole))
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]


def test_a_state_of_another_run_is_refused(coder: Coder, tmp_path: Path) -> None:
    new(SETTINGS, coder).save(tmp_path / "state.pt")
    other = Settings(SETTINGS.steps, SETTINGS.minutes, SETTINGS.seed + 1, SETTINGS.shape)
    with pytest.raises(SystemExit, match="other settings"):
        new(other, coder).load(tmp_path / "state.pt")


def test_a_run_that_is_late_shortens_its_schedule(coder: Coder) -> None:
    trainer = new(SETTINGS, coder)
    assert trainer.done == 0
    trainer.seconds = 60 * SETTINGS.minutes / 2
    assert trainer.done == 0.5
    trainer.step = 30
    assert trainer.done == 0.75


def test_training_lowers_the_loss(coder: Coder, monkeypatch) -> None:
    monkeypatch.setattr(train, "FROM_NOTHING", replace(FROM_NOTHING, warm_steps=4))
    trainer = new(SETTINGS, coder)

    def loss() -> float:
        """The mean over a few steps' tokens of all tasks."""
        sums = [pair for _ in range(4) for name, pair in trainer.advance().items() if name != "balance"]
        return sum(total for _, total in sums) / sum(count for count, _ in sums)

    first = loss()
    for _ in range(16):
        trainer.advance()
    assert loss() < 0.9 * first


@pytest.fixture
def origin(coder: Coder, tmp_path: Path) -> Path:
    """A finished checkpoint, small."""
    export(new(SETTINGS, coder).model, tmp_path / "origin", torch.float32)
    for name in TOKENIZER_FILES:
        shutil.copyfile(CHECKPOINT / name, tmp_path / "origin" / name)
    return tmp_path / "origin"


def practice(origin: Path, out: Path) -> Trainer:
    out.mkdir(exist_ok=True)
    return practising(origin, out, 40, 1000, 0, Plain())


def test_practice_goes_on_from_the_checkpoint_at_a_lower_rate(coder: Coder, origin: Path, tmp_path: Path) -> None:
    begun, fresh = practice(origin, tmp_path / "run"), new(SETTINGS, coder)
    before = weights(fresh)
    assert torch.equal(weights(begun), before)
    assert (tmp_path / "run" / "tekken.json").read_bytes() == (CHECKPOINT / "tekken.json").read_bytes()
    for _ in range(3):
        begun.advance()
        fresh.advance()
    assert 0 < (weights(begun) - before).norm() < 0.5 * (weights(fresh) - before).norm()


def test_practice_that_was_stopped_continues_identically(origin: Path, tmp_path: Path) -> None:
    whole = practice(origin, tmp_path / "run")
    whole.advance()
    whole.save(tmp_path / "run" / "state.pt")
    losses = whole.advance()
    resumed = practice(origin, tmp_path / "run")
    resumed.load(tmp_path / "run" / "state.pt")
    assert resumed.advance() == losses and torch.equal(weights(resumed), weights(whole))


def test_practice_from_other_weights_is_another_run(origin: Path, tmp_path: Path) -> None:
    begun = practice(origin, tmp_path / "run")
    begun.save(tmp_path / "run" / "state.pt")
    begun.advance()
    export(begun.model, origin, torch.float32)
    with pytest.raises(SystemExit, match="other settings"):
        practice(origin, tmp_path / "run").load(tmp_path / "run" / "state.pt")


def test_practice_needs_a_whole_checkpoint_and_a_folder_of_its_own(origin: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="the checkpoint itself"):
        practice(origin, tmp_path / "origin")
    (origin / "tokenizer.json").unlink()
    with pytest.raises(SystemExit, match=r"lacks tokenizer\.json"):
        practice(origin, tmp_path / "run")


@pytest.mark.parametrize("schedule", [FROM_NOTHING, PRACTICE])
def test_a_schedule_ends_with_quotes_and_at_no_rate(schedule) -> None:
    assert schedule.phase(1.0).quotes > 0 and schedule.phase(1.0) is schedule.phases[-1]
    assert schedule.scale(0, 0.0) < 0.05 and schedule.scale(5000, schedule.flat) == 1
    assert schedule.scale(5000, 1.0) < 0.02
