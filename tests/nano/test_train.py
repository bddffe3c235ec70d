"""A run that was stopped goes on with what it would have done."""

from pathlib import Path

import pytest
import torch

from sgl_small4.nano import CHECKPOINT, train
from sgl_small4.nano.operators import Plain
from sgl_small4.nano.shape import Shape
from sgl_small4.nano.tokenizer import Coder
from sgl_small4.nano.train import Settings, Trainer

SETTINGS = Settings(steps=40, minutes=1000, seed=3, shape=Shape(num_hidden_layers=2, n_routed_experts=8))


@pytest.fixture
def coder(monkeypatch) -> Coder:
    monkeypatch.setattr(train, "STEP_TOKENS", 512)
    return Coder(CHECKPOINT / "tekken.json")


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([parameter.detach().view(-1) for parameter in trainer.model.parameters()])


def test_a_resumed_run_continues_identically(coder: Coder, tmp_path: Path) -> None:
    whole = Trainer(SETTINGS, coder, Plain())
    for _ in range(2):
        whole.advance()
    whole.save(tmp_path / "state.pt")
    losses = [whole.advance() for _ in range(2)]

    resumed = Trainer(SETTINGS, coder, Plain())
    resumed.load(tmp_path / "state.pt")
    assert (resumed.step, resumed.tokens) == (2, 1024)
    assert [resumed.advance() for _ in range(2)] == losses
    assert torch.equal(weights(resumed), weights(whole))
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]


def test_a_state_of_another_run_is_refused(coder: Coder, tmp_path: Path) -> None:
    Trainer(SETTINGS, coder, Plain()).save(tmp_path / "state.pt")
    other = Settings(SETTINGS.steps, SETTINGS.minutes, SETTINGS.seed + 1, SETTINGS.shape)
    with pytest.raises(SystemExit, match="other settings"):
        Trainer(other, coder, Plain()).load(tmp_path / "state.pt")


def test_a_run_that_is_late_shortens_its_schedule(coder: Coder) -> None:
    trainer = Trainer(SETTINGS, coder, Plain())
    assert trainer.done == 0
    trainer.seconds = 60 * SETTINGS.minutes / 2
    assert trainer.done == 0.5
    trainer.step = 30
    assert trainer.done == 0.75


def test_training_lowers_the_loss(coder: Coder, monkeypatch) -> None:
    monkeypatch.setattr(train, "WARM_STEPS", 4)
    trainer = Trainer(SETTINGS, coder, Plain())

    def loss() -> float:
        """The mean over a few steps' tokens of all tasks."""
        sums = [pair for _ in range(4) for name, pair in trainer.advance().items() if name != "balance"]
        return sum(total for _, total in sums) / sum(count for count, _ in sums)

    first = loss()
    for _ in range(8):
        trainer.advance()
    assert loss() < 0.9 * first
