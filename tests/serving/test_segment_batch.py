"""Images run together: the same masks as one by one."""

from pathlib import Path

import numpy as np
import pytest
from serving_builders import PLAIN, write_artifact

from dropclass_deploy.core.errors import OutOfMemoryError, UserError
from dropclass_deploy.core.sliding_window import Window
from dropclass_deploy.data.images import encode_png
from dropclass_deploy.serving import Segmenter
from dropclass_deploy.serving.runtimes.memory import refuse_out_of_memory

RNG = np.random.default_rng(3)


def images(*sizes: tuple[int, int]) -> list[np.ndarray]:
    return [RNG.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.mark.parametrize(
    ("preprocess", "shape"),
    [
        (PLAIN, (None, None, None)),
        (PLAIN.model_copy(update={"size": (12, 16)}), (None, None, None)),
        (PLAIN, (2, 12, 16)),
        (PLAIN.model_copy(update={"window": Window(height=8, width=8, overlap=0.5)}), (None, None, None)),
    ],
    ids=["own size", "resized", "static batch", "windows"],
)
def test_a_batch_gives_what_single_images_give(tmp_path: Path, preprocess, shape) -> None:
    artifact = write_artifact(tmp_path / "a", preprocess=preprocess, shape=shape)
    given = images((12, 16), (20, 9), (12, 16), (12, 16), (20, 9), (8, 8), (40, 40))
    with Segmenter.load(artifact) as segmenter:
        together = segmenter.segment_batch(given)
        alone = [segmenter(image) for image in given]
        assert segmenter.segment_batch([]) == []
    for one, other, image in zip(together, alone, given, strict=True):
        assert one.mask.shape == image.shape[:2]
        # A 3×3 convolution of a few sums: no rounding comes near a tie.
        np.testing.assert_array_equal(one.mask, other.mask)
        assert set(one.latency_ms) == {"preprocess", "infer", "mask"}


def test_every_stage_from_bytes_to_png(tmp_path: Path) -> None:
    image = images((12, 16))[0]
    with Segmenter.load(write_artifact(tmp_path / "a")) as segmenter:
        result = segmenter.segment_bytes(encode_png(image))
        assert result.png() == encode_png(segmenter(image).mask)
    assert list(result.latency_ms) == ["decode", "preprocess", "infer", "mask", "encode"]
    assert min(result.latency_ms.values()) > 0


def test_who_may_run_together(tmp_path: Path) -> None:
    small, large, same = images((12, 16), (24, 32), (12, 16))
    with Segmenter.load(write_artifact(tmp_path / "own")) as segmenter:
        assert segmenter.batch_key(small) == segmenter.batch_key(same) != segmenter.batch_key(large)
    fixed = PLAIN.model_copy(update={"size": (12, 16)})
    with Segmenter.load(write_artifact(tmp_path / "fixed", preprocess=fixed)) as segmenter:
        # Through the mask file, and through the logits file.
        assert segmenter.batch_key(small) != segmenter.batch_key(large)
        assert segmenter.batch_key(large) == segmenter.batch_key(images((99, 7))[0])


def test_one_bad_image_refuses_the_batch(tmp_path: Path) -> None:
    with Segmenter.load(write_artifact(tmp_path / "a")) as segmenter, pytest.raises(UserError, match="float32"):
        segmenter.segment_batch([*images((8, 8)), np.zeros((8, 8, 3), np.float32)])


@pytest.mark.parametrize(
    "words",
    ["Failed to allocate memory for requested buffer of size 99", "std::bad_alloc", "CUDA error: out of memory"],
)
def test_running_out_of_memory_is_not_the_images_fault(words: str) -> None:
    with pytest.raises(OutOfMemoryError, match="onnxruntime ran out of memory"):
        refuse_out_of_memory("onnxruntime", RuntimeError(words))
    refuse_out_of_memory("onnxruntime", RuntimeError("Invalid dimension"))
