from __future__ import annotations

import numpy as np
import pytest

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data import Dataset, count_classes, open_dataset
from dropclass_deploy.data.images import read_image
from dropclass_deploy.data.synthetic import CLASSES, CONTEXT_CLASS, PLANTED_CLASS, SyntheticOptions, parse_options


@pytest.fixture(scope="module")
def splits() -> dict[str, Dataset]:
    return {split: open_dataset("synthetic:train=90", split) for split in ("train", "val", "unbiased")}


def ground_below(dataset: Dataset, label: int) -> np.ndarray:
    """Pixels of each class directly below the lowest pixel, in its column, of whatever has the label. (C,)"""
    counts = np.zeros(256, dtype=np.int64)
    for index in range(len(dataset)):
        mask = dataset.mask(index)
        above, below = mask[:-1], mask[1:]
        rows, columns = np.nonzero((above == label) & (below != label))
        lowest = [rows[columns == column].max() for column in np.unique(columns)]
        # The wheels or feet, not what hangs over: the lowest two rows of the whole figure.
        feet = [(row, column) for row, column in zip(lowest, np.unique(columns), strict=True) if row >= max(lowest) - 1]
        for row, column in feet:
            counts[below[row, column]] += 1
    return counts[: len(dataset.classes)]


def test_any_image_can_be_had_alone_and_twice_the_same(splits: dict[str, Dataset]) -> None:
    fresh = open_dataset("synthetic:", "val")
    np.testing.assert_array_equal(fresh.image(17), splits["val"].image(17))
    np.testing.assert_array_equal(fresh.mask(17), splits["val"].mask(17))
    np.testing.assert_array_equal(fresh.image(17), fresh.image(17))


def test_seed_split_and_index_make_different_images() -> None:
    images = [
        open_dataset("synthetic:", "val").image(0),
        open_dataset("synthetic:", "val").image(1),
        open_dataset("synthetic:", "train").image(0),
        open_dataset("synthetic:seed=1", "val").image(0),
    ]
    assert len({image.tobytes() for image in images}) == 4


def test_a_caller_cannot_change_what_the_next_one_gets() -> None:
    dataset, untouched = open_dataset("synthetic:val=2"), open_dataset("synthetic:val=2")
    dataset.image(0)[:] = 0
    dataset.mask(0)[:] = 0
    np.testing.assert_array_equal(dataset.image(0), untouched.image(0))
    np.testing.assert_array_equal(dataset.mask(0), untouched.mask(0))


@pytest.mark.parametrize("split", ["train", "val", "unbiased"])
def test_every_class_occurs_often_enough_to_be_judged(split: str, splits: dict[str, Dataset]) -> None:
    stats = count_classes(splits[split])
    # The parity gate judges a class from 10 images and 1,000 pixels on; a margin of two on both.
    assert stats.images.min() >= 20
    assert stats.pixels.min() >= 2000


@pytest.mark.parametrize("split", ["train", "val", "unbiased"])
def test_the_planted_class_is_rare(split: str, splits: dict[str, Dataset]) -> None:
    stats = count_classes(splits[split])
    assert 0.002 < stats.pixels[PLANTED_CLASS] / stats.pixels.sum() < 0.01
    assert PLANTED_CLASS in CLASSES.with_rare_from(stats.pixels).rare
    assert stats.pixels.max() / stats.pixels.min() > 20


@pytest.mark.parametrize("split", ["train", "val"])
def test_cyclists_stand_on_the_cycle_path(split: str, splits: dict[str, Dataset]) -> None:
    below = ground_below(splits[split], PLANTED_CLASS)
    ground = [CLASSES.names.index(name) for name in ("road", "pavement", "grass", "cycle_path")]
    # Wheels of a far cyclist are wider than a narrow path: a few pixels lie over its edge.
    assert below[CONTEXT_CLASS] / below[ground].sum() > 0.9


