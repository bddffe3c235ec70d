"""The command line `small4`. Each command imports what it runs, so that `--help` is quick."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from launch.client import Effort
from launch.errors import LaunchError

app = typer.Typer(
    name="small4",
    help="Serve Mistral Small 4 on SGLang, ask it, and see what this host can run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
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
) -> None:
    """Become `sglang serve` with the right defaults; every other argument is passed through and wins over them.

    `sglang serve --help` lists SGLang's arguments.
    """
    from launch.serve import serve as run

    run(arguments or [], profile)


@app.command()
def ask(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The question.")],
    file: Annotated[
        Path | None,
        typer.Option(help="A text file to ask about; it becomes the system prompt, cached for both efforts."),
    ] = None,
    effort: Annotated[Effort, typer.Option(help="Whether to think before answering.")] = "none",
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="A running server (default: start nano for this question).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask one question: the answer on standard output, the trace and the costs, dim, on standard error."""
    from launch.ask import ask as run

    run(text, file, effort, server, as_json)


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
    """Serve nano, ask at effort none and at high, ask about a text file, shut down."""
    from launch.demo import demo as run

    run()


def main() -> None:
    """The console script: our own errors as one sentence on standard error, and exit code 1."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of every `finally`, so that no server is left
    try:
        app()
    except LaunchError as error:
        print(f"small4: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
