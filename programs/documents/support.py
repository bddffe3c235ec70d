"""Customer support over documents: a conversation whose answers come from them, cited and checked.

The documents stand numbered in the system prompt, so that every turn, at whichever effort, goes on from one cached
prefix. The evidence for an answer is asked for in a turn that the history does not keep: each turn's prompt begins with
the one before.
"""

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from programs.calibration import Calibration
from programs.documents.answer import Citation, State
from programs.documents.ask import quotes
from programs.documents.cite import cite, references
from programs.documents.document import Document, Unreadable, sentences
from programs.documents.find import Finder
from programs.documents.journal import key_of
from programs.documents.plan import LEAST
from programs.documents.question import NOT_THERE, Question, from_texts
from programs.documents.settings import Settings
from programs.documents.shelf import Choice, Shelf
from programs.effort import Effort, Message, solve
from programs.errors import ProgramError
from programs.graph import Usage
from programs.result import Result
from sgl_small4.prompt.backend import BackendError, Small4Backend
from sgl_small4.prompt.cancellation import Cancellation

SUPPORT = (
    "Answer from the numbered documents below and from nothing else. Behind what you say put the number of the "
    "document that says it in square brackets, as in [1]. Where they do not hold the answer, say exactly: "
    f"{NOT_THERE}\n\n{{documents}}"
)
TALK = 4  # one part in so many of the context's room is the conversation's, the rest the documents'
TURN = 8  # tokens around a question and its answer
FINDERS = 64  # documents whose folded text is kept


@dataclass(frozen=True)
class Source:
    """A document that an answer names or quotes: `number` is the one in the answer's text; `quoted`: whether a quote of
    the evidence stands in it."""

    number: int
    name: str
    quoted: bool


@dataclass(frozen=True)
class Evidence:
    """A quote and the document that holds it or comes nearest to it, "" without one; `line` of its text, where the
    document has no pages."""

    document: str
    citation: Citation
    line: int | None = None


