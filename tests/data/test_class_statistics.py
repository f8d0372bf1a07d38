from __future__ import annotations

import numpy as np
import pytest

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data import ClassStatistics, Dataset, count_classes, median_frequency_weights


class Masks(Dataset):
    """Masks in memory."""

    def __init__(self, *masks: np.ndarray, names: tuple[str, ...] = ("a", "b", "c")) -> None:
        self.spec, self.split, self.classes = "memory:", "train", ClassTable(names=names)
        self._masks = masks

    def __len__(self) -> int:
        return len(self._masks)

    def key(self, index: int) -> str:
        return f"mask {index}"

    def image(self, index: int) -> np.ndarray:
        return np.zeros((*self._masks[index].shape, 3), dtype=np.uint8)

    def mask(self, index: int) -> np.ndarray:
        return self._masks[index]


def mask_of(*rows: list[int]) -> np.ndarray:
    return np.array(rows, dtype=np.uint8)


def test_hand_worked_counts() -> None:
    stats = count_classes(Masks(mask_of([0, 0], [1, 255]), mask_of([0, 0], [0, 0])))
    assert stats.pixels.tolist() == [6, 1, 0]
    assert stats.images.tolist() == [2, 1, 0]
    # a occurs in both images (3 + 4 labelled pixels), b in the first only (3).
    assert stats.pixels_where_present.tolist() == [7, 3, 0]
    assert stats.num_images == 2
    assert stats.by_image.tolist() == [[2, 1, 0], [4, 0, 0]]


def test_hand_worked_weights() -> None:
    stats = count_classes(Masks(mask_of([0, 0], [1, 255]), mask_of([0, 0], [0, 0])))
    # frequencies 6/7 and 1/3; their median is 25/42; the absent class gets 0.
    expected = [25 / 42 * 7 / 6, 25 / 42 * 3, 0.0]
    # Three float64 operations a weight.
    np.testing.assert_allclose(median_frequency_weights(stats), expected, rtol=1e-14)


def test_counts_agree_with_a_loop_over_pixels() -> None:
    rng = np.random.default_rng(0)
    masks = [rng.choice([0, 1, 2, 255], (5, 4), p=(0.6, 0.3, 0.02, 0.08)).astype(np.uint8) for _ in range(6)]
    pixels, images, present = [0] * 3, [0] * 3, [0] * 3
    for mask in masks:
        flat = [int(value) for value in mask.ravel()]
        for index in range(3):
            pixels[index] += flat.count(index)
            images[index] += index in flat
            present[index] += sum(value != 255 for value in flat) if index in flat else 0
    stats = count_classes(Masks(*masks))
    assert (stats.pixels.tolist(), stats.images.tolist()) == (pixels, images)
    assert stats.pixels_where_present.tolist() == present
    assert 0 < images[2] < 6


def test_the_class_of_median_frequency_has_weight_one() -> None:
    stats = ClassStatistics.of(np.array([[90, 9, 1]], dtype=np.uint32))
    # 9/9 = 1, 9/90, 9/1: one division of float64 each.
    np.testing.assert_allclose(median_frequency_weights(stats), [0.1, 1.0, 9.0], rtol=1e-14)


def test_no_labelled_pixel_gives_zero_weights_without_a_warning() -> None:
    stats = count_classes(Masks(np.full((2, 2), 255, dtype=np.uint8)))
    assert stats.pixels.tolist() == [0, 0, 0]
    assert median_frequency_weights(stats).tolist() == [0.0, 0.0, 0.0]


def test_progress_counts_every_mask() -> None:
    calls: list[tuple[int, int]] = []
    count_classes(Masks(*[mask_of([0])] * 3), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_an_id_outside_the_table_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"mask of 'mask 1' holds class id 3; expected 0 … 2, or 255"):
        count_classes(Masks(mask_of([0]), mask_of([3])))


def test_a_data_set_without_files_encodes_its_images() -> None:
    masks = Masks(mask_of([0]))
    assert masks.image_bytes(0).startswith(b"\x89PNG")
    assert masks.image_path(0) is None
    assert masks.label_path(0) is None
