"""One question on one text: the answer, then the passages it rests on, each looked up in the text.

The text is the system prompt, because the effort stands behind it: whatever is asked of it and at whichever effort, it
is read once, and each question goes on from the cached prefix. Quotes are asked for in a turn of their own, so that the
answer keeps its form and its probability; the model never gives positions.
"""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sglang as sgl
from sglang.lang.interpreter import ProgramState

from programs.documents.answer import Answer, Citation, Cost, State
from programs.documents.cite import cite, quotes_of
from programs.documents.document import Document
from programs.documents.find import Finder
from programs.documents.plan import EVIDENCE, Budget, Part
from programs.documents.question import Question
from programs.effort import Message, solve
from programs.errors import ProgramError
from programs.form import form_of
from programs.graph import Graph
from programs.result import Result
from sgl_small4.nano.tasks.documents import QUOTE
from sgl_small4.prompt.backend import Small4Backend, configure
from sgl_small4.prompt.cancellation import Cancellation
from sgl_small4.prompt.constraint import check_constraint
from sgl_small4.prompt.format import PromptError

READ = (
    "Answer from the document below and from nothing else. Where it does not hold the answer, say exactly: "
    "That is not in the document.\n\n{text}"
)
QUOTE_AGAIN = (
    "These are not in the document as you wrote them: {absent}. Quote the passages that the answer rests on once more, "
    "exactly as the document writes them, as a JSON array of strings."
)
JOIN = (
    "A long document was read in parts, and each part was asked the same question. Below is what each part answered, "
    "with the passages it quoted. Answer from these and from nothing else; where they disagree, give what they quote "
    "for it more weight than what they say.\n\n{answers}"
)
QUOTES = {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 8}


def check_forms(questions: Sequence[Question]) -> None:
    """Raises ProgramError that names a question whose schema no server can hold an answer to, such as one that nothing
    meets."""
    for question in questions:
        if question.output != "json":
            continue  # the other forms are our own
        try:
            check_constraint(form_of(question.form).constraint)
        except PromptError as error:
            raise ProgramError(f"The question {question.id!r} cannot be asked: {error}") from error


class AnswerError(ProgramError):
    """Why a reply is no answer, in one sentence."""


@dataclass
class Text:
    """A document, or a part of one, as it is asked: read into the server's cache once, before the first question."""

    document: Document
    part: Part
    backend: Small4Backend
    cancel: Cancellation
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _opened: bool = False

    def __post_init__(self) -> None:
        self.slice = self.document.slice(self.part.start, self.part.end)
        self.finder = Finder(self.slice.text)
        self.prompt = READ.format(text=self.slice.text)

    def open(self) -> Cost:
        """Have the text read, unless it was: questions asked at once would each read it whole. What it cost."""
        with self._lock:
            if self._opened:
                return Cost()
            graph = Graph("none", "")
            read.run(text=self.prompt, graph=graph, cancel=self.cancel, backend=self.backend, use_thread=False)
            self._opened = True
            return _cost(graph)

    def cited(self, quote: str) -> Citation:
        """The quote, looked up; positions are the whole document's."""
        found = cite(self.slice, self.finder, quote)
        if found.start is None or found.end is None:
            return found
        shift = self.part.start
        return found.model_copy(update={"start": found.start + shift, "end": found.end + shift})


@sgl.function
def read(s: ProgramState, text: str, graph: Graph, cancel: Cancellation) -> None:
    """The text as the prefix that all questions fork from."""
    configure(s, name="read", graph=graph, cancellation=cancel)
    s += sgl.system(text)
    s.stream_executor.backend.commit_lazy_operations(s.stream_executor)


