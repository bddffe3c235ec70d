"""The process in which PDFs are read, and how it is asked: one for this process, kept, and replaced when it fails."""

import atexit
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

SECONDS = 60.0  # for a page, or for opening the file
MEMORY = 3_000_000_000  # bytes of address space, besides the file
WATCH = 2.0  # seconds between looks whether the parent lives

_LOCK = threading.Lock()
_kept: "Worker | None" = None


class Failed(Exception):
    """The process ended, or took too long: at `page`, or before the first."""

    def __init__(self, page: int | None) -> None:
        super().__init__("opening" if page is None else f"page {page}")
        self.page = page


class Worker:
    """The process, at the other end of a pipe."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.pipe, other = Pipe()
        here = [path or os.getcwd() for path in sys.path]
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve({other.fileno()})"],
            pass_fds=[other.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(here), "OPENBLAS_NUM_THREADS": "1"},
        )
        other.close()

    def ask(self, request: tuple[Any, ...]) -> Any:
        page: int | None = None
        try:
            self.pipe.send(request)
            while self.pipe.poll(SECONDS):
                said, value = self.pipe.recv()
                if said == "page":
                    page = value
                elif said == "done":
                    return value
                else:
                    raise value
        except (EOFError, OSError) as error:
            raise Failed(page) from error
        raise Failed(page)

    def stop(self) -> None:
        self.pipe.close()
        if self.owner == os.getpid():  # and not one that was forked since
            self.process.kill()
            self.process.wait()


def ask(*request: Any) -> Any:
    """What `serve` answers to a request; raises what reading raises, or Failed."""
    global _kept
    with _LOCK:
        if _kept is None or _kept.owner != os.getpid() or _kept.process.poll() is not None:
            _kept = Worker()
        worker, _kept = _kept, None
        going_on = False
        try:
            answer = worker.ask(request)
            going_on = True
            return answer
        except Failed:
            raise
        except Exception:
            going_on = True  # it answered, with an error
            raise
        finally:
            if going_on:
                _kept = worker
            else:  # it failed, or the question was broken off half way
                worker.stop()


@atexit.register
def _stop() -> None:
    if _kept is not None:
        _kept.stop()


def serve(descriptor: int) -> None:
    """The worker's side: answers requests until the pipe is closed or its parent is gone."""
    from programs.documents.readers.pdf_document import draw_page, read_document

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    pipe = Connection(descriptor)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    while True:
        try:
            kind, content, *rest = pipe.recv()
        except EOFError:
            return
        try:
            enough = MEMORY + 2 * len(content)
            resource.setrlimit(resource.RLIMIT_AS, (enough if hard < 0 else min(enough, hard), hard))
            if kind == "read":
                name, passwords, skipped = rest
                answer: Any = read_document(content, name, passwords, skipped, lambda page: pipe.send(("page", page)))
            else:
                answer = draw_page(content, *rest)
            message = "done", answer
        except Exception as error:  # noqa: BLE001 - it is raised again on the other side
            message = "failed", error
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        pipe.send(message)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH)
    os._exit(1)
