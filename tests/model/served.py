"""Logits of the served model, in-process: one SGLang model runner in a fresh process for each checkpoint.

SGLang's configuration and process groups live once per process, so each call forks from a server process that has
imported SGLang already (``forkserver``), which costs a second instead of twelve.
"""

import multiprocessing
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

ANSWER_TIME = 300  # seconds
Result = TypeVar("Result")


@dataclass(frozen=True)
class Request:
    """A token sequence fed in pieces that end at `ends`; pieces of one token after the first are decode steps.

    A later piece meets the earlier ones as rows of the cache, as a chunk of a long prompt or a cached prefix does.
    """

    ids: tuple[int, ...]
    ends: tuple[int, ...]


def logits(folder: Path, requests: list[Request], **server_args) -> list[torch.Tensor]:
    """For each request [pieces, vocab] float32: the logits after each piece; all requests step in one batch."""
    return [torch.from_numpy(rows) for rows in in_fresh_process(_run, str(folder), requests, server_args)]


def in_fresh_process(function: Callable[..., Result], *arguments) -> Result:
    """What a module's function returns, called in a process of its own; both sides of the call are pickled."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.model.preload"])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(there, function, arguments))
    process.start()
    there.close()
    try:
        if not here.poll(ANSWER_TIME):
            raise TimeoutError(f"no answer within {ANSWER_TIME} s")
        result = here.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"the process ended with exit code {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
    if isinstance(result, BaseException):
        raise result
    return result


def _answer(pipe, function: Callable, arguments: tuple) -> None:
    try:
        pipe.send(function(*arguments))
    except Exception as error:  # noqa: BLE001 - the parent raises it
        pipe.send(error)


def _run(folder: str, requests: list[Request], server_args: dict) -> list[np.ndarray]:
    from sglang.srt.plugins import load_plugins

    load_plugins()
    from sglang.srt.managers.schedule_batch import Req
    from sglang.srt.sampling.sampling_params import SamplingParams

    runner = _model_runner(folder, max(len(request.ids) for request in requests), len(requests), server_args)
    running = [
        Req(
            rid=str(number),
            origin_input_text="",
            origin_input_ids=array("q", request.ids[: request.ends[0]]),
            sampling_params=SamplingParams(temperature=0, max_new_tokens=1),
        )
        for number, request in enumerate(requests)
    ]
    found: list[list[torch.Tensor]] = [[] for _ in requests]
    batch, done = None, [0] * len(requests)
    for step in range(len(requests[0].ends)):
        ends = [request.ends[step] for request in requests]
        decode = batch is not None and all(end == start + 1 for end, start in zip(ends, done, strict=True))
        if decode:
            tokens = torch.tensor([request.ids[start] for request, start in zip(requests, done, strict=True)])
            rows = _decode(runner, batch, tokens)
        else:
            for req, request, start, end in zip(running, requests, done, ends, strict=True):
                req.full_untruncated_fill_ids = array("q", request.ids[:end])
                req.prefix_len = start
                req.logprob_start_len = -1
                req.extend_end = end
            batch, rows = _extend(runner, running)
        for row, into in zip(rows.float().clone(), found, strict=True):
            into.append(row)
        done = ends
    return [torch.stack(rows).numpy() for rows in found]


def _model_runner(folder: str, length: int, count: int, server_args: dict):
    """A model runner as `sglang.benchmark.one_batch` makes it, without its tokenizer."""
    import sglang.benchmark.one_batch as one_batch
    from sglang.srt.runtime_context import SpawnRanks, publish, spawn_world_rank
    from sglang.srt.server_args import PortArgs, ServerArgs

    args = ServerArgs(
        model_path=folder,
        skip_tokenizer_init=True,
        context_length=length + 64,
        max_running_requests=max(count, 2),
        max_total_tokens=count * (length + 64) + 64,
        log_level="error",
        **server_args,
    )
    args.resolve_once()
    ranks = SpawnRanks(world_rank=spawn_world_rank(args, tp_rank=0, pp_rank=0), gpu_id=0)
    publish(args, role="scheduler", ranks=ranks)
    one_batch._init_process_global_configs()
    one_batch.get_tokenizer = lambda *_, **__: None
    return one_batch.load_model(args, PortArgs.init_new(args), gpu_id=0, tp_rank=0)[0].torch_runner


def _extend(runner, requests: list):
    from sglang.benchmark.one_batch import extend

    _, rows, batch = extend(requests, runner)
    return batch, rows


def _decode(runner, batch, tokens: torch.Tensor) -> torch.Tensor:
    from sglang.benchmark.one_batch import decode

    return decode(tokens, batch, runner)[1]
