"""Reasoning effort as graphs: one question, and as much thinking as it deserves.

    none         direct      one generation, no trace
    high         think       a trace, then the answer
    deliberate   deliberate  k traces from one cached prompt; where answers differ each is checked, and votes decide
    auto         auto        direct; think where the model was not sure; deliberate where it still is not

More effort is not a superset: where thinking leaves the model less sure than its direct answer did, both stand as
votes. A spent limit, an empty answer and a missing trace are states with one next step each, which the graph shows;
nothing is asked again unchanged.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import sglang as sgl
from sglang.lang.interpreter import ProgramState
from sglang.lang.ir import SglExpr, SglFunction

from programs.calibration import Calibration
from programs.errors import ProgramError
from programs.form import Form, form_of
from programs.graph import Graph
from programs.result import Result, State
from sgl_small4.prompt.backend import BackendError, Small4Backend, configure, node_of, reply_of
from sgl_small4.prompt.cancellation import Cancellation

logger = logging.getLogger(__name__)

Effort = Literal["none", "high", "auto", "deliberate"]
Message = Mapping[str, Any]

BUDGET = 4096  # tokens of a trace
ANSWER_TOKENS = 1024
MARKS = 2  # [THINK] and [/THINK]
FRAME = 128  # tokens around a conversation: its roles, the settings, the words of a check
TEMPERATURES = {"none": 0.0, "high": 0.7}  # the model card's
BRANCHES = 5
CHECK = "Question: {question}\nAnswer: {answer}\nIs the answer right? yes or no"
VERDICT = "(yes|no)"
VERIFIED = 3
LONG = 8000  # characters of a question that are worth a word when they are read twice
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

    def run(self, program: SglFunction, **arguments: Any) -> ProgramState:
        """Run a program in this thread; only the branches of a fork need threads of their own."""
        return program.run(task=self, backend=self.backend, use_thread=False, **arguments)

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
    """k traces from one prompt that is read once; their answers vote; ended as soon as the outcome is settled."""
    converse(s, task, "high", "question")
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
    return attempt_of(task.run(direct), task)


def run_think(task: Task, direct: Attempt | None = None) -> Attempt:
    """Think; where no answer came of it, answer at effort none: with `direct` where that was asked already."""
    attempt = attempt_of(task.run(think), task)
    if attempt.state != "empty":
        if attempt.trace is None:
            task.graph.mark(attempt.node, "no trace", "the answer is taken as it is")
        return attempt
    reason = next(node.state for node in task.graph.nodes if node.id == attempt.node)
    task.graph.mark(attempt.node, reason, "answered at effort none")
    return replace(direct or run_direct(task), trace=attempt.trace)


class Poll:
    """Votes for answers. Where they differ, each distinct answer is checked once, and its votes count `VERIFIED` times
    as much where the check said yes.

    Measured on nano (`python -m launch.bench.effort`): this removes more errors than the plain majority, and taking
    whichever answer is verified first does worse than that majority where the check errs. Unanimous answers are not
    checked: none of 1,000 was wrong.
    """

    def __init__(self, task: Task, voices: int) -> None:
        self.task = task
        self.cancellation = Cancellation(task.cancellation)  # of what need not be waited for any more
        self.votes: dict[str, list[Attempt]] = defaultdict(list)
        self.right: dict[str, bool] = {}  # by a check that ended
        self._open = voices

    def count(self, branches: Iterable[ProgramState]) -> None:
        """Wait for branches and checks until the outcome is settled, and give up on the rest."""
        waiting = list(branches)
        errors: list[Exception] = []
        checks: dict[str, Future[bool]] = {}
        with ThreadPoolExecutor(2 * len(waiting) + len(self.votes)) as pool:
            open_votes = {pool.submit(attempt_of, branch, self.task) for branch in waiting}
            running: set[Future[Any]] = set(open_votes)
            while running and not self.settled():
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done & open_votes:
                    self._open -= 1
                    try:
                        self.add(future.result())
                    except BackendError as error:
                        errors.append(error)
                for key, check in checks.items():
                    if check in done:
                        self.right[key] = not check.exception() and check.result()
                if len(self.votes) > 1 and not self.settled():
                    for key in self.votes.keys() - checks.keys():
                        checks[key] = pool.submit(self._checked, self.votes[key][0])
                        running.add(checks[key])
            self.cancellation.set()
        for branch in waiting:
            branch.stream_executor.end()
        if not self.votes and errors:
            raise errors[0]

    def add(self, attempt: Attempt) -> None:
        if attempt.state != "empty":
            self.votes[self.task.form.key(attempt.text)].append(attempt)

    def settled(self) -> bool:
        """Whether no answer can catch up, whatever the votes and checks that are still out say."""
        if not self.votes:
            return False
        leader = self._leader()
        least = self._weight(leader, self.right.get(leader, False))
        rivals = [self._weight(key, self.right.get(key, True), self._open) for key in self.votes if key != leader]
        return least > max([*rivals, VERIFIED * self._open])

    def winner(self) -> tuple[Attempt, float]:
        """The first vote for the answer that weighs most, and its share of the weight of all."""
        leader = self._leader()
        weights = {key: self._weight(key, self.right.get(key, False)) for key in self.votes}
        return self.votes[leader][0], weights[leader] / sum(weights.values())

    def _leader(self) -> str:
        return max(self.votes, key=lambda key: self._weight(key, self.right.get(key, False)))  # ties: who came first

    def _weight(self, key: str, right: bool, more: int = 0) -> int:
        return (len(self.votes[key]) + more) * (VERIFIED if right else 1)

    def _checked(self, attempt: Attempt) -> bool:
        task = replace(self.task, cancellation=self.cancellation)
        s = task.run(check, answer=attempt.text)
        right = s["verdict"] == "yes"
        task.graph.mark(node_of(s), f"{attempt.text.strip()[:40]}: {'right' if right else 'doubted'}")
        return right


def run_deliberate(task: Task, *before: Attempt) -> Attempt:
    """Deliberate; `before` are the answers of direct and of think, which vote with the branches. Where no branch comes
    to an answer, the answer is that at effort none."""
    poll = Poll(task, task.k)
    for attempt in before:
        poll.add(attempt)
    task.run(deliberate, poll=poll)
    if not poll.votes:
        return before[0] if before else run_direct(task)
    best, share = poll.winner()
    return replace(best, confidence=share)


def surety(attempt: Attempt, before: Attempt | None = None) -> float:
    """What `auto` holds against its threshold: the confidence of a whole answer, from 0 to 1. -1, which no threshold
    takes, without one, and where thinking left the model less sure than `before`."""
    confidence = attempt.confidence or 0.0
    if attempt.state != "answered" or (before is not None and confidence < (before.confidence or 0.0)):
        return -1.0
    return confidence


def run_auto(task: Task, calibration: Calibration) -> Attempt:
    """Direct where it is sure; else think, where that is sure; else deliberate, with both as votes."""
    first = run_direct(task)
    if surety(first) >= calibration.direct:
        task.graph.mark(first.node, "sure", "taken")
        return first
    task.graph.mark(first.node, "not sure", "think")
    if len(task.question) > LONG:
        logger.warning(
            "A question of %d characters is read again for each effort, which stands before it: give what it is about "
            "as document (a system message), which is read once for all.",
            len(task.question),
        )
    second = run_think(task, first)
    if surety(second, first) >= calibration.think:
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
    budget: int | None = None,
    max_tokens: int = ANSWER_TOKENS,
    temperature: float | None = None,
    stop: str | Sequence[str] = (),
    k: int = BRANCHES,
    calibration: Calibration | None = None,
    cancel: Cancellation | None = None,
) -> Result:
    """Answer a question with the effort it is given.

    `question`: a text, or a conversation in OpenAI's form that ends with the user. `document`: becomes the system
    prompt, which is read once for all efforts. `output`: the form of the answer (form.py). `budget`: most tokens of
    each trace, by default 4,096 or what the server's context leaves; `max_tokens`: of each answer; `stop`: strings that
    end an answer. `temperature`: by default 0 for direct answers and checks, 0.7 for thinking. `k`: branches of
    `deliberate`. `calibration`: the thresholds of `auto`, by default those in the model's folder. `cancel`: give the
    graph up from another thread.

    Raises ProgramError for what cannot be asked, BackendError for requests that fail.
    """
    task = task_of(
        question, effort, backend=backend, document=document, output=output, budget=budget, max_tokens=max_tokens,
        temperature=temperature, stop=stop, k=k, cancel=cancel,
    )  # fmt: skip
    attempt = _graph(effort, task, calibration)()
    value, state = None, attempt.state
    if state == "answered":
        try:
            value = task.form.read(attempt.text)
        except ValueError:
            state = "cut"  # the server holds an answer to its form as far as it came
        except Exception as error:  # what a caller's own type does with an answer
            raise ProgramError(f"The output's own check failed: {type(error).__name__}: {error}.") from error
    task.graph.finish(attempt.text, state, attempt.confidence)
    return Result(task.question, attempt.text, value, attempt.trace, attempt.confidence, effort, state, task.graph)


def task_of(
    question: str | Sequence[Message],
    effort: Effort,
    *,
    backend: Small4Backend,
    document: str | None = None,
    output: Any = None,
    budget: int | None = None,
    max_tokens: int = ANSWER_TOKENS,
    temperature: float | None = None,
    stop: str | Sequence[str] = (),
    k: int = BRANCHES,
    cancel: Cancellation | None = None,
) -> Task:
    """What `solve` runs its graph on, for who runs the graphs one by one; arguments and errors are `solve`'s."""
    messages = _conversation(question, document)
    _at_least("max_tokens", max_tokens, 1)
    if temperature is not None and not 0 <= temperature < float("inf"):
        raise ProgramError(f"temperature is {temperature!r:.80}: it must be a number, at least 0.")
    return Task(
        messages=messages,
        form=form_of(output),
        budget=_room(messages, max_tokens, backend) if budget is None else _at_least("budget", budget, 0),
        max_tokens=max_tokens,
        temperature=temperature,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        k=_at_least("k", k, 1),
        backend=backend,
        graph=Graph(effort, messages[-1]["content"]),
        cancellation=cancel or Cancellation(),
    )


