"""How a request and the server end when they should: hang-ups noticed at once, and one last line after a crash."""

import os
import sys
from typing import Any, NoReturn

from sglang.srt.environ import envs
from sglang.srt.managers import tokenizer_manager
from sglang.srt.utils import is_cpu, kill_process_tree

# Seconds between two looks at whether the client of a request that has no output yet is still there.
POLL_SECONDS = 0.5
CRASHED = (
    "small4: the server has ended: one of its processes failed, and its own last words stand above. Start it again; "
    "no request is kept."
)


def poll_often() -> None:
    """Look for hang-ups every POLL_SECONDS, unless SGLANG_REQUEST_STATE_WAIT_TIMEOUT is set."""
    if not envs.SGLANG_REQUEST_STATE_WAIT_TIMEOUT.is_set():
        tokenizer_manager._REQUEST_STATE_WAIT_TIMEOUT = POLL_SECONDS


def end_after_crash(manager: Any) -> NoReturn:
    """End this process and all it started, with exit code 1 and one line that is the last of the log."""
    watchdog = manager._subprocess_watchdog
    if watchdog is not None:
        watchdog.stop()
    if is_cpu():  # upstream waits 5 s for an accelerator to settle before it looks at processes that are gone
        for dump in (envs.SGLANG_PYSPY_DUMP_BEFORE_CRASH, envs.SGLANG_CUDA_COREDUMP_BEFORE_CRASH):
            if not dump.is_set():
                dump.set(False)
    manager.dump_requests_before_crash()
    kill_process_tree(os.getpid(), include_parent=False)
    sys.stdout.flush()
    print(CRASHED, file=sys.stderr, flush=True)
    os._exit(1)  # a signal's handler inside the event loop: SystemExit would be logged there and the loop go on
