"""Reasoning effort as graphs: one question, and as much thinking as it deserves.

    none         direct      one generation, no trace
    high         think       a trace, then the answer
    deliberate   deliberate  k traces from one cached prompt, their answers checked, the verified majority wins
    auto         auto        direct; think where the model was not sure; deliberate where it still is not

More effort is not a superset: where thinking leaves the model less sure than its direct answer did, both stand as
votes. A spent limit, an empty answer and a missing trace are states with one next step each, which the graph shows;
nothing is asked again unchanged.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Any, Literal

import sglang as sgl
from sglang.lang.interpreter import ProgramState
from sglang.lang.ir import SglExpr

from programs.calibration import Calibration
from programs.errors import ProgramError
from programs.form import Form, form_of
from programs.graph import Graph
from programs.result import Result, State
from sgl_small4.prompt.backend import BackendError, Small4Backend, configure, node_of, reply_of
from sgl_small4.prompt.cancellation import Cancellation

Effort = Literal["none", "high", "auto", "deliberate"]
Message = Mapping[str, Any]

BUDGET = 4096  # tokens of a trace
ANSWER_TOKENS = 1024
MARKS = 2  # [THINK] and [/THINK]
TEMPERATURES = {"none": 0.0, "high": 0.7}  # the model card's
BRANCHES = 5
CHECK = "Question: {question}\nAnswer: {answer}\nIs the answer right? yes or no"
VERDICT = "(yes|no)"
DOUBTED = 0.1
ROLES: dict[str, Callable[[str], SglExpr]] = {"system": sgl.system, "user": sgl.user, "assistant": sgl.assistant}


@dataclass(frozen=True)
class Task:
    """A question with what its answer must be, and what may be spent on it."""

    messages: tuple[Message, ...]
    form: Form
    budget: int
    max_tokens: int
    temperature: float | None
    stop: tuple[str, ...]
    k: int
    backend: Small4Backend
    graph: Graph
    cancellation: Cancellation

    @property
    def question(self) -> str:
        return self.messages[-1]["content"]

    def generation(self, effort: Literal["none", "high"]) -> SglExpr:
        """The reply at an effort: `answer`, held to the form; a trace before it is free and within the budget."""
        return sgl.gen(
            "answer",
            max_tokens=self.max_tokens + (self.budget + MARKS if effort == "high" else 0),
            temperature=TEMPERATURES[effort] if self.temperature is None else self.temperature,
            stop=list(self.stop),
            **self.form.constraint,
        )


@dataclass(frozen=True)
class Attempt:
    """One reply to the question: `state` as in Result, `node` its place in the graph."""

    text: str
    trace: str | None
    confidence: float | None
    state: State
    node: int


# The programs


def converse(s: ProgramState, task: Task, effort: Literal["none", "high"], name: str) -> None:
    """The conversation up to where the assistant speaks. The effort stands behind the system prompt, so that a document
    there is read once for all efforts."""
    configure(
        s, effort=effort, thinking_budget=task.budget, name=name, graph=task.graph, cancellation=task.cancellation,
        probabilities=True,
    )  # fmt: skip
    for message in task.messages:
        s += ROLES[message["role"]](message["content"])


@sgl.function
def direct(s: ProgramState, task: Task) -> None:
    """One generation at effort none; among choices, the likeliest."""
    converse(s, task, "none", "direct")
    if task.form.choices:
        s += sgl.assistant(sgl.select("answer", list(task.form.choices)))
    else:
        s += sgl.assistant(task.generation("none"))


@sgl.function
def think(s: ProgramState, task: Task) -> None:
    """A trace within the budget, then the answer."""
    converse(s, task, "high", "think")
    s += sgl.assistant(task.generation("high"))


@sgl.function
def check(s: ProgramState, task: Task, answer: str) -> None:
    """Is this answer right? Thought about, then yes or no."""
    asked = {"role": "user", "content": CHECK.format(question=task.question, answer=answer)}
    converse(s, replace(task, messages=(*task.messages[:-1], asked)), "high", "check")
    s += sgl.assistant(sgl.gen("verdict", max_tokens=task.budget + MARKS + 8, temperature=0.0, regex=VERDICT))


@sgl.function
def deliberate(s: ProgramState, task: Task, poll: "Poll") -> None:
    """k traces from one prompt that is read once; each answer checked; ended as soon as the outcome is settled."""
    converse(s, task, "high", "question")
    s.sync()  # the interpreter reads the prompt into the cache before it forks, if it has come that far by then
    branches = s.fork(task.k)
    for number, branch in enumerate(branches, 1):
        configure(branch, name=f"think {number}", cancellation=poll.cancellation)
        branch += sgl.assistant(task.generation("high"))
    poll.count(branches)


# What the programs' outcomes mean


def attempt_of(s: ProgramState, task: Task) -> Attempt:
    """The answer of a program that ran, with its state; raises BackendError when its request failed."""
    text, meta, node = s["answer"], s.get_meta_info("answer"), node_of(s)
    if "probabilities" in meta:  # a choice, which is always whole
        return Attempt(text, None, max(meta["probabilities"]), "answered", node)
    cut = meta["finish_reason"]["type"] != "stop"
    trace = reply_of(s, "answer").trace
    state: State = "empty" if not text.strip() else "cut" if cut else "answered"
    if state == "empty":
        task.graph.mark(node, "no answer: the limit was spent" if cut else "no answer")
    elif state == "cut":
        task.graph.mark(node, "the answer ended at its limit", "it is kept as it is")
    return Attempt(text, trace, None if state == "empty" else meta["probability"], state, node)


def run_direct(task: Task) -> Attempt:
    return attempt_of(direct.run(task=task, backend=task.backend), task)


def run_think(task: Task) -> Attempt:
    """Think; where no answer came of it, answer directly."""
    attempt = attempt_of(think.run(task=task, backend=task.backend), task)
    if attempt.state != "empty":
        if attempt.trace is None:
            task.graph.mark(attempt.node, "no trace", "the answer is taken as it is")
        return attempt
    reason = next(node.state for node in task.graph.nodes if node.id == attempt.node)
    task.graph.mark(attempt.node, reason, "answered at effort none")
    return replace(run_direct(task), trace=attempt.trace)


class Poll:
    """Votes for answers, each distinct answer checked once.

    A vote counts 1 where the check said yes, and `DOUBTED` where it said no, so that answers that were all doubted are
    settled among themselves by their number. The poll ends as soon as no other answer can catch up.
    """

    def __init__(self, task: Task, voices: int) -> None:
        self.task = task
        self.cancellation = Cancellation(task.cancellation)  # of what need not be waited for any more
        self.votes: dict[str, list[Attempt]] = defaultdict(list)
        self.weights: dict[str, float] = {}
        self._awaited = voices
        self._checks: dict[str, Future[float]] = {}
        self._lock = Lock()

    def count(self, branches: Iterable[ProgramState]) -> None:
        """Wait for branches until the outcome is settled, and give up on the rest."""
        waiting = list(branches)
        errors: list[Exception] = []
        with ThreadPoolExecutor(len(waiting)) as pool:
            for vote in as_completed([pool.submit(self._vote, branch) for branch in waiting]):
                self._awaited -= 1
                try:
                    self.add(*vote.result())
                except BackendError as error:
                    errors.append(error)
                if self.settled():
                    break
            self.cancellation.set()
        if not self.votes and errors:
            raise errors[0]

    def add(self, attempt: Attempt, weight: float) -> None:
        if attempt.state != "empty":
            key = self.task.form.key(attempt.text)
            self.votes[key].append(attempt)
            self.weights[key] = weight

    def settled(self) -> bool:
        """Whether nobody can catch up with the leader, by votes that are still out, each counting 1 at most."""
        tallies = sorted(self._tallies().values(), reverse=True)
        return bool(tallies) and tallies[0] > (tallies[1] if len(tallies) > 1 else 0.0) + self._awaited

    def winner(self) -> tuple[Attempt, float]:
        """The likeliest vote for the answer with the greatest tally, and that tally's share of all."""
        tallies = self._tallies()
        best = max(tallies, key=lambda key: (tallies[key], max(vote.confidence or 0.0 for vote in self.votes[key])))
        return max(self.votes[best], key=lambda vote: vote.confidence or 0.0), tallies[best] / sum(tallies.values())

    def _tallies(self) -> dict[str, float]:
        return {key: len(votes) * self.weights[key] for key, votes in self.votes.items()}

    def _vote(self, branch: ProgramState) -> tuple[Attempt, float]:
        attempt = attempt_of(branch, self.task)
        return attempt, 0.0 if attempt.state == "empty" else self.weigh(attempt)

    def weigh(self, attempt: Attempt) -> float:
        """What a vote for this answer counts; who asks first has it checked, the others wait for that."""
        key = self.task.form.key(attempt.text)
        with self._lock:
            first = key not in self._checks
            result = self._checks.setdefault(key, Future())
        if first:
            try:
                result.set_result(self._checked(attempt))
            except BaseException as error:
                result.set_exception(error)
                raise
        return result.result()

    def _checked(self, attempt: Attempt) -> float:
        task = replace(self.task, cancellation=self.cancellation)
        s = check.run(task=task, answer=attempt.text, backend=task.backend)
        right = s["verdict"] == "yes"
        task.graph.mark(node_of(s), f"{attempt.text.strip()[:40]}: {'right' if right else 'doubted'}")
        return 1.0 if right else DOUBTED


