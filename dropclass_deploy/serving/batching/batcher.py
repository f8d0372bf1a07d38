"""A thread that runs waiting items in batches of one kind, the longest waiting first."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dropclass_deploy.core.errors import DropclassError
from dropclass_deploy.serving.batching.worth import BatchWorth

Item = TypeVar("Item")
Result = TypeVar("Result")
Cancelled = CancelledError


class DeadlinePassedError(DropclassError):
    """The item was still waiting when its time was over; it was not run."""


@dataclass(eq=False)
class _Waiting(Generic[Item, Result]):
    item: Item
    key: Hashable
    deadline: float
    started: Callable[[], None]
    future: Future[Result] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)


class Batcher(Generic[Item, Result]):
    """Runs items through a function that takes several of one kind.

    What a batch raises is not blamed on all of its items: each is run again alone.

    Args:
        run: from items of one key to their results, in order; called in one thread only.
        key: equal for items that may run together.
        largest: items in a batch.
        most: of items like this one in a batch, when that is fewer.
        wait_s: how long the first of a batch waits for others; 0: batches form only while another one runs.
        clock: seconds.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Result]],
        key: Callable[[Item], Hashable],
        *,
        largest: int,
        most: Callable[[Item], int] = lambda _: sys.maxsize,
        wait_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._key, self._most, self._wait_s, self._clock = run, key, most, wait_s, clock
        self._worth = BatchWorth(largest)
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, item: Item, deadline: float, started: Callable[[], None] = lambda: None) -> Future[Result]:
        """Queue an item.

        Args:
            deadline: on the clock; an item that still waits then fails with ``DeadlinePassedError``.
            started: called in the worker's thread when the item leaves the queue, whatever becomes of it.

        Returns:
            Its result; cancelling it takes the item out of the queue.
        """
        waiting: _Waiting[Item, Result] = _Waiting(item, self._key(item), deadline, started, arrived=self._clock())
        with self._changed:
            if self._closed:
                raise CancelledError
            self._queue.append(waiting)
            self._changed.notify()
        waiting.future.add_done_callback(lambda future: self._drop(waiting) if future.cancelled() else None)
        return waiting.future

    def close(self, timeout_s: float | None = None) -> bool:
        """Cancel what waits, finish what runs, end the thread; whether it has ended within the time."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def fail_waiting(self, error: Exception) -> None:
        """Fail everything that waits now: nothing can run it."""
        with self._changed:
            waiting = list(self._queue)
            self._queue.clear()
        for one in waiting:
            one.started()
            if one.future.set_running_or_notify_cancel():
                one.future.set_exception(error)

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            if batch:
                self._finish(batch)
        for one in list(self._queue):
            one.future.cancel()

    def _drop(self, one: _Waiting[Item, Result]) -> None:
        """Take a cancelled item out of the queue: what it holds is large, and its turn may be far away."""
        with self._changed:
            if one not in self._queue:
                return
            self._queue.remove(one)
        one.started()

    def _next(self) -> list[_Waiting[Item, Result]] | None:
        """The batch to run now: empty when all of its items were cancelled or late; None when closed."""
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            self._gather(self._queue[0])
            if self._closed or not self._queue:
                return None if self._closed else []
            key = self._queue[0].key
            same = [one for one in self._queue if one.key == key]
            chosen = same[: self._worth.choose(key, min(len(same), self._most(same[0].item)))]
            taken = set(map(id, chosen))
            self._queue = deque(one for one in self._queue if id(one) not in taken)
        return [one for one in chosen if self._starts(one)]

    def _gather(self, first: _Waiting[Item, Result]) -> None:
        """Wait for more of the first item's kind, as long as it may and does any good; the lock is held."""
        until = first.arrived + self._wait_s
        while not self._closed and self._queue:
            same = sum(one.key == first.key for one in self._queue)
            remaining = until - self._clock()
            if remaining <= 0 or same >= min(self._worth.largest, self._most(first.item)):
                return
            self._changed.wait(remaining)

    def _starts(self, one: _Waiting[Item, Result]) -> bool:
        one.started()
        if not one.future.set_running_or_notify_cancel():
            return False
        if self._clock() >= one.deadline:
            one.future.set_exception(DeadlinePassedError("its time was over before it was run"))
            return False
        return True

    def _finish(self, batch: list[_Waiting[Item, Result]]) -> None:
        began = self._clock()
        try:
            results = list(self._run([one.item for one in batch]))
            if len(results) != len(batch):
                raise RuntimeError(f"a batch of {len(batch)} gave {len(results)} results")
        except BaseException as error:  # whatever it is, this thread has to live, and somebody waits for an answer
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for one in batch:
                self._finish([one])
            return
        self._worth.learn(batch[0].key, len(batch), self._clock() - began)
        for one, result in zip(batch, results, strict=True):
            one.future.set_result(result)
