"""Where the graphs that ran last are kept."""

import threading
from collections import OrderedDict


class Shelf:
    """The last `most` graphs by id, as JSON, of at most `most_bytes` together; one that is larger is not kept."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def put(self, id: str, graph: bytes) -> None:
        if len(graph) > self._most_bytes:
            return
        with self._lock:
            self._bytes += len(graph) - len(self._kept.pop(id, b""))
            self._kept[id] = graph
            while self._bytes > self._most_bytes or len(self._kept) > self._most:
                self._bytes -= len(self._kept.popitem(last=False)[1])

    def get(self, id: str) -> bytes | None:
        with self._lock:
            return self._kept.get(id)