@dataclass(frozen=True)
class Turn:
    """What a question came to.

    `answer`: with numbers that stand for `sources`. `state`: "not found" where the documents do not hold the answer,
    which `qualified_by` then says what of them was not read; "cut" and "empty" where the reply was spent before its
    end. `removed_references`: numbers in the answer that stand for no document. `remarks`: what the reader should
    know, a sentence each. `seconds`: until all was there, evidence included.
    """

    question: str
    answer: str
    state: State
    effort: str
    confidence: float | None = None
    trace: str | None = None
    sources: tuple[Source, ...] = ()
    citations: tuple[Evidence, ...] = ()
    qualified_by: tuple[str, ...] = ()
    removed_references: int = 0
    remarks: tuple[str, ...] = ()
    usage: Usage = Usage()
    seconds: float = 0.0

    @property
    def found(self) -> bool:
        """Whether there is an answer."""
        return self.state in ("answered", "cut")

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON has."""
        return {
            "question": self.question,
            "answer": self.answer,
            "found": self.found,
            "state": self.state,
            "sources": [asdict(source) for source in self.sources],
            "citations": [
                {"document": each.document, "line": each.line, **each.citation.model_dump()} for each in self.citations
            ],
            "qualified_by": list(self.qualified_by),
            "removed_references": self.removed_references,
            "remarks": list(self.remarks),
            "effort": self.effort,
            "confidence": self.confidence,
            "trace": self.trace,
            **asdict(self.usage),
            "seconds": self.seconds,
        }


class Support:
    """A conversation about documents; one thread at a time.

    `documents` and `unreadable` are what `read_all` gave. `budget`: most tokens of a trace, `max_tokens`: of an answer,
    both within what the context leaves. Raises ProgramError where no document has a text, or the context has no room.
    """

    def __init__(
        self,
        documents: Sequence[Document],
        backend: Small4Backend,
        effort: Effort = "none",
        *,
        unreadable: Sequence[Unreadable] = (),
        budget: int | None = None,
        max_tokens: int = 1024,
        temperature: float | None = None,
        calibration: Calibration | None = None,
        cancel: Cancellation | None = None,
    ) -> None:
        self.documents = tuple(document for document in documents if document.text.strip())
        if not self.documents:
            raise ProgramError("There is no document with a text to answer from.")
        self.unread = tuple(_unread(documents, unreadable))
        self._backend = backend.routed(key_of([document.text_sha256 for document in self.documents]))
        self._effort, self._temperature = effort, temperature
        self._calibration, self._cancel = calibration, cancel or Cancellation()
        context = backend.model_info["context_length"]
        self._budget = Settings(budget=budget, max_tokens=max_tokens).tokens(context)
        self._room = self._budget.room([Question(question="?", effort=effort)], self._count)
        room = self._room - self._room // TALK - self._count(SUPPORT)
        if room < LEAST:
            raise ProgramError(
                f"The context of {context:,} tokens leaves no room for documents beside a conversation: serve the "
                "model with a larger --context-length."
            )
        self._shelf = Shelf(self.documents, room, self._count)
        self._choice: Choice | None = None
        self._history: list[tuple[str, str]] = []  # questions, and the answers as the model gave them
        self._outgrown = False
        self._finder = lru_cache(FINDERS)(lambda place: Finder(self.documents[place].text))

    def ask(self, question: str) -> Turn:
        """The next turn. Raises ProgramError for a question that cannot be asked and BackendError for a request that
        failed; the conversation then stands where it stood."""
        began = time.monotonic()
        from_texts([question])  # refuses what is none
        choice = self._shelf.choose(question, [asked for asked, _ in self._history], self._choice)
        prompt = SUPPORT.format(documents=choice.text)
        history = self._kept(question, prompt)
        talk = [*_messages(history), {"role": "user", "content": question}]
        result = solve(
            talk,
            self._effort,
            backend=self._backend,
            document=prompt,
            budget=self._budget.trace,
            max_tokens=self._budget.answer,
            temperature=self._temperature,
            calibration=self._calibration,
            cancel=self._cancel,
        )
        remarks = self._remarks(choice, history)
        self._choice = choice
        self._history = history if result.state == "empty" else [*history, (question, result.answer)]
        marked = references(result.answer, len(choice.numbered))
        state = _state(result, marked.text)
        found = state in ("answered", "cut")
        named = [choice.numbered[number - 1] for number in marked.used] if found else []
        remarks += [f"{node.name}: {node.state}" for node in result.graph.nodes if node.state.startswith("no ")]
        if state == "cut":
            remarks.append(f"The answer ended at its limit of {self._budget.answer:,} tokens.")
        usage, citations = result.usage, tuple[Evidence, ...]()
        if found:
            talk.append({"role": "assistant", "content": result.answer})
            citations, problems, spent = self._evidence(
                talk, prompt, dict.fromkeys([*named, *choice.shown, *choice.numbered])
            )
            remarks, usage = remarks + problems, usage + spent
        return Turn(
            question=question,
            answer=NOT_THERE if state == "not found" else marked.text.strip(),
            state=state,
            effort=self._effort,
            confidence=result.confidence,
            trace=result.trace,
            sources=self._sources(named, citations),
            citations=citations,
            qualified_by=(*self.unread, *choice.left_out) if state == "not found" else (),
            removed_references=marked.removed,
            remarks=tuple(remarks),
            usage=usage,
            seconds=round(time.monotonic() - began, 3),
        )

    def _kept(self, question: str, prompt: str) -> list[tuple[str, str]]:
        """The turns that go with the question. Where they outgrow their room the oldest fall out, until half of it is
        free again: what is left is read anew, and not so again at the next turn."""
        room = self._room - self._count(prompt)
        size = self._count(question)
        if size > room:
            raise ProgramError(
                f"The question has {size:,} tokens and the context leaves {room:,} for it: ask in fewer words."
            )
        sizes = [TURN + self._count(asked) + self._count(answer) for asked, answer in self._history]
        kept = list(self._history)
        if sum(sizes) + size > room:
            while kept and sum(sizes[-len(kept) :]) + size > room // 2:
                kept.pop(0)
        return kept

    def _remarks(self, choice: Choice, history: Sequence[tuple[str, str]]) -> list[str]:
        """What is said once: that the oldest turns fell out, and which choice of the documents is read from now on."""
        said = []
        if len(history) < len(self._history) and not self._outgrown:
            self._outgrown = True
            said.append("The conversation outgrew the context: its oldest turns are no longer read.")
        if choice.left_out and choice is not self._choice:
            said.append(
                f"The documents do not fit the context together: of {len(self.documents)}, {choice.whole} are read "
                f"whole and {len(choice.shown) - choice.whole} in part, chosen by the question's words."
            )
        return said

    def _evidence(
        self, talk: Sequence[Message], prompt: str, places: Iterable[int]
    ) -> tuple[tuple[Evidence, ...], list[str], Usage]:
        """The passages that the answer rests on, asked for once more where none of them is in a document; `places`: of
        the documents, in the order they are looked through. An answer is not lost with a request that fails here."""
        found: dict[object, Evidence] = {}
        problems, usage = list[str](), Usage()
        placed: dict[str, Evidence] = {}

        def look_up(quote: str) -> Citation:
            placed[quote] = self._placed(quote, places)
            return placed[quote].citation

        try:
            for quoted, problem, graph in quotes(talk, prompt, look_up, self._backend, self._cancel):
                usage += graph.usage
                problems += [problem] if problem else []
                found = {_place(each): each for each in [*(placed[one.quote] for one in quoted), *found.values()]}
        except BackendError as error:
            problems.append(f"No evidence was given: {error}")
        return tuple(found.values()), problems, usage

    def _placed(self, quote: str, places: Iterable[int]) -> Evidence:
        """The quote in the first of the documents that holds it; where none does, what comes nearest to it."""
        best = Evidence("", Citation(quote=quote, grade="absent"))
        for place in places:
            document = self.documents[place]
            citation = cite(document, self._finder(place), quote)
            if _nearness(citation) > _nearness(best.citation):
                line = None if document.pages or citation.start is None else document.line_at(citation.start)
                best = Evidence(document.name, citation, line)
            if citation.verified:
                break
        return best

    def _sources(self, named: Sequence[int], citations: Sequence[Evidence]) -> tuple[Source, ...]:
        """The documents that the answer names, in its order, then others that hold its evidence."""
        quoted = [each.document for each in citations if each.citation.verified]
        names = [self.documents[place].name for place in named]
        return tuple(
            Source(number, name, name in quoted) for number, name in enumerate(dict.fromkeys([*names, *quoted]), 1)
        )

    def _count(self, text: str) -> int:
        return len(self._backend.format.encode_text(text))


def _state(result: Result, answer: str) -> State:
    if result.state != "answered":
        return "cut" if result.state == "cut" else "empty"
    alone = re.sub(r"\s*\[[0-9, ]+\]", "", answer)  # a mark behind it says nothing
    return "not found" if Question(question=result.question).value(alone) is None else "answered"


def _unread(documents: Sequence[Document], unreadable: Sequence[Unreadable]) -> list[str]:
    """What of the files is in no document's text, a sentence each."""
    parts = [f"{document.name}: {said}" for document in documents for said in sentences(document.unread)]
    return [each.why for each in unreadable] + parts


def _messages(history: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": role, "content": text} for turn in history for role, text in zip(roles, turn, strict=True)]


def _nearness(citation: Citation) -> int:
    if citation.grade == "absent":
        return 1 if citation.hint else 0
    return 3 if citation.verified else 2


def _place(evidence: Evidence) -> object:
    """What makes two quotes one: the passage that holds them, or their words where none does."""
    citation = evidence.citation
    return (evidence.document, citation.start, citation.end) if citation.verified else citation.quote
