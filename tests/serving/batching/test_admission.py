"""Places in a bounded queue."""

import threading

import pytest

from dropclass_deploy.serving.batching import Admission, QueueFullError


def test_places_run_out_and_come_back() -> None:
    admission = Admission(3)
    first, second = admission.enter(2), admission.enter()
    with pytest.raises(QueueFullError, match="3 wait already, and 3 may"):
        admission.enter()
    second.leave()
    assert admission.waiting == 2
    admission.enter()
    first.leave(1)
    assert admission.waiting == 2
    first.leave()
    assert admission.waiting == 1


def test_a_place_is_given_back_once() -> None:
    admission = Admission(2)
    place = admission.enter()
    for _ in range(3):
        place.leave()
    assert admission.waiting == 0


def test_a_group_larger_than_the_queue_is_let_in_when_nothing_waits() -> None:
    admission = Admission(2)
    place = admission.enter(5)
    with pytest.raises(QueueFullError):
        admission.enter()
    place.leave()
    admission.enter()


def test_never_more_than_the_limit_whatever_the_threads_do() -> None:
    admission, seen, refused = Admission(4), [], []

    def go() -> None:
        for _ in range(300):
            try:
                place = admission.enter()
            except QueueFullError:
                refused.append(1)
                continue
            seen.append(admission.waiting)
            place.leave()

    threads = [threading.Thread(target=go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(seen) <= 4
    assert admission.waiting == 0
    assert len(seen) + len(refused) == 8 * 300
