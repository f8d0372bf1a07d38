"""Preprocessing: one formula, one digest."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.core.preprocess import Preprocess, window

# A digest that changes silently would make every artifact already written fail its gate.
DIGEST_OF_DEFAULT = "9f78ae2182f7f7cc4cebaec661be3a2ac45b8292a2fcb754e73aa709e211b83a"


def test_digest_of_the_default_never_changes() -> None:
    assert Preprocess().digest() == DIGEST_OF_DEFAULT


def test_digest_survives_json_and_the_order_of_keys() -> None:
    preprocess = Preprocess(mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5), size=(64, 96))
    shuffled = dict(reversed(list(preprocess.model_dump(mode="json").items())))
    assert Preprocess.model_validate_json(json.dumps(shuffled)).digest() == preprocess.digest()


def test_digest_does_not_care_how_a_number_is_spelled() -> None:
    assert Preprocess.model_validate({"mean": [0, 0, 0]}).digest() == Preprocess(mean=(0.0, 0.0, 0.0)).digest()


@pytest.mark.parametrize(
    "other",
    [
        Preprocess(mean=(0.456, 0.485, 0.406)),
        Preprocess(std=(0.229, 0.224, 0.2250001)),
        Preprocess(size=(360, 480)),
        Preprocess(size=(480, 360)),
    ],
)
def test_digest_tells_apart(other: Preprocess) -> None:
    assert other.digest() != Preprocess().digest()


def test_height_and_width_are_not_interchangeable() -> None:
    assert Preprocess(size=(360, 480)).digest() != Preprocess(size=(480, 360)).digest()


def test_normalise_equals_the_formula_in_float64() -> None:
    preprocess = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    every = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    exact = (every / 255.0 - np.array(preprocess.mean)) / np.array(preprocess.std)
    # Four float32 roundings (scale, shift, product, sum) of values up to 4.5: at most 4 · 2^-24 · 4.5 ≈ 1.1e-6.
    np.testing.assert_allclose(preprocess.normalise(every)[0], exact.transpose(2, 0, 1), rtol=0, atol=1.2e-6)


def test_normalise_keeps_red_green_blue() -> None:
    image = np.zeros((1, 1, 3), np.uint8)
    image[0, 0] = (255, 0, 51)
    plain = Preprocess(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    # 51/255 = 0.2 is the only value rounded: half a float32 step of a product near 0.2, twice.
    np.testing.assert_allclose(plain.normalise(image).ravel(), [1.0, 0.0, 0.2], rtol=0, atol=6e-8)


def test_normalise_gives_contiguous_float32_planes() -> None:
    planes = Preprocess().normalise(np.zeros((2, 5, 7, 3), np.uint8))
    assert (planes.shape, planes.dtype) == ((2, 3, 5, 7), np.float32)
    assert planes.flags.c_contiguous


def test_normalise_makes_a_batch_of_one_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(Preprocess().normalise(image), Preprocess().normalise(image[None]))


def test_normalise_leaves_its_input_alone() -> None:
    image = np.full((2, 2, 3), 9, np.uint8)
    Preprocess().normalise(image)
    assert (image == 9).all()


def test_normalise_treats_each_image_alike() -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    single = np.concatenate([Preprocess().normalise(image) for image in images])
    np.testing.assert_array_equal(Preprocess().normalise(images), single)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"std": (0.0, 1.0, 1.0)}, "above 0"),
        ({"std": (-1.0, 1.0, 1.0)}, "above 0"),
        ({"std": (float("inf"), 1.0, 1.0)}, "std finite"),
        ({"mean": (float("nan"), 0.0, 0.0)}, "mean must be finite"),
        ({"mean": (0.5, 0.5)}, "Field required"),
        ({"size": (0, 10)}, "at least 1"),
        ({"size": (10,)}, "Field required"),
        ({"interpolation": "nearest"}, "Extra inputs"),
        ({"value_range": (5, 5)}, "finite, low below high"),
        ({"value_range": (5, 4)}, "finite, low below high"),
        ({"value_range": (float("nan"), 4)}, "finite, low below high"),
        ({"value_range": (0, float("inf"))}, "finite, low below high"),
        ({"value_range": (-1e308, 1e308)}, "finite, low below high"),
        ({"value_range": ("a", "b")}, "valid number"),
        ({"value_range": (0, 1, 2)}, "at most 2"),
    ],
)
def test_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Preprocess.model_validate(fields)


def test_an_absent_range_is_written_nowhere() -> None:
    # Readers of versions that knew no range refuse unknown keys.
    assert set(Preprocess().model_dump()) == set(json.loads(Preprocess().model_dump_json())) == {"mean", "std", "size"}


def test_a_range_is_written_read_and_part_of_the_digest() -> None:
    ranged = Preprocess(value_range=(0, 4095))
    assert json.loads(ranged.model_dump_json())["value_range"] == [0.0, 4095.0]
    assert Preprocess.model_validate_json(ranged.model_dump_json()) == ranged
    assert ranged.digest() == Preprocess(value_range=(0.0, 4095.0)).digest()
    assert len({ranged.digest(), Preprocess().digest(), Preprocess(value_range=(0, 4096)).digest()}) == 3


def test_window_by_hand() -> None:
    # 255/4095 a step: 8 steps are 0.498, 9 are 0.560, 2047 are 127.47, 2048 are 127.53.
    raw = np.array([[0, 8, 9], [2047, 2048, 4095], [-1, 5000, 65535]])
    grey = [[0, 0, 1], [127, 128, 255], [0, 255, 255]]
    image = window(raw, (0, 4095))
    assert (image.dtype, image.shape) == (np.uint8, (3, 3, 3))
    for channel in range(3):
        assert image[..., channel].tolist() == grey


def test_window_gives_halves_to_the_even_neighbour() -> None:
    assert window(np.array([[0.5, 1.5, 2.5]]), (0, 255))[0, :, 0].tolist() == [0, 2, 2]


def test_window_of_the_full_byte_range_changes_nothing() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(window(every, (0, 255))[..., 1], every)


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.int64, np.float32, np.float64])
def test_window_takes_negative_values_of_any_type(kind: type) -> None:
    assert window(np.array([[-1000, -500, 1000]], dtype=kind), (-1000, 1000))[0, :, 0].tolist() == [0, 64, 255]


def test_window_clips_infinity_and_overflow_and_refuses_nan() -> None:
    extreme = np.array([[-np.inf, np.inf, 1.7e308, -1.7e308]])
    assert window(extreme, (0, 1e-300))[0, :, 0].tolist() == [0, 255, 255, 0]
    with pytest.raises(DataError, match=r"scan\.tif holds NaN at 1 of 2 pixels; expected numbers; give"):
        window(np.array([[np.nan, 1]]), (0, 1), "scan.tif")


def test_other_ranges_are_refused_with_what_to_write() -> None:
    ranged, plain = Preprocess(value_range=(0, 4095)), Preprocess()
    ranged.check_value_range((0.0, 4095.0), "model", "data")
    plain.check_value_range(None, "model", "data")
    with pytest.raises(
        DataError, match=r"data has no value range and model the value range 0 … 4095; .*\[0\.0, 4095\.0\]"
    ):
        ranged.check_value_range(None, "model", "data")
    with pytest.raises(
        DataError, match=r"data has the value range 0 … 255 and model no value range; .*leave value_range"
    ):
        plain.check_value_range((0.0, 255.0), "model", "data")
