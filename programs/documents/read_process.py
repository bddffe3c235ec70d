"""The process in which `read_all` has files read: `python -m programs.documents.read_process FD`."""

import os
import resource
import signal
import sys
from multiprocessing.connection import Connection

from programs.documents.document import Document, ReadError, Unreadable
from programs.documents.read import read_file, sha256_of

MEMORY_LIMIT = 4 << 30  # bytes of address space


def main(descriptor: int) -> None:
    """Read what the connection asks for until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent takes Ctrl-C and ends this process
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, resource.getrlimit(resource.RLIMIT_AS)[1]))
    connection = Connection(descriptor)
    connection.send(True)
    with open(os.devnull, "wb") as nowhere:  # what the libraries write from here on is nobody's
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    while True:
        try:
            path, name, passwords, limit = connection.recv()
        except EOFError:
            return
        # The parent ends a file that takes too long; should the parent be gone, the alarm does.
        signal.alarm(int(limit) + 30)
        read: Document | Unreadable
        try:
            read = read_file(path, name, passwords)
        except ReadError as error:
            read = Unreadable(name, str(error), sha256_of(path))
        signal.alarm(0)
        connection.send(read)


if __name__ == "__main__":
    main(int(sys.argv[1]))
