"""A reading process that crashes on, hangs at or remembers too much of the files whose names say so."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from programs.documents import read_process
from programs.documents.document import Document
from programs.documents.read import read_file


def read(path: Path, name: str, passwords: Sequence[str] = ()) -> Document:
    if "crash" in name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hang" in name:
        time.sleep(600)
    return read_file(path, name, passwords)


if __name__ == "__main__":
    read_process.read_file = read
    read_process.main(int(sys.argv[1]))
