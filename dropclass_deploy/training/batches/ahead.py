"""Images decoded while the network is at work on the ones before."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import Pixels
from dropclass_deploy.training.batches.workers import usable_cores

_MAX_THREADS = 4
_IMAGES_A_THREAD = 2

Decoded = tuple[Pixels, Pixels]


def decoded_ahead(dataset: Dataset, indices: Sequence[int]) -> Generator[Decoded, None, None]:
    """Image uint8 (H, W, 3) and mask uint8 (H, W) of each index, in order; close it when it is not used up.

    Files are decoded by a few threads (Pillow lets others run meanwhile), at most two images each ahead of the one taken;
    images in memory are taken as they come. No thread outlives the iteration.

    Raises:
        DataError: for a file that cannot be read, when its turn has come.
    """
    if len(indices) < 2 or dataset.image_path(indices[0]) is None:
        yield from (_decoded(dataset, index) for index in indices)
        return
    threads = min(_MAX_THREADS, usable_cores(), len(indices))
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        waiting: deque[Future[Decoded]] = deque()
        try:
            for index in indices:
                waiting.append(pool.submit(_decoded, dataset, index))
                if len(waiting) > threads * _IMAGES_A_THREAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _decoded(dataset: Dataset, index: int) -> Decoded:
    return dataset.image(index), dataset.mask(index)
