"""A Ray cluster on this host, a scripted server that sees which process asks it, and what to ask of it."""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from programs.documents.cluster import ClusterRunner
from programs.documents.cluster_worker import Asking
from programs.documents.document import Document
from programs.documents.job import Unit
from programs.documents.plan import Budget, Part
from programs.documents.question import Question
from sgl_small4.nano import CHECKPOINT
from sgl_small4.nano.tasks.documents import QUOTE
from sgl_small4.prompt.backend import shown
from tests.fake_http import running
from tests.programs.scripted import ScriptServer, _Handler, says
from tests.prompt.scripted import FORMAT, Scripted

ASKING = Asking(Budget(32_768, 100, 100), 0.0, concurrency=4, patience=1.0)
GONE = 0  # instead of the id of a process that ended before it was looked up
SECONDS = 120  # for the cluster to start, to end, and to have its workers ask


@dataclass(frozen=True)
class Cluster:
    address: str
    client: str  # for hosts outside of it


def free_port() -> int:
    """Below those that the system gives to outgoing connections, which may take one before Ray listens on it, and above
    those that Ray itself takes (10002 to 23999)."""
    while True:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", random.randrange(24000, 32000))) as probe:
            return probe.getsockname()[1]


@contextmanager
def ray_cluster(cpus: int = 2) -> Iterator[Cluster]:
    """A cluster of one node, which ends with the block and everything that it started."""
    port, client = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:  # a short path: sockets
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port", str(port)]
        command += ["--num-cpus", str(cpus), "--num-gpus", "0", "--include-dashboard=false", "--disable-usage-stats"]
        command += ["--object-store-memory", "80000000", "--temp-dir", folder, "--ray-client-server-port", str(client)]
        log = Path(folder, "start.log")
        with log.open("wb") as output:
            head = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
            )
        try:
            for _ in range(10 * SECONDS):
                if b"Ray runtime started" in log.read_bytes():
                    break
                assert head.poll() is None, log.read_text()
                threading.Event().wait(0.1)
            yield Cluster(f"127.0.0.1:{port}", f"ray://127.0.0.1:{client}")
        finally:
            started = psutil.Process(head.pid).children(recursive=True) if head.poll() is None else []
            head.terminate()
            try:
                head.wait(SECONDS)
            except subprocess.TimeoutExpired:
                head.kill()
            for process in psutil.wait_procs(started, timeout=5)[1]:
                process.kill()
            head.wait()


class Watched(ScriptServer):
    """Keeps, of each request, the process that sent it, its routing key and its prompt. `before` is told of each."""

    def __init__(self, script: Scripted, before: Callable[[int, str], None]) -> None:
        super().__init__(script)
        self.RequestHandlerClass = _WatchedHandler
        self.before = before
        self.requests: list[tuple[int, str | None, str]] = []

    def workers(self) -> dict[str, set[int]]:
        """The processes that asked about each document."""
        found = defaultdict(set)
        for process, _, prompt in self.requests:
            if process != GONE:
                found[document_of(prompt)].add(process)
        return dict(found)

    def asked(self) -> Counter[str]:
        """How often each question was asked, by its unit's key; not the requests for its quotes."""
        return Counter(
            f"{document_of(prompt)}: {prompt.rsplit('What is ', 1)[1].split('?')[0]}"
            for _, _, prompt in self.requests
            if "What is " in prompt and QUOTE not in prompt
        )


class _WatchedHandler(_Handler):
    server: Watched

    def read(self) -> Any:
        fields = super().read()
        prompt = shown(fields["input_ids"], FORMAT)
        process = self._sender()
        self.server.requests.append((process, self.headers["X-SMG-Routing-Key"], prompt))
        self.server.before(process, prompt)
        return fields

    def _sender(self) -> int:
        mine = (self.client_address[1], self.server.server_port)
        for each in psutil.net_connections("tcp4"):
            if each.raddr and (each.laddr.port, each.raddr.port) == mine and each.pid:
                return each.pid
        return GONE


def nothing(process: int, prompt: str) -> None:
    """Lets a request pass."""


class UntilTwoAsk:
    """Has the first worker wait for the second, which may take longer to start than all questions take."""

    def __init__(self) -> None:
        self.processes: set[int] = set()
        self._both = threading.Event()

    def __call__(self, process: int, prompt: str) -> None:
        if process != GONE:
            self.processes.add(process)
        if len(self.processes) >= 2:
            self._both.set()
        assert self._both.wait(SECONDS)


def watched(before: Callable[[int, str], None] = nothing) -> AbstractContextManager[Watched]:
    """A server that answers every question with "grey" after a moment, and quotes the document for it."""
    return running(Watched(Scripted(_reply), before))


def _reply(ids: Sequence[int], fields: Mapping[str, Any]) -> list[int]:
    threading.Event().wait(0.05)
    return says(json.dumps(["The cat is grey."]) if QUOTE in shown(ids, FORMAT) else "grey")


def document_of(prompt: str) -> str:
    return prompt.split("Report ")[1].split(".")[0]


def units_of(documents: int, questions: int) -> list[Unit]:
    """Document by document, as a job has them; keys as in "2: thing 0"."""
    units = []
    for number in range(documents):
        text = f"Report {number}. The cat is grey.\n"
        document = Document(f"{number}.txt", "text", str(number), text)
        for place in range(questions):
            question = Question(id=f"q{place}", question=f"What is thing {place}?", effort="none")
            units.append(Unit(f"{number}: thing {place}", document, Part(0, len(text), 20), question))
    return units


def runner_on(address: str, *urls: str, **more: Any) -> ClusterRunner:
    return ClusterRunner(address, str(CHECKPOINT), ASKING, urls=urls, **more)
