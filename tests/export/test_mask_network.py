"""Mask files as whole graphs: formats, both heads, and networks that have no place for the sparse one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rounds import first_of
from torch import Tensor, nn

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.export import graphs
from dropclass_deploy.export.coarse_scale import coarse_scale
from dropclass_deploy.export.graphs.core_and_tail import join_tail, split_tail
from dropclass_deploy.export.graphs.resize import final_resize
from dropclass_deploy.export.mask_format import MaskFormat
from dropclass_deploy.export.mask_head import MaskModel
from dropclass_deploy.export.shapes import DYNAMIC
from dropclass_deploy.export.size_check import open_graph
from dropclass_deploy.export.to_onnx import Traced, trace


class Stride(nn.Module):
    """Logits at 1/stride, brought back by the network itself."""

    def __init__(self, stride: int, align_corners: bool = False) -> None:
        super().__init__()
        torch.manual_seed(stride)
        self.stem = nn.Conv2d(3, 6, stride + 1, stride=stride, padding=stride // 2)
        self.align_corners = align_corners

    def forward(self, images: Tensor) -> Tensor:
        size = images.shape[-2:]
        return F.interpolate(self.stem(images), size=size, mode="bilinear", align_corners=self.align_corners)


@pytest.fixture(scope="module")
def quarter() -> tuple[nn.Module, Traced]:
    network = Stride(4)
    return network, trace(network, DYNAMIC)


def images(*size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)


def run(model: graphs.Model, batch: np.ndarray) -> np.ndarray:
    return open_graph(model).run(["mask"], {"image": batch})[0]


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
@pytest.mark.parametrize(
    ("layout", "shape"), [("NHW", (2, 40, 56)), ("NHWC", (2, 40, 56, 1)), ("NCHW", (2, 1, 40, 56))]
)
@pytest.mark.parametrize("bake", [True, False])
def test_every_form_holds_the_same_ids(
    quarter: tuple[nn.Module, Traced], dtype: str, layout: str, shape: tuple[int, ...], bake: bool
) -> None:
    network, traced = quarter
    preprocess, form, batch = Preprocess(), MaskFormat(dtype, layout, bake), images(40, 56)
    expected = MaskModel(network.eval(), preprocess)(torch.from_numpy(batch)).numpy()
    fed = batch if bake else preprocess.normalise(batch)
    sparse = graphs.with_sparse_head(traced.graph, preprocess, traced.scale, form)
    for model in (graphs.with_mask_head(traced.graph, preprocess, form), sparse):
        mask = run(model, fed)
        assert (mask.dtype, mask.shape) == (np.dtype(dtype), shape)
        np.testing.assert_array_equal(mask.reshape(expected.shape), expected)


@pytest.mark.parametrize(("stride", "align"), first_of([(8, True), (4, False), (8, False), (16, False)]))
@pytest.mark.parametrize("shape", [DYNAMIC, (2, 96, 144)])
def test_the_sparse_file_gives_the_mask_of_the_dense_file(stride: int, align: bool, shape: tuple) -> None:
    network = Stride(stride, align)
    traced = trace(network, shape)
    assert traced.scale == stride
    dense = graphs.with_mask_head(traced.graph, Preprocess())
    sparse = graphs.with_sparse_head(traced.graph, Preprocess(), traced.scale)
    assert graphs.operator_counts(sparse)["Resize"] == 0
    for size in [(96, 144)] if shape != DYNAMIC else [(96, 144), (97, 131), (64, 33)]:
        np.testing.assert_array_equal(run(sparse, images(*size)), run(dense, images(*size)))


def test_a_network_without_a_last_resize_says_so(networks: SimpleNamespace) -> None:
    traced = trace(networks.Tiny(), DYNAMIC)
    assert coarse_scale(traced.graph, DYNAMIC) is None
    reason = graphs.with_sparse_head(traced.graph, Preprocess(), None)
    assert reason == "the network ends in Conv, not in a bilinear resize"


def test_a_resize_by_a_whole_factor_is_replaced_too() -> None:
    """A network that ends in ``interpolate(scale_factor=4)``."""

    class Factor(Stride):
        def forward(self, images: Tensor) -> Tensor:
            return F.interpolate(self.stem(images), scale_factor=4, mode="bilinear")

    traced = trace(Factor(4), (2, 96, 144))
    assert final_resize(traced.graph).factor in (0, 4)  # the exporter writes either form
    sparse = graphs.with_sparse_head(traced.graph, Preprocess(), traced.scale)
    assert graphs.operator_counts(sparse)["Resize"] == 0
    np.testing.assert_array_equal(
        run(sparse, images(96, 144)), run(graphs.with_mask_head(traced.graph, Preprocess()), images(96, 144))
    )
    core, tail = split_tail(traced.graph)
    assert graphs.operator_counts(core)["Resize"] == 0
    np.testing.assert_array_equal(
        run(graphs.with_mask_head(join_tail(core, tail), Preprocess()), images(96, 144)), run(sparse, images(96, 144))
    )


@pytest.mark.parametrize("mode", first_of(["nearest", "bicubic"]))
def test_a_resize_of_another_kind_is_not_replaced(mode: str) -> None:
    class Other(Stride):
        def forward(self, images: Tensor) -> Tensor:
            return F.interpolate(self.stem(images), size=images.shape[-2:], mode=mode)

    reason = graphs.with_sparse_head(trace(Other(4), (1, 32, 32)).graph, Preprocess(), None)
    assert isinstance(reason, str)
    assert "the network ends in a resize of mode" in reason


@pytest.mark.parametrize(
    ("arguments", "found"), [(("int8",), "mask type 'int8'"), (("uint8", "HWN"), "mask layout 'HWN'")]
)
def test_a_form_that_is_not_offered_is_refused(arguments: tuple[str, ...], found: str) -> None:
    with pytest.raises(UserError, match=f"there is no {found}.*expected one of"):
        MaskFormat(*arguments)


def test_real_logits_of_a_trained_network(street_traced: Traced) -> None:
    """Frames of the street at their own size, where cells decide, and odd cuts of them, where pixels do."""
    dense = open_graph(graphs.with_mask_head(street_traced.graph, Preprocess()))
    sparse = open_graph(graphs.with_sparse_head(street_traced.graph, Preprocess(), street_traced.scale))
    frames = open_dataset("synthetic:", "val")
    for index in range(0, len(frames), 4):
        frame = frames.image(index)
        for batch in (np.stack([frame, frame[::-1]]), frame[None, :93, 5:122], frame[None, 1:, :-3]):
            fed = {"image": np.ascontiguousarray(batch)}
            np.testing.assert_array_equal(sparse.run(None, fed)[0], dense.run(None, fed)[0])
