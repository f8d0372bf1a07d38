"""Whether batches pay: measured durations in, sizes out."""

from dropclass_deploy.serving.batching import BatchWorth


def measured(alone: float, together: float | None = None) -> BatchWorth:
    worth = BatchWorth(4)
    worth.learn("a", 1, alone)
    if together is not None:
        worth.learn("a", 4, together)
    return worth


def test_the_first_of_a_kind_runs_alone_and_the_next_together() -> None:
    worth = BatchWorth(4)
    assert worth.choose("a", 9) == 1
    worth.learn("a", 1, 0.02)
    assert worth.choose("a", 9) == 4
    assert worth.choose("a", 3) == 3
    assert worth.choose("a", 1) == 1
    assert worth.choose("b", 9) == 1


def test_batches_go_on_where_they_pay() -> None:
    assert measured(alone=0.02, together=0.02).choose("a", 9) == 4
    # 0.071 / 4 is 89 % of 0.02.
    assert measured(alone=0.02, together=0.071).choose("a", 9) == 4


def test_where_they_do_not_pay_they_are_tried_again_now_and_then() -> None:
    worth = measured(alone=0.02, together=0.08)
    chosen = [worth.choose("a", 9) for _ in range(200)]
    assert chosen.count(4) == 3
    assert chosen.count(1) == 197
    # The machine is another one now.
    for _ in range(20):
        worth.learn("a", 4, 0.02)
    assert worth.choose("a", 9) == 4


def test_sizes_that_clients_make_up_are_forgotten() -> None:
    worth = BatchWorth(4)
    for key in range(1000):
        worth.learn(key, 1, 0.01)
    assert len(worth._measured) == 64
    assert worth.choose(0, 9) == 1
    assert worth.choose(999, 9) == 4


def test_the_largest_batch_may_be_one() -> None:
    worth = BatchWorth(1)
    worth.learn("a", 1, 0.02)
    assert worth.choose("a", 9) == 1
