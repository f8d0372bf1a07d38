"""Batches: who runs with whom, in which order, and what becomes of those that do not run."""

import threading
import time
from concurrent.futures import CancelledError, wait
from typing import Any

import pytest

from dropclass_deploy.serving.batching import Batcher, DeadlinePassedError

FAR = float("inf")


class Recorder:
    """Runs items by doubling them; holds each run until it is let go, when it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def __call__(self, items: list[Any]) -> list[Any]:
        self.batches.append(items)
        self.entered.release()
        assert self.gate.wait(10)
        if "bad" in items:
            raise ValueError("a bad item")
        return [2 * item for item in items]


def batcher(run: Recorder, **options: Any) -> Batcher[Any, Any]:
    return Batcher(run, key=lambda item: type(item), **{"largest": 4, **options})


def busy(run: Recorder, queue: Batcher[Any, Any]) -> Any:
    """One item running and held, after one of its kind was measured alone."""
    queue.submit(1, FAR).result(10)
    run.entered.acquire()
    run.gate.clear()
    first = queue.submit(2, FAR)
    run.entered.acquire()
    return first


def test_what_waits_behind_a_run_goes_together_up_to_the_largest() -> None:
    run = Recorder()
    queue = batcher(run)
    first = busy(run, queue)
    others = [queue.submit(item, FAR) for item in range(10, 16)]
    run.gate.set()
    assert [future.result(10) for future in [first, *others]] == [4, 20, 22, 24, 26, 28, 30]
    assert run.batches[2:] == [[10, 11, 12, 13], [14, 15]]
    queue.close()


def test_kinds_do_not_mix_and_the_longest_waiting_goes_first() -> None:
    run = Recorder()
    queue = batcher(run)
    queue.submit("x", FAR).result(10)
    run.entered.acquire()
    first = busy(run, queue)
    futures = [queue.submit(item, FAR) for item in ("a", 5, "b", 6)]
    run.gate.set()
    wait([first, *futures], 10)
    assert run.batches[-2:] == [["a", "b"], [5, 6]]
    queue.close()


def test_a_batch_waits_for_company_when_it_may() -> None:
    run = Recorder()
    queue = batcher(run, wait_s=5.0)
    queue.submit(1, FAR)
    # The first of its kind is measured alone, after the wait; three more make it full at once.
    for item in (2, 3, 4):
        queue.submit(item, FAR)
    began = time.monotonic()
    assert run.entered.acquire(timeout=3)
    assert time.monotonic() - began < 3
    queue.close()


def test_a_failure_is_blamed_on_the_item_that_fails_alone() -> None:
    run = Recorder()
    queue = batcher(run)
    queue.submit("x", FAR).result(10)
    run.entered.acquire()
    first = busy(run, queue)
    futures = [queue.submit(item, FAR) for item in ("a", "bad", "c")]
    run.gate.set()
    wait([first, *futures], 10)
    assert futures[0].result() == "aa"
    assert futures[2].result() == "cc"
    with pytest.raises(ValueError, match="a bad item"):
        futures[1].result()
    assert run.batches[-4:] == [["a", "bad", "c"], ["a"], ["bad"], ["c"]]
    queue.close()


def test_late_and_cancelled_items_are_not_run() -> None:
    run, started = Recorder(), []
    queue = batcher(run)
    first = busy(run, queue)
    late = queue.submit(7, time.monotonic() - 1, lambda: started.append("late"))
    gone = queue.submit(8, FAR, lambda: started.append("gone"))
    kept = queue.submit(9, FAR, lambda: started.append("kept"))
    assert gone.cancel()
    run.gate.set()
    assert kept.result(10) == 18
    assert first.result(10) == 4
    with pytest.raises(DeadlinePassedError):
        late.result(10)
    # Each gave its place back.
    assert sorted(started) == ["gone", "kept", "late"]
    assert run.batches[-1] == [9]
    queue.close()


def test_closing_finishes_what_runs_and_cancels_what_waits() -> None:
    run = Recorder()
    queue = batcher(run)
    first = busy(run, queue)
    left: list[int] = []
    waiting = queue.submit(3, FAR, lambda: left.append(3))
    closing = threading.Thread(target=queue.close)
    closing.start()
    run.gate.set()
    closing.join(10)
    assert not closing.is_alive()
    assert first.result(10) == 4
    assert waiting.cancelled()
    assert left == [3]
    with pytest.raises(CancelledError):
        queue.submit(4, FAR)


def test_failing_all_that_waits() -> None:
    run = Recorder()
    queue = batcher(run)
    first = busy(run, queue)
    futures = [queue.submit(item, FAR) for item in (3, 4)]
    queue.fail_waiting(RuntimeError("no network"))
    for future in futures:
        with pytest.raises(RuntimeError, match="no network"):
            future.result(1)
    run.gate.set()
    assert first.result(10) == 4
    assert queue.submit(5, FAR).result(10) == 10
    queue.close()


def test_too_few_results_are_a_failure_and_not_the_end() -> None:
    queue: Batcher[int, int] = Batcher(lambda items: [] if items == [7] else items, key=lambda _: 0, largest=4)
    with pytest.raises(RuntimeError, match="a batch of 1 gave 0 results"):
        queue.submit(7, FAR).result(10)
    assert queue.submit(8, FAR).result(10) == 8
    queue.close()
