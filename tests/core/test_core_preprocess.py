"""Preprocessing: one formula, one digest."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError

from dropclass_deploy.core.preprocess import Preprocess

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
    ],
)
def test_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Preprocess.model_validate(fields)
