"""A network that fails: told from a bad image, replaced, and nothing lost beside it."""

import asyncio
from typing import Any

import numpy as np
import pytest
from server_builders import RedSegmenter, hosted, picture, until

from dropclass_deploy.core.errors import ArtifactError, OutOfMemoryError, UserError
from dropclass_deploy.serving.server.health import Health
from dropclass_deploy.serving.server.hosting import HostedModel
from dropclass_deploy.serving.server.refusals import RefusedRequestError
from dropclass_deploy.serving.server.settings import ServerSettings


class Openings:
    """Opens new segmenters, the first ``failures`` times with an error."""

    def __init__(self, failures: int = 0) -> None:
        self.made: list[RedSegmenter] = []
        self.failures = failures

    def __call__(self) -> RedSegmenter:
        if self.failures:
            self.failures -= 1
            raise UserError("no memory for it yet")
        self.made.append(RedSegmenter())
        return self.made[-1]


def opened(openings: Openings, **settings: Any) -> HostedModel:
    model = HostedModel("street", openings, ServerSettings(**settings))
    model.open()
    return model


def segment(model: HostedModel, *images: np.ndarray, timeout_s: float | None = None) -> list[np.ndarray]:
    results = asyncio.run(model.segment(images or (picture(),), timeout_s))
    return [result.segmentation.mask for result in results]


async def held(model: HostedModel, segmenter: RedSegmenter) -> asyncio.Task[Any]:
    """An image that the network has begun with and does not finish before ``segmenter.hold`` is set."""
    before = len(segmenter.batches)
    segmenter.hold.clear()
    running = asyncio.create_task(model.segment([picture()]))
    while len(segmenter.batches) == before:
        await asyncio.sleep(0.01)
    return running


def test_masks_come_back_in_order() -> None:
    model = opened(Openings())
    images = [picture(), picture(9, 4), picture(), picture(9, 4)]
    for mask, image in zip(segment(model, *images), images, strict=True):
        np.testing.assert_array_equal(mask, image[..., 0] % 4)
    assert model.waiting == 0
    model.close()


def test_a_bad_image_is_the_images_fault() -> None:
    openings = Openings()
    model = opened(openings)
    with pytest.raises(UserError, match="13 rows"):
        segment(model, picture(13, 4))
    assert model.ready
    assert len(openings.made) == 1
    model.close()


@pytest.mark.parametrize("error", [OutOfMemoryError("no more"), MemoryError(), RuntimeError("CUDA error: 700")])
def test_a_failing_network_is_not_ready_until_another_one_answers(error: Exception) -> None:
    openings = Openings()
    model = opened(openings)
    openings.made[0].broken = error
    openings.failures = 1
    with pytest.raises(RefusedRequestError) as caught:
        segment(model)
    assert (caught.value.status, caught.value.retry_after_s) == (503, 1)
    assert openings.made[0].closed
    assert not model.ready
    with pytest.raises(RefusedRequestError, match="not ready"):
        model.enter()
    until(lambda: model.ready)
    assert openings.failures == 0
    assert len(segment(model)) == 1
    assert len(openings.made) == 2
    model.close()
    assert openings.made[1].closed


def test_what_waits_behind_a_failure_is_told_at_once() -> None:
    openings = Openings()
    model = opened(openings, queue_size=8)

    async def three() -> list[Any]:
        segmenter = openings.made[0]
        await model.segment([picture()])
        first = await held(model, segmenter)
        others = [asyncio.create_task(model.segment([picture(9, 9)])) for _ in range(2)]
        await asyncio.sleep(0.05)
        segmenter.broken = RuntimeError("gone")
        openings.failures = 100
        segmenter.hold.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    first, *others = asyncio.run(three())
    assert len(first) == 1
    assert [(type(one), one.status) for one in others] == [(RefusedRequestError, 503)] * 2
    assert model.waiting == 0
    model.close()


def test_a_deadline_gives_the_place_back() -> None:
    openings = Openings()
    model = opened(openings)
    openings.made[0].hold.clear()
    with pytest.raises(RefusedRequestError, match=r"street had no answer within 0.1 s"):
        segment(model, timeout_s=0.1)
    openings.made[0].hold.set()
    until(lambda: model.waiting == 0)
    # Asking for more than the setting's is asking for the setting's.
    assert model.timeout_s(999) == 30
    assert model.timeout_s(None) == 30
    assert model.timeout_s(2) == 2
    model.close()


