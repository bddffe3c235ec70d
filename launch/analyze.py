"""`small4 analyze`: questions on documents, as a job in a folder."""

import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from launch.errors import LaunchError
from launch.host import Host
from launch.serve import check_model, defaults_for
from launch.server import serving
from launch.terminal import counting, dim_stderr, visible
from programs.chat_api import base_url
from programs.documents.answer import Cost
from programs.documents.document import Document, Unreadable, sentences
from programs.documents.job import Job, Outcome, Runner
from programs.documents.plan import Count, Planned
from programs.documents.question import from_file, from_texts, numbered
from programs.documents.results import Results
from programs.documents.settings import Settings
from programs.documents.spec import Spec
from sgl_small4.prompt.format import PromptFormat
from sgl_small4.prompt.model_info import format_of
from sgl_small4.prompt.transport import HttpTransport

READERS = 2  # processes
PATIENCE, OWN_PATIENCE = 300.0, 5.0  # seconds for a server that is gone; one of our own does not come back
ANSWER_SECONDS = 30.0  # for a server to say which model it serves
SHOWN = 5  # lines of a kind that are said on the terminal


def analyze(
    documents: Sequence[Path],
    questions: Sequence[str],
    out: Path | None,
    *,
    question_file: Path | None = None,
    settings: dict[str, Any] | None = None,
    passwords: Sequence[str] = (),
    servers: Sequence[str] = (),
    model: Path | None = None,
    ray: str | None = None,
    concurrency: int = 8,
    patience: float | None = None,
    draw: bool = False,
    plan_only: bool = False,
    quiet: bool = False,
    as_json: bool = False,
) -> int:
    """Create the job in `out` or go on with it. It asks the one of `servers`, or on the Ray cluster at `ray` all of
    them or engines of `model`; without any, a private server of `model`, which is nano where none is named.

    The exit code: 0 when every question has an answer on every document, 2 when something could not be read or
    answered, which is named.
    """
    if concurrency < 1:
        raise LaunchError(f"--concurrency is {concurrency}: it must be at least 1.")
    if servers and model is not None:
        raise LaunchError("--model is for servers that are started here: leave it out with --server.")
    if len(servers) > 1 and ray is None:
        raise LaunchError("Several servers are asked through a gateway's one URL, or by the workers of --ray.")
    if patience is not None and not 0 <= patience < math.inf:
        raise LaunchError(f"--wait is {patience:g}: it must be a number of seconds, and not below 0.")
    if out is None and not plan_only:
        raise LaunchError("No folder for the job is given: add --out DIR.")
    asked = numbered((*from_texts(questions), *(from_file(question_file) if question_file else ())))
    given = Spec(documents=tuple(str(path) for path in documents), questions=asked, settings=_settings(settings or {}))
    remarks = dim_stderr()
    remarks.quiet = quiet or as_json
    with ExitStack() as stack:
        if out is None or (plan_only and not Job.is_in(out)):  # a plan leaves no job behind
            out = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        job = stack.enter_context(Job.open(out, given))
        asks = _model(servers, model)  # before anything is read for a server that is not there
        with counting("files read", remarks, remarks.quiet or not remarks.is_terminal) as bar:
            task = bar.add_task("", total=None)
            for _ in job.read(passwords, READERS):
                bar.advance(task)
        page_images = job.draw_unread(passwords) if draw else {}
        _say_unread(job.documents, job.unreadable, page_images, remarks)
        planned = job.plan_for(*asks)
        if plan_only:
            if as_json:
                print(json.dumps(_planned(planned, job)))
            elif not quiet:
                _show_plan(planned, job)
            return 0
        left = any(each.asks for each in planned) or bool(job.joins())
        if left:
            from programs.documents.ask import check_forms  # brings SGLang, which reading and planning do without
            from programs.documents.run import JobStopped

            check_forms(job.spec.asked())
            if not servers and ray is None:
                servers = [stack.enter_context(serving(None, "for this job", remarks, model))]
                patience = OWN_PATIENCE if patience is None else patience
                planned = job.plan_for(*_model(servers, None))
        try:
            if left:
                patience = PATIENCE if patience is None else patience
                try:
                    _run(job, planned, servers, model, ray, concurrency, patience, remarks)
                except JobStopped as error:  # what was answered until then is a result like any other
                    print(f"small4: {visible(str(error))}", file=sys.stderr)
            else:
                remarks.print("everything was answered already")
        finally:  # also of a job that was stopped
            results = job.results(page_images)
            job.write(results)
    return _end(results, out, remarks, as_json)


