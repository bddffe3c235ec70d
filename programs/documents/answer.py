"""An answer with its evidence, as the journal keeps it and the report shows it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Grade = Literal["exact", "folded", "different", "absent"]
Rule = Literal["white space", "hyphen", "ligature", "typographic form", "case"]
State = Literal["answered", "not found", "cut", "empty"]
Side = Literal["both", "quote", "source"]


class Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Citation(Stored):
    """A quote of the model's, and where the document says it: text[start:end] of the document, where `page` is the
    page's number in the file and `label` the one printed on it.

    `grade`: exact; folded, by `rules`; different, with `difference` as pieces that stand in both, in the quote alone or
    in the source alone; absent. `places`: how often it stands there, `start` is the first. `hint`: what the reader
    should know, such as that the passage is hidden text.
    """

    quote: str
    grade: Grade
    rules: tuple[Rule, ...] = ()
    start: int | None = None
    end: int | None = None
    page: int | None = None
    label: str = ""
    places: int = 0
    difference: tuple[tuple[Side, str], ...] = ()
    hint: str = ""

    @property
    def verified(self) -> bool:
        return self.grade in ("exact", "folded")


class Cost(Stored):
    """Tokens and requests, cached tokens being part of the prompt's; seconds are of the requests' time, summed."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    trace_tokens: int = 0
    requests: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(**{name: getattr(self, name) + getattr(other, name) for name in Cost.model_fields})


class Answer(Stored):
    """What a question came to on a text. It names neither file nor place among the questions: it holds wherever the
    same text is asked the same.

    `value`: the answer in the question's form, None where the document does not say. `state`: "not found" where it does
    not; "cut" and "empty" where the reply was spent before its end. `parts`: of how many parts the text was read.
    `remarks`: what went wrong on the way and what was done about it, a sentence each.
    """

    answer: str
    value: Any
    state: State
    effort: str
    confidence: float | None = None
    trace: str | None = None
    citations: tuple[Citation, ...] = ()
    parts: int = 1
    remarks: tuple[str, ...] = ()
    cost: Cost = Cost()

    @property
    def supported(self) -> bool:
        """Whether at least one quote of its evidence stands in the document."""
        return any(citation.verified for citation in self.citations)
