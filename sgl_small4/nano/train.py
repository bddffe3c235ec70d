"""Train the nano model from nothing: `python -m sgl_small4.nano.train --out FOLDER`. With `--from CHECKPOINT` the model
of a finished one practises instead what the tasks have gained since.

A run is fixed by its seed and number of steps: every step draws its rows from a generator of its own, so a run that was
stopped goes on from `FOLDER/state.pt` with what it would have seen. `FOLDER/log.jsonl` keeps the figures."""

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

# Large blocks stay with the process, on large pages: page faults cost more than the arithmetic. glibc and libgomp read
# these when a process starts, so the trainer starts itself once more.
ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TOP_PAD_": "268435456",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "OMP_WAIT_POLICY": "active",  # hundreds of short parallel regions a step: a sleeping thread wakes too late
}
if __name__ == "__main__" and "GLIBC_TUNABLES" not in os.environ:
    os.execve(sys.executable, [sys.executable, "-m", "sgl_small4.nano.train", *sys.argv[1:]], os.environ | ENVIRONMENT)

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from sgl_small4.nano import compiled  # noqa: E402
from sgl_small4.nano.checkpoint_io import WEIGHTS, load_checkpoint  # noqa: E402
from sgl_small4.nano.conversation import MARKS, Format  # noqa: E402
from sgl_small4.nano.induction import set_by_hand  # noqa: E402
from sgl_small4.nano.mixture import Mixture  # noqa: E402
from sgl_small4.nano.model import Model  # noqa: E402
from sgl_small4.nano.operators import Operators, Plain  # noqa: E402
from sgl_small4.nano.optimiser import Optimiser  # noqa: E402
from sgl_small4.nano.progress import Progress  # noqa: E402
from sgl_small4.nano.schedule import FROM_NOTHING, PRACTICE, Schedule  # noqa: E402
from sgl_small4.nano.shape import Shape  # noqa: E402
from sgl_small4.nano.tasks.corpus import texts  # noqa: E402
from sgl_small4.nano.tokenizer import TOKENIZER_FILES, Coder, write_tokenizer  # noqa: E402

TOKENIZER_SEED = 1
STEP_TOKENS = 8192
BALANCE = 0.05
MARK_WEIGHTS = torch.tensor([0.0, 1, 1, 2, 1, 2, 2, 1])  # see conversation.MARKS: short replies count double


@dataclass(frozen=True)
class Settings:
    """What fixes a run. `minutes` is a limit: a run that would exceed it shortens its schedule to end in time. `origin`
    is the SHA-256 of the weights it goes on from, empty for a run from nothing."""

    steps: int
    minutes: float
    seed: int
    shape: Shape
    origin: str = ""

    @property
    def schedule(self) -> Schedule:
        return PRACTICE if self.origin else FROM_NOTHING