def _settings(given: dict[str, Any]) -> Settings:
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise LaunchError(f"--{str(first['loc'][0]).replace('_', '-')} cannot be so: {first['msg']}.") from None


def _run(
    job: Job,
    planned: Sequence[Planned],
    servers: Sequence[str],
    model: Path | None,
    ray: str | None,
    concurrency: int,
    patience: float,
    remarks: Console,
) -> None:
    """Ask what is left. Raises JobStopped where that comes to no end."""
    with Progress(*_columns(), console=remarks, transient=True) as bar, ExitStack() as stack:

        def say(sentence: str) -> None:
            bar.console.print(visible(sentence))

        if ray is None:
            runner = stack.enter_context(_one_server(job, servers[0], concurrency, patience, say))
        else:
            runner = stack.enter_context(_cluster(job, ray, servers, model, concurrency, patience, say))
        task = bar.add_task("", total=sum(each.asks for each in planned), spent="")
        began, cost = time.monotonic(), Cost()
        for outcome in job.run(runner):
            cost += outcome.answer.cost if outcome.answer else Cost()
            rate = cost.completion_tokens / (time.monotonic() - began)
            bar.update(task, advance=1, spent=f"{_spent(cost)}, {rate:,.0f} tokens/s")
            _say_failed(outcome, bar.console)


# Both import SGLang, which reading and planning do without.


@contextmanager
def _one_server(job: Job, url: str, concurrency: int, patience: float, say: Callable[[str], None]) -> Iterator[Runner]:
    from programs.documents.ask import Asker
    from programs.documents.run import Runner as ServerRunner
    from sgl_small4.prompt.backend import Small4Backend
    from sgl_small4.prompt.cancellation import Cancellation

    with Small4Backend(url) as backend:
        asker = Asker(backend, job.budget, job.spec.settings.temperature, Cancellation())
        yield ServerRunner(asker, concurrency, patience, say)


@contextmanager
def _cluster(
    job: Job,
    address: str,
    servers: Sequence[str],
    model: Path | None,
    concurrency: int,
    patience: float,
    say: Callable[[str], None],
) -> Iterator[Runner]:
    """Workers of a Ray cluster, each with one of the servers or with an engine of its own."""
    from programs.documents.cluster import ClusterRunner
    from programs.documents.cluster_worker import Asking

    engine: dict[str, Any] | None = None
    if not servers:
        arguments = defaults_for(check_model(model), None, Host())
        engine = {option.replace("-", "_"): value for option, value in arguments.items()}
        engine |= {"model_path": job.model, "log_level": "error"}
    asking = Asking(job.budget, job.spec.settings.temperature, concurrency, patience)
    with ClusterRunner(address, job.model, asking, urls=servers, engine=engine, say=say) as runner:
        yield runner


def _model(servers: Sequence[str], model: Path | None) -> tuple[str, int | None, Count]:
    """Name, context and tokenizer of the model that is or would be asked, without importing SGLang."""
    if not servers:
        folder = check_model(model)
        form, name = PromptFormat.from_folder(folder), str(folder)
        context = int(defaults_for(folder, None, Host())["context-length"])
    else:
        transport = HttpTransport(base_url(servers[0]), None, ANSWER_SECONDS)
        try:
            info = transport.model_info()
        finally:
            transport.close()
        form, name, context = format_of(transport.where, info, None), info["model_path"], info["context_length"]
    return name, context, lambda text: len(form.encode_text(text))


def _say_unread(
    documents: Sequence[Document],
    unreadable: Sequence[Unreadable],
    page_images: dict[str, tuple[str, ...]],
    remarks: Console,
) -> None:
    """Before any question: what is not in the texts."""
    lines = [each.why for each in unreadable]
    for document in documents:
        unread = sentences(document.unread)
        more = f", and {len(unread) - SHOWN} more" if len(unread) > SHOWN else ""
        images = f" (images in {Path(page_images[document.name][0]).parent})" if document.name in page_images else ""
        lines += [f"{document.name}: {'; '.join(unread[:SHOWN])}{more}{images}"] if unread else []
    for line in lines[: 4 * SHOWN]:
        remarks.print(visible(f"not read: {line}", ""))
    if len(lines) > 4 * SHOWN:
        remarks.print(f"not read: {len(lines) - 4 * SHOWN} more, all of them in the report")


