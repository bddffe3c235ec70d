"""The command line `small4`. Each command imports what it runs, so that `--help` is quick."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from launch.ask import GraphEffort
from launch.client import Effort
from sgl_small4.errors import UserError

app = typer.Typer(
    name="small4",
    help="Serve Mistral Small 4 on SGLang, ask it, and measure what its effort buys.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
OnServer = Annotated[str | None, typer.Option(metavar="URL", help="A running server (default: start nano for this).")]
ShowGraph = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Save what was asked of the model: .html, .svg, .png or .json.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object.")]


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True})
def serve(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL] [SGLANG ARGUMENTS]", help="A checkpoint's folder (default: the bundled nano)."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="A hardware preset of launch/profiles.toml (default: the one that fits).")
    ] = None,
    graphs: Annotated[
        bool, typer.Option("--graphs", help="Answer the efforts auto and deliberate on /v1/chat/completions too.")
    ] = False,
) -> None:
    """Become `sglang serve` with the right defaults; every other argument is passed through and wins over them.

    `sglang serve --help` lists SGLang's arguments.
    """
    from launch.serve import serve as run

    run(arguments or [], profile, graphs)


@app.command()
def ask(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The question.")],
    file: Annotated[
        Path | None,
        typer.Option(help="A text file to ask about; it becomes the system prompt, cached for both efforts."),
    ] = None,
    effort: Annotated[
        GraphEffort, typer.Option(help="How deep to think: auto decides, deliberate thinks several times and checks.")
    ] = "none",
    budget: Annotated[int | None, typer.Option(metavar="TOKENS", help="The most tokens of a trace.")] = None,
    server: OnServer = None,
    show_graph: ShowGraph = None,
    as_json: AsJson = False,
) -> None:
    """Ask one question: the answer on standard output, the trace and the costs, dim, on standard error."""
    from launch.ask import ask as run

    run(text, file, effort, server, as_json, show_graph, budget)


@app.command()
def review(
    diff: Annotated[str | None, typer.Argument(metavar="DIFF", help="A unified diff; - is standard input.")] = None,
    git: Annotated[str | None, typer.Option(metavar="RANGE", help="Review what `git diff RANGE` says.")] = None,
    repo: Annotated[Path, typer.Option(metavar="DIR", help="The repository for --git.")] = Path("."),
    effort: Annotated[Effort, typer.Option(help="Whether to think about each part.")] = "high",
    server: OnServer = None,
    show_graph: ShowGraph = None,
    as_json: AsJson = False,
) -> None:
    """Review a diff: findings with file, line, severity and reason, each checked against the diff. Exit code 0."""
    from launch.review import review as run

    raise typer.Exit(run(diff, git, repo, effort, server, show_graph, as_json))


@app.command()
def tools(
    question: Annotated[str, typer.Argument(metavar="TEXT", help="The question.")],
    tool: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE.py:FUNCTION", help="A function the model may call (default: a calculator)."),
    ] = None,
    effort: Annotated[Effort, typer.Option(help="Whether to think before each call and answer.")] = "none",
    server: OnServer = None,
    rounds: Annotated[int, typer.Option(help="How many times the model may call before it must answer.")] = 4,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="For each call.")] = 10.0,
    show_graph: ShowGraph = None,
    as_json: AsJson = False,
) -> None:
    """Ask a question that may call Python functions, in the model's own format."""
    from launch.tools import tools as run

    raise typer.Exit(run(question, tool or [], effort, server, rounds, timeout, show_graph, as_json))


