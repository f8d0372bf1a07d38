"""Windows over images: positions by hand, weights and blending against MONAI's own."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.sliding_window import Window, blended_rows, central_window, window_starts

with warnings.catch_warnings():
    # MONAI warns about its own dependencies while it is imported.
    warnings.simplefilter("ignore")
    from monai.data.utils import compute_importance_map, dense_patch_slices
    from monai.inferers.utils import sliding_window_inference

PLAIN = Preprocess(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
EVERYWHERE = Window(height=12, width=16, overlap=0.5)


@pytest.mark.parametrize(
    ("length", "window", "overlap", "expected"),
    [
        (10, 4, 0.0, (0, 4, 6)),  # the last one is moved back
        (8, 4, 0.0, (0, 4)),
        (10, 4, 0.5, (0, 2, 4, 6)),
        (10, 4, 0.25, (0, 3, 6)),
        (4, 4, 0.5, (0,)),
        (3, 4, 0.5, (0,)),
        (5, 4, 0.0, (0, 1)),
        (5, 2, 0.99, (0, 1, 2, 3)),  # at least a pixel on
    ],
)
def test_window_starts_by_hand(length: int, window: int, overlap: float, expected: tuple[int, ...]) -> None:
    assert window_starts(length, window, overlap) == expected


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25, 0.3, 0.5, 0.7, 0.9])
def test_window_starts_are_monais(overlap: float) -> None:
    for window in (1, 2, 5, 7, 16):
        interval = max(1, int(window * (1 - overlap)))
        for length in range(window + 1, 60):
            expected = dense_patch_slices((length,), (window,), (interval,), return_slice=False)
            assert window_starts(length, window, overlap) == tuple(item[0][0] for item in expected)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (12, 16), (64, 48)])
@pytest.mark.parametrize("blending", ["constant", "gaussian"])
def test_weights_are_monais(size: tuple[int, int], blending: Any) -> None:
    found = Window(height=size[0], width=size[1], blending=blending).weights()
    # One exponential and one product in float32: a few roundings.
    np.testing.assert_allclose(found, compute_importance_map(size, blending).numpy(), rtol=1e-6)
    assert found.dtype == np.float32


def network(planes: np.ndarray) -> np.ndarray:
    """A 3×3 convolution that sees the border of its window; random but fixed."""
    kernel = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 3, 3, 3)).astype(np.float32))
    return torch.nn.functional.conv2d(torch.from_numpy(planes), kernel, padding=1).numpy()


@pytest.mark.parametrize("padding", ["constant", "reflect", "replicate"])
@pytest.mark.parametrize("blending", ["constant", "gaussian"])
@pytest.mark.parametrize("size", [(12, 16), (30, 41), (13, 64), (12, 50), (9, 40), (11, 13), (50, 15)])
def test_blended_logits_are_monais(size: tuple[int, int], blending: Any, padding: Any) -> None:
    window = Window(height=12, width=16, overlap=0.4, blending=blending, padding=padding)
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    strips = list(blended_rows(image, window, PLAIN.normalise, network, batch=3))
    found = np.concatenate(strips, axis=1)
    expected = sliding_window_inference(
        torch.from_numpy(PLAIN.normalise(image)),
        window.size,
        3,
        lambda planes: torch.from_numpy(network(planes.numpy())),
        overlap=window.overlap,
        mode=blending,
        padding_mode=padding,
    )
    # Logits up to about 60, a sum of a few of them in float32.
    np.testing.assert_allclose(found, expected[0].numpy(), rtol=0, atol=5e-5)
    assert (found.shape[1:], found.dtype) == (size, np.float32)
    # Rows are handed on as soon as no window reaches them any more.
    assert len(strips) == len(window_starts(size[0], 12, 0.4))


def test_no_more_windows_at_once_than_asked() -> None:
    seen: list[int] = []

    def counting(planes: np.ndarray) -> np.ndarray:
        seen.append(len(planes))
        return network(planes)

    image = np.zeros((12, 100, 3), np.uint8)
    list(blended_rows(image, Window(height=12, width=16, overlap=0.0), PLAIN.normalise, counting, batch=4))
    assert seen == [4, 3]


def test_central_window_by_hand() -> None:
    image = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    np.testing.assert_array_equal(central_window(image, Window(height=3, width=3), (0, 0, 0)), image[1:4, 2:5])
    padded = central_window(image, Window(height=8, width=7), (1.0, 0.5, 0.0))
    np.testing.assert_array_equal(padded[1:6], image)
    assert padded[0, 0].tolist() == [255, 128, 0]
    assert padded[7, 6].tolist() == [255, 128, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"height": 0, "width": 4}, "each at least 1"),
        ({"height": 2**20, "width": 2**20}, "at most"),
        ({"height": 4, "width": 4, "overlap": 1.0}, "share from 0 to below 1"),
        ({"height": 4, "width": 4, "overlap": 0.9999999}, "less than a pixel apart"),
        ({"height": 64, "width": 4, "overlap": 0.8}, "less than a pixel apart"),
        ({"height": 4, "width": 4, "overlap": -0.1}, "share from 0 to below 1"),
        ({"height": 4, "width": 4, "overlap": float("nan")}, "share from 0 to below 1"),
        ({"height": 4, "width": 4, "blending": "cosine"}, "'constant' or 'gaussian'"),
        ({"height": 4, "width": 4, "padding": "circular"}, "'constant', 'reflect' or 'replicate'"),
        ({"height": 4, "width": 4, "stride": 2}, "Extra inputs"),
    ],
)
def test_impossible_windows_are_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Window.model_validate(content)


def test_preprocess_carries_the_window_in_its_file_and_digest() -> None:
    windowed = PLAIN.model_copy(update={"window": EVERYWHERE})
    assert Preprocess.model_validate_json(windowed.model_dump_json()) == windowed
    assert json.loads(windowed.model_dump_json())["window"]["overlap"] == 0.5
    digests = {
        Preprocess(window=Window(height=4, width=4, **change)).digest()
        for change in ({}, {"overlap": 0.5}, {"blending": "gaussian"}, {"padding": "reflect"})
    }
    assert len(digests | {Preprocess().digest()}) == 5


def test_no_window_is_written_nowhere() -> None:
    assert "window" not in json.loads(PLAIN.model_dump_json())
    # The digest of a specification that a version without windows wrote.
    assert Preprocess.model_validate_json('{"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225],"size":null}') == (
        Preprocess()
    )


def test_a_huge_resize_is_refused() -> None:
    with pytest.raises(ValidationError, match="at most 134217728 in all"):
        Preprocess(size=(10**6, 10**6))


def test_an_image_of_too_many_windows_is_refused_before_any_runs() -> None:
    def never(planes: np.ndarray) -> np.ndarray:
        raise AssertionError("a window was run")

    image = np.zeros((400, 300, 3), np.uint8)
    # One pixel on at a time: 397 rows of 297 windows.
    with pytest.raises(UserError, match=r"300×400 pixels takes 117,909 windows; expected at most 100,000"):
        next(blended_rows(image, Window(height=4, width=4, overlap=0.75), PLAIN.normalise, never))


def test_windows_of_one_pixel_may_have_the_usual_overlap() -> None:
    assert Window(height=1, width=1).overlap == 0.25
    assert Window(height=5, width=5, overlap=0.8).overlap == 0.8  # a pixel apart, though not in binary fractions
