"""A server inside the test, around a segmenter whose masks are known: the red channel modulo 4."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.images import ImageLimits, encode_png, read_image
from dropclass_deploy.serving.segmentation import Segmentation
from dropclass_deploy.serving.server.app import create_app
from dropclass_deploy.serving.server.hosting import HostedModel
from dropclass_deploy.serving.server.settings import ServerSettings

CLASSES = ClassTable(names=("sky", "road", "car", "pole"), rare=(2, 3))
RNG = np.random.default_rng(5)


class RedSegmenter:
    """Counts its runs; ``hold`` keeps them waiting, ``broken`` makes them fail, images of 13 rows are refused."""

    def __init__(self, run_s: float = 0.0) -> None:
        self.classes = CLASSES
        self.preprocess = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        self.run_s = run_s
        self.batches: list[int] = []
        self.hold = threading.Event()
        self.hold.set()
        self.broken: Exception | None = None
        self.closed = False

    def read_image(self, source: Path | bytes, limits: ImageLimits | None = None) -> np.ndarray:
        return read_image(source, None, limits or ImageLimits())

    def batch_key(self, image: np.ndarray) -> Hashable:
        return image.shape

    def segment_batch(self, images: Sequence[np.ndarray]) -> list[Segmentation]:
        assert not self.closed
        if self.broken is not None:
            raise self.broken
        if any(image.shape[0] == 13 for image in images):
            raise UserError("the network cannot take 13 rows")
        # The canary, a grey image of one size or another, is never held.
        if (images[0] != 128).any():
            self.batches.append(len(images))
            assert self.hold.wait(20)
            time.sleep(self.run_s)
        stages = {"preprocess": 0.25, "infer": 2.0, "mask": 0.5}
        return [Segmentation(image[..., 0] % 4, self.classes.names, dict(stages)) for image in images]

    def close(self) -> None:
        self.closed = True


def picture(height: int = 6, width: int = 8) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(height: int = 6, width: int = 8) -> bytes:
    return encode_png(picture(height, width))


def hosted(segmenter: Any = None, name: str = "street", **settings: Any) -> HostedModel:
    opened = segmenter or RedSegmenter()
    return HostedModel(name, lambda: opened, ServerSettings(**settings))


@contextmanager
def client(*segmenters: Any, **settings: Any) -> Iterator[TestClient]:
    """A client of a server around segmenters named "street", "street2" …, all of them ready."""
    configured = ServerSettings(**{"access_log": False, **settings})
    models = [
        HostedModel(f"street{number or ''}", _opener(segmenter), configured)
        for number, segmenter in enumerate(segmenters or (RedSegmenter(),))
    ]
    with TestClient(create_app(models, configured)) as opened:
        until(lambda: all(model.ready for model in models))
        yield opened


def _opener(segmenter: Any) -> Callable[[], Any]:
    return segmenter if callable(segmenter) else lambda: segmenter


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for something that another thread does."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
