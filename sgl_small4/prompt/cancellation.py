"""Giving up on requests: what a program no longer needs must not go on costing."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Cancellation:
    """A switch that is thrown once: it aborts what runs under it and lets nothing new begin.

    What is thrown for a parent is thrown for its children. Safe from any thread.
    """

    def __init__(self, parent: "Cancellation | None" = None) -> None:
        self._parent = parent
        self._lock = threading.Lock()
        self._set = False
        self._aborts: dict[object, Callable[[], None]] = {}

    def is_set(self) -> bool:
        return self._set or (self._parent is not None and self._parent.is_set())

    def set(self) -> None:
        with self._lock:
            self._set = True
            aborts = list(self._aborts.values())
        for abort in aborts:
            abort()

    @contextmanager
    def covers(self, abort: Callable[[], None]) -> Iterator[None]:
        """While the block runs, `set` calls `abort`, here and in every parent."""
        key = object()
        switches = list(self._line())
        for switch in switches:
            with switch._lock:
                switch._aborts[key] = abort
        try:
            yield
        finally:
            for switch in switches:
                with switch._lock:
                    del switch._aborts[key]

    def _line(self) -> "Iterator[Cancellation]":
        switch: Cancellation | None = self
        while switch is not None:
            yield switch
            switch = switch._parent
