"""Boundary weights against a loop over every pair of pixels, and small maps drawn by hand."""

import math

import pytest
import torch
from torch import Tensor

from dropclass_deploy.core.errors import DataError, UserError
from dropclass_deploy.training.losses import boundary_weight


def blobs(ignored: int = 255) -> Tensor:
    """(2, 8, 11) with regions of 0 … 3 of some pixels, and ignored ones."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (2, 3, 4), generator=generator)
    labels = labels.repeat_interleave(3, 1).repeat_interleave(3, 2)[:, :8, :11].clone()
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = ignored
    labels[0, 3:6, 3:9] = ignored
    return labels


def literal(labels: Tensor, weight: float, width: int, ignore_index: int, background: int | None) -> Tensor:
    skipped = {ignore_index, background}
    result = torch.ones(labels.shape)
    height, breadth = labels.shape[1:]
    for n, row, column in torch.cartesian_prod(*(torch.arange(size) for size in labels.shape)).tolist():
        own = int(labels[n, row, column])
        for y in range(max(0, row - width), min(height, row + width + 1)):
            for x in range(max(0, column - width), min(breadth, column + width + 1)):
                other = int(labels[n, y, x])
                if own != other and own not in skipped and other not in skipped:
                    result[n, row, column] = weight
    return result


@pytest.mark.parametrize("background", [None, 0, 2])
@pytest.mark.parametrize("width", [1, 2, 3, 8])
def test_equals_the_loop(width: int, background: int | None):
    result = boundary_weight(blobs(), weight=2.5, width=width, background=background)
    assert result.dtype == torch.float32
    assert torch.equal(result, literal(blobs(), 2.5, width, 255, background))
    assert set(result.unique().tolist()) == {1.0, 2.5}  # else the case shows nothing


@pytest.mark.parametrize(
    ("ignore_index", "dtype"),
    [(255, torch.uint8), (0, torch.uint8), (-1, torch.int64), (-1, torch.int8), (255, torch.int32), (3, torch.int16)],
)
def test_any_ignore_index_and_label_type(ignore_index: int, dtype: torch.dtype):
    labels = blobs(ignore_index).to(dtype)
    expected = literal(labels, 4.0, 1, ignore_index, None)
    assert torch.equal(boundary_weight(labels, weight=4.0, ignore_index=ignore_index), expected)


def test_drawn_by_hand():
    labels = torch.tensor([[[0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [0, 0, 255, 255, 1], [0, 0, 255, 2, 2]]])
    expected = torch.tensor([[[1, 1, 5, 5, 1], [1, 1, 5, 5, 1], [1, 1, 1, 1, 5], [1, 1, 1, 5, 5]]]).float()
    assert torch.equal(boundary_weight(labels, weight=5.0), expected)


def test_corners_touch():
    labels = torch.tensor([[[0, 0, 0], [0, 0, 0], [0, 0, 1]]])
    expected = torch.tensor([[[1, 1, 1], [1, 3, 3], [1, 3, 3]]]).float()
    assert torch.equal(boundary_weight(labels, weight=3.0), expected)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 5), (2, 5, 1), (0, 3, 3)])
def test_images_of_one_class_have_no_boundary(shape: tuple[int, int, int]):
    for value in (2, 255):
        labels = torch.full(shape, value)
        assert torch.equal(boundary_weight(labels, weight=9.0, width=3), torch.ones(shape))


def test_a_row_is_enough():
    labels = torch.tensor([[[0, 0, 0, 1]]])
    assert boundary_weight(labels, weight=2.0, width=2).flatten().tolist() == [1.0, 2.0, 2.0, 2.0]


def test_background_makes_no_boundary_with_objects():
    # Two objects that touch on a background: only where they touch.
    labels = torch.tensor([[[0, 1, 2, 0, 3]]])
    assert boundary_weight(labels, weight=2.0, background=0).flatten().tolist() == [1.0, 2.0, 2.0, 1.0, 1.0]
    assert boundary_weight(labels, weight=2.0).flatten().tolist() == [2.0] * 5


def test_labels_are_not_changed():
    labels = blobs()
    boundary_weight(labels, weight=2.0, width=2, background=0)
    assert torch.equal(labels, blobs())


def test_what_cannot_be_is_refused():
    with pytest.raises(DataError, match=r"labels have shape \(2, 8\) and dtype torch.int64; expected integer"):
        boundary_weight(blobs()[:, :, 0], weight=2.0)
    with pytest.raises(DataError, match=r"dtype torch\.float32; expected integer"):
        boundary_weight(blobs().float(), weight=2.0)
    with pytest.raises(UserError, match="the width of boundaries is 0; expected 1 pixel or more"):
        boundary_weight(blobs(), weight=2.0, width=0)
    for weight in (-1.0, math.inf, math.nan):
        with pytest.raises(UserError, match=r"the weight of boundaries is .*; expected a number from 0 on"):
            boundary_weight(blobs(), weight=weight)
