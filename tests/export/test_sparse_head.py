"""The sparse mask head on coarse logits, against Resize + ArgMax of ONNX Runtime and against float64."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from dropclass_deploy.export.graphs.nodes import Nodes
from dropclass_deploy.export.graphs.sparse_head import by_pixels, cell_weights, rounding_bound, sparse_mask

HALF, ALIGN = "half_pixel", "align_corners"
CLASSES = 5


def _session(add: Nodes, output: str) -> ort.InferenceSession:
    inputs = [
        helper.make_tensor_value_info("coarse", TensorProto.FLOAT, ["n", CLASSES, "h", "w"]),
        helper.make_tensor_value_info("sizes", TensorProto.INT64, [4]),
    ]
    add("Identity", output, out="mask")
    mask = helper.make_tensor_value_info("mask", TensorProto.UINT8, ["n", "H", "W"])
    graph = helper.make_graph(add.nodes, "head", inputs, [mask], add.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@functools.cache
def sparse(coordinates: str, scale: int | None, sized: bool = False) -> ort.InferenceSession:
    add = Nodes("mask")
    return _session(add, sparse_mask(add, "coarse", "sizes", coordinates, scale, CLASSES, sized))


@functools.cache
def pixels(coordinates: str) -> ort.InferenceSession:
    add = Nodes("mask")
    return _session(add, by_pixels(add, "coarse", "sizes", coordinates))


@functools.cache
def dense(coordinates: str) -> ort.InferenceSession:
    add = Nodes("mask")
    resized = add("Resize", "coarse", "", "", "sizes", mode="linear", coordinate_transformation_mode=coordinates)
    return _session(add, add.cast(add("ArgMax", resized, axis=1, keepdims=0), "uint8"))


def run(session: ort.InferenceSession, coarse: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    sizes = np.array([*coarse.shape[:2], *size], np.int64)
    return session.run(["mask"], {"coarse": coarse, "sizes": sizes})[0]


def exact(coarse: np.ndarray, size: tuple[int, int], coordinates: str) -> tuple[np.ndarray, np.ndarray]:
    """Mask and gap between the two largest logits, by PyTorch in float64."""
    logits = F.interpolate(
        torch.from_numpy(coarse).double(), size=size, mode="bilinear", align_corners=coordinates == ALIGN
    )
    top = logits.topk(2, dim=1).values
    return logits.argmax(dim=1).numpy().astype(np.uint8), (top[:, 0] - top[:, 1]).numpy()


def agrees(coarse: np.ndarray, size: tuple[int, int], coordinates: str, session: ort.InferenceSession) -> None:
    """Equal to the dense head and to float64, except below the stated bound."""
    found = run(session, coarse, size)
    expected, gap = exact(coarse, size, coordinates)
    sure = gap > rounding_bound(float(np.abs(coarse).max()), coarse.shape[2:])
    assert found.shape == expected.shape
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[sure], expected[sure])
    np.testing.assert_array_equal(found[sure], run(dense(coordinates), coarse, size)[sure])


def blobs(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Logits with regions, as networks give them: few cells are mixed."""
    rng = np.random.default_rng(seed)
    n, c, h, w = shape
    seeds = torch.from_numpy(rng.normal(size=(n, c, max(h // 4, 1), max(w // 4, 1))).astype(np.float32) * 4)
    return F.interpolate(seeds, size=(h, w), mode="bicubic").numpy()


@pytest.mark.parametrize("scale", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("kind", ["regions", "noise", "one class"])
@pytest.mark.parametrize("sized", [False, True])
def test_whole_scales_equal_the_dense_head(scale: int, kind: str, sized: bool) -> None:
    shape = (2, CLASSES, 9, 13)
    coarse = {
        "regions": lambda: blobs(shape, scale),
        "noise": lambda: np.random.default_rng(scale).normal(size=shape).astype(np.float32),
        "one class": lambda: np.tile(np.arange(CLASSES, dtype=np.float32)[None, :, None, None], (2, 1, 9, 13)),
    }[kind]()
    agrees(coarse, (9 * scale, 13 * scale), HALF, sparse(HALF, scale, sized))


@pytest.mark.parametrize("coordinates", [HALF, ALIGN])
@pytest.mark.parametrize("size", [(37, 51), (70, 104), (9, 13), (5, 7), (1, 1), (144, 13), (72, 105)])
def test_other_sizes_equal_the_dense_head(coordinates: str, size: tuple[int, int]) -> None:
    """Through the If of a graph whose scale is 8 for other images: odd, smaller, one pixel, one axis only."""
    agrees(blobs((2, CLASSES, 9, 13), 3), size, coordinates, sparse(coordinates, 8))
    agrees(
        np.random.default_rng(1).normal(size=(1, CLASSES, 9, 13)).astype(np.float32),
        size,
        coordinates,
        pixels(coordinates),
    )


@pytest.mark.parametrize("coarse_size", [(1, 1), (1, 6), (2, 1)])
@pytest.mark.parametrize("coordinates", [HALF, ALIGN])
def test_maps_of_one_row_or_pixel(coarse_size: tuple[int, int], coordinates: str) -> None:
    coarse = np.random.default_rng(5).normal(size=(1, CLASSES, *coarse_size)).astype(np.float32)
    size = (coarse_size[0] * 4, coarse_size[1] * 4)
    agrees(coarse, size, coordinates, sparse(coordinates, 4))
    agrees(coarse, size, coordinates, pixels(coordinates))


@pytest.mark.parametrize("way", ["if", "cells", "pixels"])
def test_exact_ties_go_to_the_lowest_id(way: str) -> None:
    """Small whole numbers: sums of products with multiples of 1/64 are exact, so that ties are ties in float32 too."""
    coarse = np.random.default_rng(2).integers(0, 3, size=(2, CLASSES, 12, 10)).astype(np.float32)
    expected, gap = exact(coarse, (48, 40), HALF)
    assert (gap == 0).sum() > 100
    session = pixels(HALF) if way == "pixels" else sparse(HALF, 4, way == "cells")
    np.testing.assert_array_equal(run(session, coarse, (48, 40)), expected)


def test_near_ties_differ_from_the_dense_head_below_the_bound_only() -> None:
    """Adversarial: two classes cross at a slant and differ everywhere by a few units in the last place of large logits."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(1, CLASSES, 24, 24)).astype(np.float32) * 50
    coarse[:, 1] = np.nextafter(
        coarse[:, 0], np.where(rng.random((1, 24, 24)) > 0.5, np.inf, -np.inf).astype(np.float32)
    )
    coarse[:, 2:] -= 400
    for size, coordinates, session in (
        ((192, 192), HALF, sparse(HALF, 8)),
        ((189, 201), HALF, pixels(HALF)),
        ((193, 193), ALIGN, pixels(ALIGN)),
    ):
        found, plain = run(session, coarse, size), run(dense(coordinates), coarse, size)
        _, gap = exact(coarse, size, coordinates)
        differing = found != plain
        assert differing.any()  # the heads do round apart here
        assert gap[differing].max() < rounding_bound(float(np.abs(coarse).max()), (24, 24))


def test_the_bound_is_small_beside_real_logits() -> None:
    assert rounding_bound(20.0, (128, 256)) < 0.02


def test_weights_of_a_cell_by_hand() -> None:
    """Scale 2: the four pixels of a cell lie at a quarter and three quarters between its corners."""
    np.testing.assert_allclose(cell_weights(2)[0], np.array([9, 3, 3, 1]) / 16)
    np.testing.assert_allclose(cell_weights(2)[3], np.array([1, 3, 3, 9]) / 16)
    assert cell_weights(3)[0].tolist() == [1, 0, 0, 0]  # an odd scale has a pixel on the corner itself


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 2), st.integers(1, 7), st.integers(1, 7), st.integers(1, 40), st.integers(1, 40),
    st.sampled_from([HALF, ALIGN]), st.integers(0, 10**6),
)  # fmt: skip
def test_any_sizes(n: int, h: int, w: int, height: int, width: int, coordinates: str, seed: int) -> None:
    coarse = np.random.default_rng(seed).normal(size=(n, CLASSES, h, w)).astype(np.float32)
    agrees(coarse, (height, width), coordinates, sparse(coordinates, 4))