def run_deliberate(task: Task, *before: Attempt) -> Attempt:
    """Deliberate; `before` are answers that were given already, and vote with the branches."""
    poll = Poll(task, task.k)
    for attempt in before:
        if attempt.state != "empty":
            poll.add(attempt, poll.weigh(attempt))
    deliberate.run(task=task, poll=poll, backend=task.backend)
    if not poll.votes:
        return replace(run_direct(task), state="empty")
    best, share = poll.winner()
    return replace(best, confidence=share)


def run_auto(task: Task, calibration: Calibration) -> Attempt:
    """Direct where it is sure; else think, where that is sure; else deliberate, with both as votes."""
    first = run_direct(task)
    if first.state == "answered" and (first.confidence or 0.0) >= calibration.direct:
        task.graph.mark(first.node, "sure", "taken")
        return first
    task.graph.mark(first.node, "not sure", "think")
    second = run_think(task)
    if second.state == "answered" and (second.confidence or 0.0) >= max(calibration.think, first.confidence or 0.0):
        task.graph.mark(second.node, "sure", "taken")
        return second
    task.graph.mark(second.node, "not sure", "deliberate")
    return run_deliberate(task, first, second)


# The entry


def solve(
    question: str | Sequence[Message],
    effort: Effort = "none",
    *,
    backend: Small4Backend,
    document: str | None = None,
    output: Any = None,
    budget: int = BUDGET,
    max_tokens: int = ANSWER_TOKENS,
    temperature: float | None = None,
    stop: Sequence[str] = (),
    k: int = BRANCHES,
    calibration: Calibration | None = None,
    cancel: Cancellation | None = None,
) -> Result:
    """Answer a question with the effort it is given.

    `question`: a text, or a conversation in OpenAI's form that ends with the user. `document`: becomes the system
    prompt, which is read once for all efforts. `output`: the form of the answer (form.py). `budget`: most tokens of
    each trace; `max_tokens`: of each answer; `stop`: strings that end an answer. `temperature`: by default 0 for direct
    answers and checks, 0.7 for thinking. `k`: branches of `deliberate`. `calibration`: the thresholds of `auto`, by
    default those in the model's folder. `cancel`: give the graph up from another thread.

    Raises ProgramError for what cannot be asked, BackendError for requests that fail.
    """
    task = Task(
        messages=_conversation(question, document),
        form=form_of(output),
        budget=_at_least("budget", budget, 0),
        max_tokens=_at_least("max_tokens", max_tokens, 1),
        temperature=temperature,
        stop=tuple(stop),
        k=_at_least("k", k, 1),
        backend=backend,
        graph=Graph(effort, question if isinstance(question, str) else _conversation(question, None)[-1]["content"]),
        cancellation=cancel or Cancellation(),
    )
    attempt = _graph(effort, task, calibration)()
    value, state = None, attempt.state
    if state == "answered":
        try:
            value = task.form.read(attempt.text)
        except ValueError:
            state = "cut"  # the server holds an answer to its form as far as it came
    task.graph.finish(attempt.text, state, attempt.confidence)
    return Result(task.question, attempt.text, value, attempt.trace, attempt.confidence, effort, state, task.graph)


def _graph(effort: str, task: Task, calibration: Calibration | None) -> Callable[[], Attempt]:
    if effort == "auto":
        return partial(run_auto, task, calibration or Calibration.of(task.backend.model_info))
    graphs = {"none": run_direct, "high": run_think, "deliberate": run_deliberate}
    if effort not in graphs:
        raise ProgramError(f"effort {effort!r} is none of none, high, auto, deliberate.")
    return partial(graphs[effort], task)


def _conversation(question: str | Sequence[Message], document: str | None) -> tuple[Message, ...]:
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else list(question)
    for index, message in enumerate(messages):
        if message.get("role") not in ROLES or not isinstance(message.get("content"), str) or message.get("tool_calls"):
            raise ProgramError(
                f"messages[{index}] is nothing a graph can begin with: it takes texts of system, user and assistant."
            )
    if not messages or messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise ProgramError("There is no question: the last message must be the user's, and say something.")
    return ({"role": "system", "content": document}, *messages) if document else tuple(messages)


def _at_least(name: str, value: int, least: int) -> int:
    if value < least:
        raise ProgramError(f"{name} is {value}: it must be at least {least}.")
    return value
