"""The rules, one by one: nets whose strongest way is known by hand, and a literal loop in float64 for the convolution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ways_back import back, on_tape, only, plane

from dropclass_deploy.analysis.unravel.fixations import fixations, walk_back
from dropclass_deploy.analysis.unravel.points import Points, merged
from dropclass_deploy.analysis.unravel.rules import KEEPS, POINTWISE
from dropclass_deploy.analysis.unravel.rules.shapes import element_of
from dropclass_deploy.analysis.unravel.tape import record
from dropclass_deploy.core.errors import ModelError


def by_loops(maps, weight, place, sign, stride, padding, dilation, groups):
    """Literally: products under the kernel, the channel of the largest sum, in it the largest product."""
    channel, row, column = place
    outputs, depth, high, wide = weight.shape
    first = channel // (outputs // groups) * depth
    best = None
    for k in range(depth):
        products = {}
        for i in range(high):
            for j in range(wide):
                y, x = row * stride[0] - padding[0] + i * dilation[0], column * stride[1] - padding[1] + j * dilation[1]
                if 0 <= y < maps.shape[1] and 0 <= x < maps.shape[2]:
                    products[(y, x)] = (
                        sign * weight[channel, k, i, j] * maps[first + k, y, x],
                        weight[channel, k, i, j],
                    )
        total = sum(product for product, _ in products.values())
        if best is None or total > best[0]:
            best = (total, first + k, products)
    y, x = max(best[2], key=lambda at: best[2][at][0])
    product, tap = best[2][(y, x)]
    return [] if product <= 0 else [((0, best[1], y, x), int(sign * np.sign(tap)))]


@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "options"),
    [
        (3, 4, (3, 3), {"padding": (1, 1)}),
        (3, 4, (3, 3), {"stride": (2, 2), "padding": (1, 1)}),
        (4, 6, (3, 2), {"stride": (1, 2), "padding": (2, 0), "groups": 2}),
        (5, 5, (3, 3), {"padding": (2, 2), "dilation": (2, 2), "groups": 5}),
        (6, 12, (5, 1), {"padding": (2, 0), "groups": 6}),
        (3, 2, (1, 1), {}),
        (2, 2, (3, 3), {"padding": (6, 6), "dilation": (6, 6)}),
    ],
)
def test_convolution_is_the_literal_loop(inputs: int, outputs: int, kernel: tuple[int, int], options: dict) -> None:
    generator = torch.Generator().manual_seed(7)
    settings = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1, **options}
    weight = torch.randn(outputs, inputs // settings["groups"], *kernel, generator=generator, dtype=torch.float64)
    maps = torch.randn(1, inputs, 7, 6, generator=generator, dtype=torch.float64)
    ended = 0
    for turned in (1, -1):
        tape, result = record(lambda x: turned * F.conv2d(x, weight, None, **settings), maps, KEEPS, POINTWISE)  # noqa: B023
        for place in np.ndindex(*result.shape[1:]):
            expected = by_loops(maps[0].numpy(), weight.numpy(), place, turned, **settings)
            found = on_tape(tape, result, (0, *place))
            assert found == expected
            ended += not found
    assert ended < 100


def test_many_points_at_once_are_each_ones_own_way(monkeypatch) -> None:
    # So small a budget that every point is a chunk of its own.
    monkeypatch.setattr("dropclass_deploy.analysis.unravel.rules.shapes.BUDGET", 20)
    torch.manual_seed(3)
    weight, image = torch.randn(4, 3, 3, 3), torch.randn(1, 3, 6, 7)

    def run(image: Tensor) -> Tensor:
        return F.conv2d(image, weight, None, 1, 1).mean(dim=1, keepdim=True)

    tape, result = record(run, image, KEEPS, POINTWISE)
    together, _ = walk_back(tape, Points.starting_at(torch.arange(result.numel())))
    alone = [walk_back(tape, Points.starting_at(torch.tensor([one])))[0] for one in range(result.numel())]
    expected = merged(alone)
    for name in ("index", "sign", "count"):
        assert torch.equal(getattr(together, name), getattr(expected, name))


def test_padding_never_wins() -> None:
    weight = plane([[1, 1, 1], [1, -1, 1], [1, 1, 1]])
    image = plane([[5, -1], [-1, -1]])
    # At (1, 1) only 5 at (0, 0) is above 0 with weight 1, and −1 · −1 = 1 in the middle.
    assert only(lambda x: F.conv2d(x, weight, padding=1), image, (0, 0, 1, 1)) == (0, 0, 0, 0)
    # At (0, 0): its own 5 · −1 and three −1: nothing above 0, zeros around do not count.
    assert back(lambda x: F.conv2d(x, weight, padding=1), image, (0, 0, 0, 0)) == []


def test_a_negative_batchnorm_scale_looks_for_what_lowered_the_value() -> None:
    norm = nn.BatchNorm2d(1).double().eval()
    conv = plane([[1, 1, 1]])
    image = plane([[3, -4, 2]])
    norm.weight.data.fill_(-1)
    assert back(lambda x: norm(F.conv2d(x, conv)), image, (0, 0, 0, 0)) == [((0, 0, 0, 1), -1)]
    norm.weight.data.fill_(2)
    assert back(lambda x: norm(F.conv2d(x, conv)), image, (0, 0, 0, 0)) == [((0, 0, 0, 0), 1)]
    norm.weight.data.fill_(0)
    assert back(lambda x: norm(F.conv2d(x, conv)), image, (0, 0, 0, 0)) == []


def test_a_negative_input_that_won_is_followed_to_what_lowered_it() -> None:
    first, second = plane([[1, 1]]), plane([[-1]])
    # 1 − 5 = −4, times −1 is 4: the −5 did it.
    assert only(lambda x: F.conv2d(F.conv2d(x, first), second), plane([[1, -5]]), (0, 0, 0, 0)) == (0, 0, 0, 1)


@pytest.mark.parametrize(("shift", "expected"), [(1, 2), (-1, 0)])
def test_a_residual_goes_along_the_stronger_branch(shift: int, expected: int) -> None:
    right = plane([[0, 0, 0.9 if shift > 0 else 0.1]])

    def run(x: Tensor) -> Tensor:
        branch = F.conv2d(x, right, padding=(0, 1))  # from the pixel on the right
        return x + branch

    # At column 1: itself 1, from the right 0.9 · 2 = 1.8 or 0.1 · 2.
    assert only(run, plane([[7, 1, 2]]), (0, 0, 0, 1)) == (0, 0, 0, 2 if expected == 2 else 1)


def test_a_residual_written_in_place_and_an_activation_too() -> None:
    def run(x: Tensor) -> Tensor:
        branch = torch.relu_(F.conv2d(x, plane([[0, 0, 1]]), padding=(0, 1)))
        kept = branch * 1
        kept += x
        return kept.relu_()

    assert only(run, plane([[7, 1, 2]]), (0, 0, 0, 1)) == (0, 0, 0, 2)
    assert only(run, plane([[7, 3, 2]]), (0, 0, 0, 1)) == (0, 0, 0, 1)


def test_values_are_those_before_they_were_written_over() -> None:
    conv = plane([[1, 1]])

    def run(x: Tensor) -> Tensor:
        maps = x * 1
        result = F.conv2d(maps, conv)
        maps.mul_(-1)
        return result

    assert only(run, plane([[3, 1]]), (0, 0, 0, 0)) == (0, 0, 0, 0)


def test_a_difference_turns_its_second_part() -> None:
    image = plane([[1, -5]])
    assert back(lambda x: x[..., :1] - x[..., 1:], image, (0, 0, 0, 0)) == [((0, 0, 0, 1), -1)]
    assert back(lambda x: 1 - x, image, (0, 0, 0, 0)) == [((0, 0, 0, 0), -1)]
    assert back(lambda x: -x, image, (0, 0, 0, 1)) == [((0, 0, 0, 1), -1)]


def test_bilinear_resizing_goes_to_the_strongest_corner() -> None:
    image = plane([[1, 1, 8], [1, 1, 1], [1, 1, 1]])

    def run(x: Tensor, corners: bool = False) -> Tensor:
        return F.interpolate(x, size=(6, 6), mode="bilinear", align_corners=corners)

    # Row 1 is at 0.25, column 3 at 1.25: weights 0.75 · 0.75 on 1, 0.75 · 0.25 on 8.
    assert only(run, image, (0, 0, 1, 3)) == (0, 0, 0, 2)
    # Column 1 is at 0.25: corners (0, 0), (0, 1), (1, 0), (1, 1), all 1: the nearest weighs most.
    assert only(run, image, (0, 0, 1, 1)) == (0, 0, 0, 0)
    # Corner to corner: row 1 at 0.4, column 2 at 0.8: of ones, the nearest.
    assert only(lambda x: run(x, True), image, (0, 0, 1, 2)) == (0, 0, 0, 1)
    # Nothing above 0: the nearest, not the one that hardly counts.
    assert only(run, -image, (0, 0, 1, 3)) == (0, 0, 0, 1)


def test_bilinear_weights_are_pytorchs_own() -> None:
    """On one-hot images the point goes there if and only if the result is not 0."""
    for size, corners in (((7, 5), False), ((7, 5), True), ((2, 2), False), ((1, 1), True)):
        for place in np.ndindex(3, 4):
            image = torch.zeros(1, 1, 3, 4, dtype=torch.float64)
            image[0, 0, place[0], place[1]] = 1

            def run(x: Tensor, size=size, corners=corners) -> Tensor:
                return F.interpolate(x, size=size, mode="bilinear", align_corners=corners)

            result = run(image)
            for at in np.ndindex(*size):
                if float(result[0, 0, *at]) > 1e-9:
                    assert only(run, image, (0, 0, *at)) == (0, 0, *place)


def test_pooling() -> None:
    image = plane([[1, 9, 2, 3, 0], [4, 5, 6, 1, 7], [0, 0, 0, 8, 1]])
    assert only(lambda x: F.max_pool2d(x, 2, ceil_mode=True), image, (0, 0, 0, 2)) == (0, 0, 1, 4)
    assert only(lambda x: F.max_pool2d(x, 3, 1, padding=1), image, (0, 0, 2, 1)) == (0, 0, 1, 2)
    assert only(lambda x: F.avg_pool2d(x, 2), image, (0, 0, 0, 1)) == (0, 0, 1, 2)
    assert only(lambda x: F.avg_pool2d(-x, 2), image, (0, 0, 0, 0)) == (0, 0, 0, 0)
    assert only(lambda x: F.avg_pool2d(x, 3, 2, padding=1), image, (0, 0, 0, 0)) == (0, 0, 0, 1)
    assert only(lambda x: F.adaptive_avg_pool2d(x, 1), image, (0, 0, 0, 0)) == (0, 0, 0, 1)
    # Rows 1 … 2 (⌊1·3/2⌋ … ⌈2·3/2⌉), columns 1 … 3 of 5 in 3.
    assert only(lambda x: F.adaptive_avg_pool2d(x, (2, 3)), image, (0, 0, 1, 1)) == (0, 0, 2, 3)
    assert only(lambda x: F.adaptive_avg_pool2d(x, (2, 3)), image, (0, 0, 0, 0)) == (0, 0, 0, 1)
    assert only(lambda x: F.adaptive_avg_pool2d(x, (2, 3)), image, (0, 0, 0, 2)) == (0, 0, 1, 4)
    assert only(lambda x: F.adaptive_avg_pool2d(-x, (2, 3)), image, (0, 0, 1, 2)) == (0, 0, 1, 3)
    assert only(lambda x: x.mean(dim=(2, 3)), image, (0, 0)) == (0, 0, 0, 1)
    assert only(lambda x: x.amax(dim=3), image, (0, 0, 1)) == (0, 0, 1, 4)


def test_a_gate_is_not_followed_but_its_sign_is() -> None:
    image = plane([[1, -3], [2, 4]])
    assert only(lambda x: x * x.mean(dim=(2, 3), keepdim=True).sigmoid(), image, (0, 0, 0, 1)) == (0, 0, 0, 1)
    assert only(lambda x: x.mean(dim=(2, 3), keepdim=True).sigmoid() * x, image, (0, 0, 0, 1)) == (0, 0, 0, 1)
    assert only(lambda x: x * x.flip(3).sigmoid(), image, (0, 0, 0, 0)) == (0, 0, 0, 0)
    assert only(lambda x: x.flip(3).sigmoid() * x, image, (0, 0, 0, 0)) == (0, 0, 0, 0)
    assert back(lambda x: x * -x.mean(dim=(2, 3), keepdim=True), image, (0, 0, 1, 1)) == [((0, 0, 1, 1), -1)]
    assert back(lambda x: x / torch.tensor(-2.0), image, (0, 0, 1, 1)) == [((0, 0, 1, 1), -1)]


def test_a_constant_is_looked_up_where_the_points_are() -> None:
    # PyTorch lets a number on the CPU multiply a tensor of another device. What has no values must be where the index is.
    index = torch.zeros(3, dtype=torch.int64, device="meta")
    for constant in (torch.tensor(-2.0), torch.ones(4, 1)):
        assert element_of(constant, index, (4, 5)).device == index.device
    found = element_of(torch.tensor([[3.0], [4.0]]), torch.tensor([0, 2, 3]), (2, 2))
    assert found.tolist() == [3, 4, 4]


def test_a_linear_layer_goes_to_the_strongest_product() -> None:
    layer = nn.Linear(3, 2).double()
    layer.weight.data = torch.tensor([[1.0, 2, 3], [0, -4, 1]], dtype=torch.float64)
    image = torch.tensor([[[[3.0]], [[2.0]], [[1.0]]]], dtype=torch.float64)
    assert only(lambda x: layer(x.flatten(1)), image, (0, 0)) == (0, 1, 0, 0)
    assert back(lambda x: layer(-x.flatten(1)), image, (0, 1)) == [((0, 1, 0, 0), 1)]


def test_an_operator_without_a_rule_is_named() -> None:
    image = torch.randn(1, 2, 3, 3)
    with pytest.raises(ModelError, match="'cumsum'"):
        back(lambda x: x.cumsum(dim=2), image, (0, 0, 0, 0))
    with pytest.raises(ModelError, match="'bmm'"):
        back(lambda x: torch.bmm(x[0], x[0])[None], image, (0, 0, 0, 0))
    with pytest.raises(ModelError, match="transposed"):
        back(lambda x: F.conv_transpose2d(x, torch.ones(2, 2, 2, 2)), image, (0, 0, 0, 0))
    with pytest.raises(ModelError, match="do not come from the image"):
        back(lambda _: torch.zeros(1, 1, 1, 1), image, (0, 0, 0, 0))


def test_writing_into_part_of_a_tensor_is_refused() -> None:
    def run(x: Tensor) -> Tensor:
        x = x * 1
        x[:, :1] += x[:, 1:]
        return x

    with pytest.raises(ModelError, match="part of a tensor"):
        back(run, torch.randn(1, 2, 3, 3), (0, 0, 0, 0))


def test_an_operator_that_no_point_comes_to_needs_no_rule() -> None:
    def run(x: Tensor) -> Tensor:
        x.cumsum(dim=2)
        return x + 1

    assert only(run, torch.randn(1, 2, 3, 3), (0, 1, 2, 0)) == (0, 1, 2, 0)


def test_merging_adds_counts_of_equal_places_and_directions() -> None:
    parts = [
        Points(torch.tensor([4, 2]), torch.tensor([1, -1]), torch.tensor([3, 1])),
        Points(torch.tensor([4, 2]), torch.tensor([1, 1]), torch.tensor([5, 1])),
    ]
    both = merged(parts)
    assert both.index.tolist() == [2, 2, 4]
    assert both.sign.tolist() == [-1, 1, 1]
    assert both.count.tolist() == [1, 1, 8]


def test_a_linear_network_leads_back_to_a_planted_pixel() -> None:
    """Positive weights, one bright pixel: whatever the pixel of the result, its only source is that one."""
    torch.manual_seed(5)
    body = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2, bias=False),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.Upsample(scale_factor=4, mode="bilinear"),
        nn.Conv2d(4, 2, 1, bias=False),
    ).eval()
    for parameter in body.parameters():
        parameter.data.abs_()
    image = torch.zeros(1, 3, 16, 20)
    image[0, 1, 9, 6] = 1
    region = (body(image)[0, 1] > 0).numpy()
    found = fixations(body, image, region, 1)
    assert 1 < found.pixels == found.followed == found.arrived
    assert found.places.tolist() == [[9, 6]]
