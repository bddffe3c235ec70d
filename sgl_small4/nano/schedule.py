"""What a run practises when, and at what rates: from nothing, or from a finished checkpoint."""

from dataclasses import dataclass

from sgl_small4.nano.tasks.arithmetic import Share


@dataclass(frozen=True)
class Phase:
    """Until this share of the run: how often each row length, and the weights of tasks in short rows. A length that was
    never trained on fails outright, so the longest rows exceed the longest prompt that is to work. `quotes` of the
    answers about a document are followed by the question for their evidence."""

    until: float
    lengths: dict[int, int]
    weights: tuple[int, int, int, int]
    share: Share
    quotes: float = 0.0


@dataclass(frozen=True)
class Schedule:
    """The rates rise for `warm_steps`, stay until `flat` of the run, then fall to nothing."""

    phases: tuple[Phase, ...]
    muon_rate: float
    adam_rate: float
    flat: float
    warm_steps: int

    def phase(self, done: float) -> Phase:
        """The phase at this share of the run."""
        return next(phase for phase in self.phases if done <= phase.until)

    def scale(self, step: int, done: float) -> float:
        """Of the rates."""
        return min(1.0, (step + 1) / self.warm_steps) * min(1.0, max(1 - done, 0.01) / (1 - self.flat))


LONG = {256: 6, 512: 1, 1024: 1, 2048: 2, 3072: 2, 4608: 1}
FIRST = Share()
# What was learnt last: to find the given answer in the question; then carries without a trace, near the easy cases.
CHECKS, NEAR = Share(checks=0.35), Share(checks=0.35, easy=0.25, pairs=0.7, near=0.5)
QUOTES = 0.35

FROM_NOTHING = Schedule(
    phases=(
        Phase(0.03, {256: 1}, (3, 5, 4, 1), FIRST),
        Phase(0.10, {256: 4, 512: 2, 1024: 1}, (2, 4, 6, 2), FIRST),
        Phase(0.40, {256: 5, 512: 1, 1024: 2, 2048: 2}, (2, 3, 6, 2), FIRST),
        Phase(0.47, LONG, (1, 3, 6, 2), FIRST),
        Phase(0.62, LONG, (1, 3, 6, 2), CHECKS),
        Phase(1.00, LONG, (1, 3, 6, 2), NEAR, QUOTES),
    ),
    muon_rate=0.01,
    adam_rate=0.002,
    flat=0.3,
    warm_steps=100,
)
# The mixture with which a run from nothing ends. The optimiser begins without memory, at a quarter of the rates.
PRACTICE = Schedule((Phase(1.00, LONG, (1, 3, 6, 2), NEAR, QUOTES),), 0.0025, 0.0005, flat=0.2, warm_steps=100)
