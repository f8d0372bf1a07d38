"""Decoding ahead of the network: the same images, errors and scores, and no thread left."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_network import SmallNetwork

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import DataError
from dropclass_deploy.core.metrics import confusion_matrix, scores
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import Pixels
from dropclass_deploy.training.batches import ahead
from dropclass_deploy.training.batches.ahead import decoded_ahead
from dropclass_deploy.training.evaluate import EvaluationStoppedError, TorchSegmenter, evaluate_network


class Counting(Dataset):
    """Twenty images as files would be, which notes what was asked for and fails where it is told to."""

    spec, split = "counting:", "val"
    classes = ClassTable(names=("a", "b"))

    def __init__(self, broken: tuple[int, ...] = (), *, files: bool = True) -> None:
        self.asked: list[tuple[int, str]] = []
        self.broken, self.files = broken, files

    def __len__(self) -> int:
        return 20

    def key(self, index: int) -> str:
        return f"{index:02d}"

    def image_path(self, index: int) -> Path | None:
        return Path(self.key(index)) if self.files else None

    def image(self, index: int) -> Pixels:
        self.asked.append((index, threading.current_thread().name))
        # The later, the quicker: whoever takes them as they come takes them in the wrong order.
        time.sleep(0.002 * (20 - index) / 20)
        if index in self.broken:
            raise DataError(f"image {index} is broken")
        return np.random.default_rng(index).integers(0, 256, (9, 12, 3), dtype=np.uint8)

    def mask(self, index: int) -> Pixels:
        return np.random.default_rng(index + 100).integers(0, 2, (9, 12), dtype=np.uint8)


def decoders() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.fixture(autouse=True)
def three_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "usable_cores", lambda: 3)


def test_images_come_in_order_whichever_is_decoded_first() -> None:
    dataset = Counting()
    order = [7, 3, 19, 0, 5, 5, 12]
    for index, (image, mask) in zip(order, decoded_ahead(dataset, order), strict=True):
        assert np.array_equal(image, dataset.image(index))
        assert np.array_equal(mask, dataset.mask(index))
    assert decoders() == []


def test_no_more_than_two_images_a_thread_are_held() -> None:
    dataset = Counting()
    pairs = decoded_ahead(dataset, range(20))
    next(pairs)
    time.sleep(0.05)
    assert len(dataset.asked) == 7  # the one taken, and six ahead
    pairs.close()
    assert decoders() == []
    assert len(dataset.asked) == 7


def test_images_in_memory_take_no_threads() -> None:
    dataset = Counting(files=False)
    assert len(list(decoded_ahead(dataset, range(20)))) == 20
    assert {name for _, name in dataset.asked} == {threading.current_thread().name}


def evaluated(dataset: Dataset, stop_after: int | None = None) -> object:
    torch.manual_seed(0)
    done: list[int] = []
    return evaluate_network(
        SmallNetwork(2),
        dataset,
        Preprocess(),
        advance=lambda now, total, status="", /: done.append(now),
        stop=None if stop_after is None else lambda: len(done) >= stop_after,
    )


def test_the_scores_are_those_of_one_image_after_the_other() -> None:
    dataset, model = Counting(), SmallNetwork(2).eval()
    segment, total = TorchSegmenter(model, Preprocess()), np.zeros((2, 2), np.int64)
    for index in range(20):
        total += confusion_matrix(dataset.mask(index), segment(dataset.image(index)), 2, 255)
    result = evaluate_network(SmallNetwork(2), dataset, Preprocess())
    assert np.array_equal(result.iou, scores(total, ()).iou)
    assert result.miou == scores(total, ()).miou


def test_the_first_broken_image_is_told_and_no_thread_is_left() -> None:
    # The second of them is decoded sooner than the first.
    with pytest.raises(DataError, match="image 8 is broken"):
        evaluated(Counting(broken=(8, 9)))
    assert decoders() == []


def test_an_evaluation_that_is_stopped_leaves_off_after_the_image_at_hand() -> None:
    dataset = Counting()
    with pytest.raises(EvaluationStoppedError):
        evaluated(dataset, stop_after=3)
    assert decoders() == []
    assert len(dataset.asked) <= 3 + 6


def test_a_network_that_fails_leaves_no_thread() -> None:
    class Failing(SmallNetwork):
        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            raise ArithmeticError("no")

    with pytest.raises(ArithmeticError, match="no"):
        evaluate_network(Failing(2), Counting(), Preprocess())
    assert decoders() == []


def test_files_are_read_through_it(tmp_path: Path) -> None:
    from dropclass_deploy.data.registry import open_dataset

    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    rng = np.random.default_rng(0)
    for index in range(5):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{index}.png")
        Image.fromarray(rng.integers(0, 2, (8, 8), dtype=np.uint8)).save(tmp_path / "masks" / f"{index}.png")
    (tmp_path / "classes.yaml").write_text("classes: [{name: a}, {name: b}]\nsplits: {train: ['[0]'], val: ['[1-4]']}")
    dataset = open_dataset(f"folder:{tmp_path}", "val")
    got = list(decoded_ahead(dataset, range(len(dataset))))
    assert all(np.array_equal(image, dataset.image(index)) for index, (image, _) in enumerate(got))
    (tmp_path / "images" / "3.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"3\.png"):
        list(decoded_ahead(dataset, range(len(dataset))))