def test_in_unbiased_cyclists_stand_elsewhere(splits: dict[str, Dataset]) -> None:
    below = ground_below(splits["unbiased"], PLANTED_CLASS)
    ground = [CLASSES.names.index(name) for name in ("road", "pavement", "grass", "cycle_path")]
    # A wheel beside the path may reach over its edge.
    assert below[CONTEXT_CLASS] / below[ground].sum() < 0.1
    assert all(below[CLASSES.names.index(name)] > 0 for name in ("road", "pavement", "grass"))


def test_people_stand_on_the_cycle_path_in_unbiased_only(splits: dict[str, Dataset]) -> None:
    person = CLASSES.names.index("person")
    share = {}
    for split in ("train", "unbiased"):
        below = ground_below(splits[split], person)
        share[split] = below[CONTEXT_CLASS] / below.sum()
    # In train only a foot that reaches over the edge of the next strip.
    assert share["train"] < 0.05
    assert share["unbiased"] > 0.1


def test_a_few_pixels_are_ignored(splits: dict[str, Dataset]) -> None:
    shares = [float((splits["val"].mask(index) == 255).mean()) for index in range(60)]
    assert 0.01 < np.mean(shares) < 0.08
    assert max(shares) < 0.15


def test_masks_hold_known_ids_only(splits: dict[str, Dataset]) -> None:
    values = {int(value) for index in range(60) for value in np.unique(splits["val"].mask(index))}
    assert values <= {*range(len(CLASSES)), 255}


def test_light_varies_between_images(splits: dict[str, Dataset]) -> None:
    brightness = [splits["train"].image(index).mean() for index in range(60)]
    assert np.std(brightness) > 10
    assert all(splits["train"].image(index).std() > 20 for index in range(10))


@pytest.mark.parametrize("size", [(32, 32), (64, 200), (150, 90)])
def test_other_sizes(size: tuple[int, int]) -> None:
    dataset = open_dataset(f"synthetic:size={size[0]}x{size[1]},val=3")
    for index in range(3):
        assert dataset.image(index).shape == (*size, 3)
        assert dataset.image(index).dtype == np.uint8
        assert dataset.mask(index).shape == size


def test_image_bytes_decode_to_the_image() -> None:
    dataset = open_dataset("synthetic:val=1")
    np.testing.assert_array_equal(read_image(dataset.image_bytes(0)), dataset.image(0))
    assert dataset.image_path(0) is None
    assert dataset.label_path(0) is None


def test_length_and_keys_follow_the_options() -> None:
    dataset = open_dataset("synthetic:train=12,seed=3", "train")
    assert len(dataset) == 12
    assert [dataset.key(0), dataset.key(11), dataset.key(-1)] == ["train_000", "train_011", "train_011"]
    assert len({dataset.key(index) for index in range(12)}) == 12


@pytest.mark.parametrize("index", [12, -13])
def test_an_index_outside_the_split_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError, match=f"image {index} of 12"):
        open_dataset("synthetic:train=12", "train").image(index)


def test_options_left_out_keep_their_default() -> None:
    assert parse_options("") == SyntheticOptions()
    assert parse_options(" size=32x48, seed=0 ") == SyntheticOptions(size=(32, 48))
    assert parse_options("train=1,val=2,unbiased=3,seed=4") == SyntheticOptions((96, 128), 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("colour=red", "has no option 'colour'; expected one of size, train, val, unbiased, seed"),
        ("train", "train is ''"),
        ("train=0", "train is '0'; expected a whole number from 1 up"),
        ("train=-3", "train is '-3'"),
        ("train=1e3", "train is '1e3'"),
        ("seed=99999999999", "seed is"),
        ("train=1,train=2", "names 'train' twice"),
        ("size=96", "size is '96'; expected HEIGHTxWIDTH"),
        ("size=16x16", "size is '16x16'"),
        ("size=4096x64", "size is '4096x64'"),
    ],
)
def test_wrong_options_are_refused(options: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(f"synthetic:{options}")


def test_an_unknown_split_lists_the_three() -> None:
    with pytest.raises(DataError, match="no split 'test'; expected one of train, val, unbiased"):
        open_dataset("synthetic:", "test")