def _graph(effort: str, task: Task, calibration: Calibration | None) -> Callable[[], Attempt]:
    if effort == "auto":
        return partial(run_auto, task, calibration or Calibration.of(task.backend.model_info))
    graphs = {"none": run_direct, "high": run_think, "deliberate": run_deliberate}
    if effort not in graphs:
        raise ProgramError(f"effort {effort!r} is none of none, high, auto, deliberate.")
    return partial(graphs[effort], task)


def _conversation(question: str | Sequence[Message], document: str | None) -> tuple[Message, ...]:
    if not isinstance(question, str | Sequence):
        raise ProgramError(f"The question must be a text or a list of messages, got {question!r:.80}.")
    if not isinstance(document, str | None):
        raise ProgramError(f"The document must be a text, got {document!r:.80}.")
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else list(question)
    for index, message in enumerate(messages):
        if (
            not isinstance(message, Mapping)
            or message.get("role") not in ROLES
            or not isinstance(message.get("content"), str)
            or message.get("tool_calls")
        ):
            raise ProgramError(
                f"messages[{index}] is nothing a graph can begin with: it takes texts of system, user and assistant."
            )
    if not messages or messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise ProgramError("There is no question: the last message must be the user's, and say something.")
    return ({"role": "system", "content": document}, *messages) if document else tuple(messages)


def _room(messages: Sequence[Message], max_tokens: int, backend: Small4Backend) -> int:
    """The default budget: what the context leaves beside the conversation and its answer, and no more than BUDGET."""
    if backend.model_info["context_length"] is None:
        return BUDGET
    context = backend.model_info["context_length"] - max_tokens - FRAME
    texts = [message["content"] for message in messages]
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)  # no text has more tokens than bytes
    if size + BUDGET > context:
        size = sum(len(backend.format.encode_text(text)) for text in texts)
    return max(0, min(BUDGET, context - size))


def _at_least(name: str, value: int, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ProgramError(f"{name} is {value!r:.80}: it must be a whole number, at least {least}.")
    return value