def test_a_task_that_is_cancelled_leaves_nothing_behind() -> None:
    openings = Openings()
    model = opened(openings, queue_size=8)

    async def leave() -> None:
        segmenter = openings.made[0]
        running = await held(model, segmenter)
        waiting = asyncio.create_task(model.segment([picture()]))
        await asyncio.sleep(0.05)
        assert model.waiting == 1
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert model.waiting == 0
        segmenter.hold.set()
        await running

    asyncio.run(leave())
    assert openings.made[0].batches == [1]
    model.close()


def test_closing_refuses_what_waits() -> None:
    segmenter = RedSegmenter()
    model = hosted(segmenter, queue_size=8)
    model.open()

    async def close_under_it() -> Any:
        running = await held(model, segmenter)
        waiting = asyncio.create_task(model.segment([picture()]))
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(asyncio.to_thread(model.close))
        await asyncio.sleep(0.05)
        segmenter.hold.set()
        await closing
        return await asyncio.gather(running, waiting, return_exceptions=True)

    running, waiting = asyncio.run(close_under_it())
    assert len(running) == 1
    assert (waiting.status, waiting.message) == (503, "the model street is not ready")


def test_a_network_that_cannot_run_the_canary_is_not_opened() -> None:
    segmenter = RedSegmenter()
    segmenter.broken = RuntimeError("no kernel image")
    health = Health("street", lambda: segmenter, None)
    with pytest.raises(RuntimeError, match="no kernel image"):
        health.open()
    assert segmenter.closed
    assert not health.ready


def test_what_waits_no_longer_holds_no_image() -> None:
    openings = Openings()
    model = opened(openings, queue_size=8)
    segmenter = openings.made[0]

    async def give_up() -> None:
        running = await held(model, segmenter)
        with pytest.raises(RefusedRequestError, match="had no answer"):
            await model.segment([picture(9, 9)], timeout_s=0.1)
        assert len(model._batcher._queue) == 0
        segmenter.hold.set()
        await running

    asyncio.run(give_up())
    model.close()


@pytest.mark.parametrize("error", [ArtifactError("/secret/model.onnx has changed"), SystemExit("a library's own")])
def test_our_own_files_and_rude_libraries_are_not_the_images_fault(error: BaseException) -> None:
    openings = Openings()
    model = opened(openings)
    segmenter = openings.made[0]
    right = segmenter.segment_batch

    def wrong(images: Any) -> Any:
        if images[0].shape[0] == 7:
            raise error
        return right(images)

    segmenter.segment_batch = wrong  # type: ignore[method-assign]
    if isinstance(error, ArtifactError):
        with pytest.raises(RefusedRequestError) as caught:
            segment(model, picture(7, 7))
        assert (caught.value.status, "secret" in caught.value.message) == (503, False)
        until(lambda: model.ready)
    else:
        with pytest.raises(SystemExit):
            segment(model, picture(7, 7))
    # The thread that runs the network lives.
    assert len(segment(model)) == 1
    model.close()


def test_bad_images_in_a_row_do_not_each_cost_a_second_run() -> None:
    openings = Openings()
    model = opened(openings)
    segmenter, runs = openings.made[0], []
    right = segmenter.segment_batch

    def counted(images: Any) -> Any:
        runs.append(images[0].shape[0])
        return right(images)

    segmenter.segment_batch = counted  # type: ignore[method-assign]
    for _ in range(5):
        with pytest.raises(UserError, match="13 rows"):
            segment(model, picture(13, 4))
    assert runs.count(13) == 5
    assert runs.count(64) == 1
    model.close()


def test_a_network_that_does_not_return_is_left_behind() -> None:
    openings = Openings()
    model = opened(openings)
    segmenter = openings.made[0]
    segmenter.hold.clear()
    with pytest.raises(RefusedRequestError):
        segment(model, timeout_s=0.05)
    assert not model.close(timeout_s=0.2)
    segmenter.hold.set()
    until(lambda: model.close(timeout_s=0.2))


def test_large_images_make_small_batches() -> None:
    openings = Openings()
    model = opened(openings, queue_size=16, max_batch=4, max_batch_pixels=200)
    segmenter = openings.made[0]

    async def many() -> None:
        await model.segment([picture(10, 10)])
        segmenter.hold.clear()
        tasks = [asyncio.create_task(model.segment([picture(10, 10)])) for _ in range(7)]
        await asyncio.sleep(0.2)
        segmenter.hold.set()
        await asyncio.gather(*tasks)

    asyncio.run(many())
    assert max(segmenter.batches) == 2
    model.close()
