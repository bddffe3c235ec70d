"""`small4 tools`: a question that the model may answer with the help of Python functions."""

import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console

from launch.client import Effort
from launch.errors import LaunchError
from launch.server import serving
from launch.terminal import dim_stderr, visible
from programs.tools import Tool, ToolsResult, calculator, use_tools
from sgl_small4.prompt.backend import Small4Backend


def tools(
    question: str,
    tool: Sequence[str],
    effort: Effort,
    server: str | None,
    rounds: int,
    timeout: float,
    show_graph: Path | None,
    as_json: bool,
) -> int:
    """Answer `question` on standard output, the calls dim on standard error; or one JSON object. The exit code.

    `tool` are `FILE.py:FUNCTION`; without one there is the calculator. 1 where a request failed or no answer came.
    Raises LaunchError, ProgramError and BackendError, each one sentence.
    """
    if not question.strip():
        raise LaunchError('The question is empty: write it after `small4 tools`, as in `small4 tools "1234*77?"`.')
    try:
        question.encode()
    except UnicodeEncodeError:
        raise LaunchError("The question is not UTF-8 text: write it in a terminal that is set to UTF-8.") from None
    remarks = dim_stderr()
    with contextlib.redirect_stdout(sys.stderr):  # what a function prints is no part of the answer
        offered = [Tool.of(function) for function in _functions(tool)] or [Tool.of(calculator)]
        told = None if as_json else remarks
        with serving(server, "for this one question", told) as url, Small4Backend(url) as backend:
            result = use_tools(question, offered, effort=effort, rounds=rounds, timeout=timeout, backend=backend)
    if as_json:
        print(json.dumps(to_dict(result)))
    else:
        _show(result, remarks)
    if show_graph is not None:
        result.graph.save(show_graph)
    code = 0 if result.state == "answered" else 1
    if any(call.state == "timeout" for call in result.calls):
        _leave(code)
    return code


def to_dict(result: ToolsResult) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "answer": result.answer,
        "trace": result.trace,
        "effort": result.effort,
        "state": result.state,
        "error": result.error,
        "calls": [asdict(call) for call in result.calls],
        "usage": asdict(result.usage),
    }


def _show(result: ToolsResult, remarks: Console) -> None:
    for call in result.calls:
        state = "" if call.state == "done" else f" [{call.state}]"
        remarks.print(visible(f"{call.round}. {call.name}({call.arguments}){state} -> {call.result}"))
    if result.trace:
        remarks.print(visible(result.trace))
    if result.answer:
        Console(highlight=False, soft_wrap=True, markup=False).print(visible(result.answer))
    usage = result.usage
    remarks.print(
        f"effort {result.effort}: {usage.requests} requests, {usage.prompt_tokens} tokens in, {usage.cached_tokens} of "
        f"them cached, {usage.completion_tokens} out"
    )
    if result.error:
        print(f"small4: {visible(result.error)}", file=sys.stderr)


def _functions(named: Sequence[str]) -> list[Any]:
    modules: dict[Path, ModuleType] = {}
    functions = []
    for place in named:
        path, _, name = place.rpartition(":")
        if not path or not name:
            raise LaunchError(f"{place!r} names no function: write FILE.py:FUNCTION.")
        file = Path(path).resolve()
        if file not in modules:
            modules[file] = _module(file)
        function = getattr(modules[file], name, None)
        if not callable(function):
            raise LaunchError(f"There is no function {name!r} in {path!r}: write FILE.py:FUNCTION.")
        functions.append(function)
    return functions


def _module(file: Path) -> ModuleType:
    """The module that a file is. What lies beside it can be imported; no module of ours is replaced by either."""
    spec = importlib.util.spec_from_file_location(f"small4_tool_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise LaunchError(f"The tools' file {str(file)!r} is no Python file that is there: write FILE.py:FUNCTION.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # as import does; dataclasses and pickle look there
    sys.path.append(str(file.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's file raises
        said = " ".join(str(error).split())[:300]
        raise LaunchError(f"The tools' file {str(file)!r} cannot be read: {type(error).__name__}: {said}.") from error
    return module


def _leave(code: int) -> None:
    """End at once. Python would wait at its end for threads that a function left behind, which may be for ever."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