@app.command(name="eval")
def evaluate(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.jsonl", help="A case a line: question, answer, perhaps document.")
    ],
    efforts: Annotated[str, typer.Option(help="Which to compare.")] = "none,high,auto,deliberate",
    server: OnServer = None,
    against: Annotated[
        str | None, typer.Option(metavar="URL", help="Any OpenAI-compatible server, asked the same.")
    ] = None,
    against_model: Annotated[str | None, typer.Option(metavar="NAME", help="The model there.")] = None,
    scorer: Annotated[
        str | None, typer.Option(help="exact, number, choice, regex, json or FILE.py:FUNCTION (default: each case's).")
    ] = None,
    repeats: Annotated[int, typer.Option(help="How often each case is asked.")] = 1,
    prices: Annotated[
        str | None, typer.Option(metavar="IN,CACHED,OUT", help="Of a million tokens; shows the cost.")
    ] = None,
    against_prices: Annotated[str | None, typer.Option(metavar="IN,CACHED,OUT", help="The other server's.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write CSV, JSON and a picture here.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="The first N cases.")] = None,
    concurrency: Annotated[int, typer.Option(metavar="N", help="Cases at once.")] = 8,
    temperature: Annotated[float | None, typer.Option(help="Of all answers (default: the effort's own).")] = None,
    max_tokens: Annotated[int | None, typer.Option(metavar="N", help="The most tokens of an answer.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what effort buys on labelled cases: accuracy with intervals, tokens, seconds and cost, side by side."""
    from launch.eval import evaluate as run

    raise typer.Exit(
        run(
            file, efforts, server, against, against_model, scorer, repeats, prices, against_prices, out, limit,
            concurrency, temperature, max_tokens, as_json,
        )
    )  # fmt: skip


@app.command()
def calibrate(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="Labelled cases of the kind to be answered.")],
    accuracy: Annotated[float | None, typer.Option(help="The target, such as 0.95; or give --cost.")] = None,
    cost: Annotated[float | None, typer.Option(metavar="TOKENS", help="Mean output tokens that may be spent.")] = None,
    server: OnServer = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="The first N cases.")] = None,
    scorer: Annotated[str | None, typer.Option(help="As in eval.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Default: effort.json in the model's folder.")
    ] = None,
    concurrency: Annotated[int, typer.Option(metavar="N", help="Cases at once.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Measure how sure is sure enough for the effort auto, and store it with the model."""
    from launch.calibrate import calibrate as run

    raise typer.Exit(run(file, accuracy, cost, server, limit, scorer, out, concurrency, as_json))


@app.command()
def analyze(
    documents: Annotated[
        list[Path] | None, typer.Argument(metavar="DOCS", help="Files and folders (none: those of the job in --out).")
    ] = None,
    question: Annotated[list[str] | None, typer.Option("--question", "-q", help="A question; may be repeated.")] = None,
    questions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Questions as .txt (one a line), .jsonl or .toml.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The job's folder: made, or gone on with.")] = None,
    effort: Annotated[
        GraphEffort | None, typer.Option(help="For questions that name none (default: none, or the job's).")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Of all answers (default: the effort's own).")] = None,
    budget: Annotated[int | None, typer.Option(metavar="TOKENS", help="The most tokens of a trace.")] = None,
    max_tokens: Annotated[int | None, typer.Option(metavar="N", help="The most tokens of an answer.")] = None,
    part_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="The most of a document at once (default: what the context leaves).")
    ] = None,
    overlap: Annotated[int | None, typer.Option(metavar="TOKENS", help="That two parts share.")] = None,
    password: Annotated[list[str] | None, typer.Option(help="Of a locked PDF; tried on each, never stored.")] = None,
    server: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="A running server (default: start one); several with --ray.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The checkpoint of a server that is started (default: nano).")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Ask on a Ray cluster: HOST:PORT or auto; a worker a server, or an engine each."
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option(metavar="N", help="Questions at once.")] = 8,
    wait: Annotated[float | None, typer.Option(metavar="SECONDS", help="For a server that is gone.")] = None,
    page_images: Annotated[bool, typer.Option("--page-images", help="Draw the pages that have no text.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would be read and asked, and ask nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask many questions about long documents; every answer with its evidence, checked. A job that can be resumed.

    Exit code 0: every question has an answer; 2: something could not be read or answered, and is named.
    """
    from launch.analyze import analyze as run

    settings = {
        "effort": effort, "temperature": temperature, "budget": budget, "max_tokens": max_tokens,
        "part_tokens": part_tokens, "overlap": overlap,
    }  # fmt: skip
    code = run(
        documents or [],
        question or [],
        out,
        question_file=questions,
        settings=settings,
        passwords=password or [],
        servers=server or [],
        model=model,
        ray=ray,
        concurrency=concurrency,
        patience=wait,
        draw=page_images,
        plan_only=plan,
        quiet=quiet,
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command()
def support(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The documents to answer from.")],
    question: Annotated[
        list[str] | None,
        typer.Option("--question", "-q", help="A turn of the conversation; may be repeated (default: what is typed)."),
    ] = None,
    effort: Annotated[GraphEffort, typer.Option(help="How deep to think about each turn.")] = "none",
    password: Annotated[list[str] | None, typer.Option(help="Of a locked PDF; tried on each, never stored.")] = None,
    server: OnServer = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a turn.")] = False,
) -> None:
    """Answer questions about a folder of documents, turn by turn, each with its sources."""
    from launch.support import support as run

    raise typer.Exit(run(folder, question or [], effort, password or [], server, as_json))


@app.command()
def doctor(
    folder: Annotated[Path | None, typer.Argument(help="A checkpoint: say what would serve it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what this host has, what would run on it, and what is missing."""
    from launch.doctor import doctor as run

    raise typer.Exit(run(folder, as_json))


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A checkpoint in either format.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="A folder to make, in the other format.")],
) -> None:
    """Convert a checkpoint between the Hugging Face and the native format."""
    from launch.convert import convert as run

    typer.echo(run(source, target))


@app.command()
def demo() -> None:
    """Serve nano, ask at effort none, at high and by a graph, ask about a text file, shut down."""
    from launch.demo import demo as run

    run()


def main() -> None:
    """The console script: our own errors as one sentence on standard error, and exit code 1."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of every `finally`, so that no server is left
    try:
        app()
    except UserError as error:
        print(f"small4: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