@dataclass(frozen=True)
class Asker:
    """How questions are asked: of whom, at what temperature, within which limits."""

    backend: Small4Backend
    budget: Budget
    temperature: float | None
    cancel: Cancellation

    def ask(self, text: Text, question: Question) -> Answer:
        """The answer with its evidence. Raises BackendError for a request that failed, AnswerError for a reply that is
        no answer."""
        answer = self.answer(text, question)
        return answer if answer.state in ("not found", "empty") else self._with_evidence(answer, text, question)

    def answer(self, text: Text, question: Question) -> Answer:
        """The answer alone; errors are `ask`'s."""
        cost = text.open()
        answer = self._answered(text.prompt, question)
        return answer.model_copy(update={"cost": cost + answer.cost})

    def join(self, question: Question, parts: Sequence[Answer]) -> Answer:
        """One answer from those of a document's parts, in their order; citations of the parts that say the same as the
        joined answer come first, those of the others are kept behind them."""
        found = [answer for answer in parts if answer.state in ("answered", "cut")]
        whole = found[0] if found else parts[0]
        cost = sum((answer.cost for answer in parts), Cost())
        remarks = [f"part {number}: {remark}" for number, part in enumerate(parts, 1) for remark in part.remarks]
        if len({json.dumps(answer.value, sort_keys=True) for answer in found}) > 1:
            listed = "\n\n".join(
                f"[{number}] {answer.answer.strip()}\n" + "\n".join(f"> {c.quote}" for c in answer.citations)
                for number, answer in enumerate(found, 1)
            )
            whole = self._answered(JOIN.format(answers=listed), question)
            cost += whole.cost
            remarks += whole.remarks
        agreeing = [answer for answer in found if answer.value == whole.value]
        others = [answer for answer in found if answer.value != whole.value]
        return whole.model_copy(
            update={
                "citations": _distinct([citation for answer in agreeing + others for citation in answer.citations]),
                "parts": len(parts),
                "remarks": tuple(remarks),
                "cost": cost,
            }
        )

    def _answered(self, document: str, question: Question) -> Answer:
        """The answer in its form. A reply that is not in it is asked for once more; a list keeps what it has."""
        spent = Cost()
        for last in (False, True):
            result = solve(
                question.question,
                question.effort or "none",
                backend=self.backend,
                document=document,
                output=question.form,
                budget=self.budget.trace,
                max_tokens=self.budget.answer,
                temperature=self.temperature,
                cancel=self.cancel,
            )
            spent += _cost(result.graph)
            at_limit = any(node.finish_reason == "length" for node in result.graph.nodes)
            try:
                return self._read(result, question, spent)
            except ValueError as error:
                if last or at_limit:  # asked the same way it would end at the same place
                    return self._kept(result, question, spent, str(error), at_limit)
        raise AssertionError("the loop returns")

    def _read(self, result: Result, question: Question, spent: Cost) -> Answer:
        """Raises ValueError for a reply that is not in the question's form."""
        if result.state == "empty":
            return _answer(result, None, "empty", spent)
        if result.state == "cut" and question.output == "text":
            return _answer(result, question.value(result.answer), "cut", spent)
        value = question.value(result.answer)
        return _answer(result, value, "not found" if value is None else "answered", spent)

    def _kept(self, result: Result, question: Question, spent: Cost, why: str, at_limit: bool) -> Answer:
        items = quotes_of(result.answer)[0] if question.output == "list" else question.whole_items(result.answer)
        limit = f"; its limit of {self.budget.answer} tokens is --max-tokens" if at_limit else ""
        if not items:
            raise AnswerError(f"The reply {result.answer[:60]!r} is no answer: {why}{limit}.")
        kept = _answer(result, items, "cut", spent)
        return kept.model_copy(
            update={"remarks": (*kept.remarks, f"the list broke off{limit}: its whole items are kept")}
        )

    def _with_evidence(self, answer: Answer, text: Text, question: Question) -> Answer:
        """The quotes, asked for once more where none of them is in the text."""
        talk = [{"role": "user", "content": question.question}, {"role": "assistant", "content": answer.answer}]
        citations, remarks, cost = tuple[Citation, ...](), list[str](), Cost()
        for found, problem, graph in quotes(talk, text.prompt, text.cited, self.backend, self.cancel):
            citations = _distinct([*found, *citations])
            remarks += [problem] if problem else []
            cost += _cost(graph)
        return answer.model_copy(
            update={"citations": citations, "remarks": (*answer.remarks, *remarks), "cost": answer.cost + cost}
        )


def quotes(
    talk: Sequence[Message],
    document: str,
    look_up: Callable[[str], Citation],
    backend: Small4Backend,
    cancel: Cancellation,
) -> Iterator[tuple[list[Citation], str, Graph]]:
    """The passages that a conversation's last answer rests on, of each try: the quotes as they were looked up, what was
    wrong with the reply ("" for nothing), and its graph. A second try is made where none of them is in the text."""
    asked = [*talk, {"role": "user", "content": QUOTE}]
    for _ in range(2):
        result = solve(
            asked,
            "none",
            backend=backend,
            document=document,
            output=QUOTES,
            max_tokens=EVIDENCE,
            temperature=0.0,
            cancel=cancel,
        )
        given, problem = quotes_of(result.answer)
        found = [look_up(quote) for quote in dict.fromkeys(given)]
        yield found, problem, result.graph
        if not found or any(citation.verified for citation in found):
            return
        said = json.dumps([citation.quote for citation in found], ensure_ascii=False)
        again = QUOTE_AGAIN.format(absent=said)
        asked += [{"role": "assistant", "content": said}, {"role": "user", "content": again}]


def _answer(result: Result, value: Any, state: State, cost: Cost) -> Answer:
    return Answer(
        answer=result.answer.strip(),
        value=value,
        state=state,
        effort=result.effort,
        confidence=result.confidence,
        trace=result.trace,
        remarks=tuple(
            f"{node.name}: {node.state}{', ' + node.next_step if node.next_step else ''}"
            for node in result.graph.nodes
            if node.state.startswith("no ")
        ),
        cost=cost,
    )


def _distinct(citations: Sequence[Citation]) -> tuple[Citation, ...]:
    """Each verified place once, and each other quote once, in order."""
    seen: dict[object, Citation] = {}
    for citation in citations:
        seen.setdefault((citation.start, citation.end) if citation.verified else citation.quote, citation)
    return tuple(seen.values())


def _cost(graph: Graph) -> Cost:
    usage = graph.usage
    return Cost(
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
        trace_tokens=usage.trace_tokens,
        requests=usage.requests,
        seconds=round(sum(node.seconds for node in graph.nodes), 3),
    )