def _say_failed(outcome: Outcome, console: Console) -> None:
    if outcome.answer is None:
        part = f", part {outcome.unit.part.number}" if outcome.unit.part.of > 1 else ""
        where = f"{outcome.unit.document.name}{part}, {outcome.unit.question.id}"
        console.print(visible(f"failed: {where}: {outcome.failure}", ""))


def _spent(cost: Cost) -> str:
    cached = f", {cost.cached_tokens / cost.prompt_tokens:.0%} cached" if cost.prompt_tokens else ""
    return f"{cost.prompt_tokens:,} tokens in{cached}, {cost.completion_tokens:,} out"


def _columns() -> Sequence[Any]:
    return (
        TextColumn("{task.completed} of {task.total} asked"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[spent]}"),
        TimeRemainingColumn(),
    )


def _planned(planned: Sequence[Planned], job: Job) -> dict[str, Any]:
    """What `--plan --json` prints."""
    coverage = {document.name: document.coverage for document in job.documents}
    return {
        "documents": [
            {
                "document": each.name,
                "coverage": coverage[each.name],
                "tokens": each.tokens,
                "parts": [asdict(part) for part in each.parts],
                "asks": each.asks,
                "requests": each.requests,
                "prompt_tokens": each.prompt_tokens,
                "cached_tokens": each.cached_tokens,
            }
            for each in planned
        ],
        "unreadable": [{"document": each.name, "why": each.why} for each in job.unreadable],
        "requests": sum(each.requests for each in planned),
        "prefill_tokens": sum(each.prompt_tokens - each.cached_tokens for each in planned),
        "prompt_tokens": sum(each.prompt_tokens for each in planned),
        "cached_tokens": sum(each.cached_tokens for each in planned),
    }


def _show_plan(planned: Sequence[Planned], job: Job) -> None:
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    table.add_column("document", overflow="fold")
    for name in ("tokens", "parts", "to ask", "prompt tokens", "from cache"):
        table.add_column(name, justify="right")
    for each in planned:
        counts = (each.tokens, len(each.parts), each.asks, each.prompt_tokens, each.cached_tokens)
        table.add_row(Text(visible(each.name, "")), *(f"{count:,}" for count in counts))
    console = Console(highlight=False, markup=False)
    console.print(table)
    total = _planned(planned, job)
    share = f" ({total['cached_tokens'] / total['prompt_tokens']:.0%})" if total["prompt_tokens"] else ""
    console.print(
        f"{total['requests']:,} requests: {total['prefill_tokens']:,} tokens of documents to read, "
        f"{total['prompt_tokens']:,} in prompts, {total['cached_tokens']:,} of them from the cache{share}; "
        "questions and replies come on top",
        soft_wrap=True,
    )


def _summary(results: Results, out: Path) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "out": str(out),
        "documents": len(results.documents),
        "unreadable": [{"document": each.name, "why": each.why} for each in results.unreadable],
        "questions": len(results.questions),
        "standings": dict(results.standings),
        **results.cost.model_dump(),
        "seconds": round(results.seconds, 3),
    }


def _end(results: Results, out: Path, remarks: Console, as_json: bool) -> int:
    """Say what came of it. The exit code."""
    if as_json:
        print(json.dumps(_summary(results, out)))
    else:
        counts = ", ".join(f"{count} {standing}" for standing, count in results.standings.items())
        unreadable = f", {len(results.unreadable)} files could not be read" if results.unreadable else ""
        Console(highlight=False, markup=False, soft_wrap=True, quiet=remarks.quiet).print(
            visible(f"{counts}{unreadable}: {out / 'report.html'}", "")
        )
        remarks.print(f"{_spent(results.cost)}, {results.cost.requests} requests, {results.seconds:.1f} s in all")
    whole = not results.unreadable and not results.standings.keys() & {"failed", "not asked"}
    return 0 if whole else 2
