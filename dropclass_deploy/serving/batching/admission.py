"""How many items may wait: whoever comes beyond that is refused at once, before any work is done for it."""

from __future__ import annotations

import threading

from dropclass_deploy.core.errors import DropclassError


class QueueFullError(DropclassError):
    """No place was left; the work was not begun."""


class Admission:
    """A count of waiting items, with a limit.

    Attributes:
        limit: items that may wait. A single group of more than that is let in when nothing else waits.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._waiting = 0
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """Items with a place that have not left it."""
        return self._waiting

    def enter(self, items: int = 1) -> Place:
        """A place for each of some items.

        Raises:
            QueueFullError: when they do not fit.
        """
        with self._lock:
            if self._waiting and self._waiting + items > self.limit:
                raise QueueFullError(f"{self._waiting} wait already, and {self.limit} may")
            self._waiting += items
        return Place(self, items)

    def _leave(self, items: int) -> None:
        with self._lock:
            self._waiting -= items


class Place:
    """What ``Admission.enter`` gives: places that are left one by one, or all that remain."""

    def __init__(self, admission: Admission, items: int) -> None:
        self._admission = admission
        self._items = items
        self._lock = threading.Lock()

    def leave(self, items: int | None = None) -> None:
        """Give some places back, or all; what was given back before does not count twice."""
        with self._lock:
            left = self._items if items is None else min(items, self._items)
            self._items -= left
        if left:
            self._admission._leave(left)