class Trainer:
    """The state of a run and what moves it."""

    def __init__(self, settings: Settings, coder: Coder, model: Model) -> None:
        self.settings = settings
        self.format = Format(coder)
        self.model = model
        self.optimiser = Optimiser(self.model)
        self.step = self.tokens = 0
        self.seconds = 0.0

    @property
    def done(self) -> float:
        """The share of the run that is behind."""
        return max(self.step / self.settings.steps, self.seconds / 60 / self.settings.minutes)

    def advance(self) -> dict[str, tuple[int, float]]:
        """One step; gives the number of tokens and the summed loss of each kind, and the load balance."""
        done = self.done
        random = Random(f"{self.settings.seed}{self.settings.origin}/{self.step}")
        schedule = self.settings.schedule
        phase = schedule.phase(done)
        length = random.choices(list(phase.lengths), list(phase.lengths.values()))[0]
        mixture = Mixture(random, self.format, phase.share, phase.quotes)
        rows = mixture.rows(max(1, STEP_TOKENS // length), length, phase.weights)
        at = rows.marks.view(-1)[1:].nonzero().view(-1)  # positions whose next token has a loss
        marks = rows.marks.view(-1)[at + 1].long()
        logits, balance = self.model(rows.ids, rows.start, at)
        losses = F.cross_entropy(logits, rows.ids.view(-1)[at + 1].long(), reduction="none")
        weights = MARK_WEIGHTS[marks]
        ((losses * weights).sum() / weights.sum() + BALANCE * balance).backward()
        scale = schedule.scale(self.step, done)
        self.optimiser.step(schedule.muon_rate * scale, schedule.adam_rate * scale)
        self.step, self.tokens = self.step + 1, self.tokens + rows.ids.numel()
        count = marks.bincount(minlength=len(MARKS)).tolist()
        total = torch.zeros(len(MARKS)).index_add_(0, marks, losses.detach()).tolist()
        seen = {f"{MARKS[k]}{length}": (count[k], total[k]) for k in range(1, len(MARKS)) if count[k]}
        return seen | {"balance": (1, float(balance.detach()))}

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        state = {
            "settings": asdict(self.settings),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "position": (self.step, self.tokens, self.seconds),
        }
        torch.save(state, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        if state["settings"] != asdict(self.settings):
            raise SystemExit(f"{path} belongs to a run with other settings; give another --out or the same settings.")
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.tokens, self.seconds = state["position"]


def new_model(settings: Settings, operators: Operators) -> Model:
    """Random weights but for the copying circuit."""
    torch.manual_seed(settings.seed)
    model = Model(settings.shape, operators)
    set_by_hand(model)
    return model


def practising(origin: Path, out: Path, steps: int, minutes: float, seed: int, operators: Operators) -> Trainer:
    """A run in the folder `out` that goes on from the checkpoint `origin`, whose tokenizer it keeps. What the optimiser
    had gathered does not ship, so it begins anew."""
    lacking = [name for name in (WEIGHTS, "config.json", *TOKENIZER_FILES) if not (origin / name).is_file()]
    if lacking:
        raise SystemExit(f"{origin} is no checkpoint folder, it lacks {', '.join(lacking)}; give --from another.")
    if out.resolve() == origin.resolve():
        raise SystemExit(f"{out} is the checkpoint itself; give --out another folder.")
    for name in TOKENIZER_FILES:
        shutil.copyfile(origin / name, out / name)
    model = load_checkpoint(origin, operators)
    weights = hashlib.sha256((origin / WEIGHTS).read_bytes()).hexdigest()
    return Trainer(Settings(steps, minutes, seed, model.shape, weights), Coder(out / "tekken.json"), model)


def run(trainer: Trainer, folder: Path, progress: Progress, every: float) -> None:
    """Train to the end, saving and scoring every so many minutes."""
    state, log = folder / "state.pt", folder / "log.jsonl"
    if state.exists():
        trainer.load(state)
        print(f"Going on from step {trainer.step} of {trainer.settings.steps}.", flush=True)
    seen: dict[str, tuple[int, float]] = {}
    shown, scored, shown_tokens = trainer.seconds, trainer.seconds, trainer.tokens
    began = time.monotonic() - trainer.seconds
    while trainer.done < 1:
        for name, (count, total) in trainer.advance().items():
            before = seen.get(name, (0, 0.0))
            seen[name] = (before[0] + count, before[1] + total)
        trainer.seconds = time.monotonic() - began
        if trainer.seconds - shown > 20:
            speed = (trainer.tokens - shown_tokens) / (trainer.seconds - shown)
            losses = {name: round(total / count, 3) for name, (count, total) in sorted(seen.items())}
            _note(trainer, log, {"tokens_per_second": round(speed), "loss": losses})
            shown, shown_tokens, seen = trainer.seconds, trainer.tokens, {}
        if trainer.seconds - scored > every * 60:
            scored = trainer.seconds
            trainer.save(state)
            _note(trainer, log, {"held_out": progress.score(trainer.model)})
    trainer.save(state)
    _note(trainer, log, {"held_out": progress.score(trainer.model)})


def _note(trainer: Trainer, log: Path, figures: dict[str, object]) -> None:
    line = {"minutes": round(trainer.seconds / 60, 2), "step": trainer.step, "Mtokens": round(trainer.tokens / 1e6, 2)}
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line | figures) + "\n")
    print(" ".join(f"{key} {value}" for key, value in (line | figures).items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the nano checkpoint, from nothing or from a finished one.")
    parser.add_argument(
        "--out", type=Path, default=Path("nano-run"), help="folder of the run; an unfinished one goes on"
    )
    parser.add_argument("--from", dest="origin", type=Path, help="a finished checkpoint that practises on")
    parser.add_argument("--steps", type=int, default=10430, help="of the shipped run from nothing")
    parser.add_argument("--minutes", type=float, default=90, help="limit: the schedule shortens itself to end in time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", type=int, default=Shape.num_hidden_layers, help="of a run from nothing")
    parser.add_argument("--every", type=float, default=5, help="minutes between savings and held-out scores")
    options = parser.parse_args()
    lack = compiled.missing()
    if lack:
        print(f"Training in plain PyTorch, several times slower, because {lack}.", flush=True)
    operators: Operators = Plain() if lack else compiled.Compiled()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.origin:
        trainer = practising(options.origin, options.out, options.steps, options.minutes, options.seed, operators)
    else:
        write_tokenizer(texts(TOKENIZER_SEED), options.out)
        coder = Coder(options.out / "tekken.json")
        shape = Shape(vocab_size=coder.size, num_hidden_layers=options.layers)
        settings = Settings(options.steps, options.minutes, options.seed, shape)
        trainer = Trainer(settings, coder, new_model(settings, operators))
    count = sum(weight.numel() for weight in trainer.model.parameters())
    print(f"{count:,} parameters, {torch.get_num_threads()} threads", flush=True)
    run(trainer, options.out, Progress(trainer.format), options.every)


if __name__ == "__main__":
    main()
