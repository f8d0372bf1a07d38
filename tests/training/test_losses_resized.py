"""Losses of resized logits against F.interpolate, log-softmax and autograd in float64, and what they never hold."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.training.losses import Resize, chunked, cross_entropy, head_losses, resized
from dropclass_deploy.training.losses.resize_axis import resize_axis

SIZES = {
    "stride 4": ((5, 7), (20, 28)),
    "stride 8": ((3, 4), (24, 32)),
    "stride 16": ((2, 3), (32, 48)),
    "odd": ((5, 7), (37, 51)),
    "less than twice": ((5, 7), (8, 9)),
    "as they are": ((6, 9), (6, 9)),
    "only wider": ((6, 4), (6, 9)),
    "only higher": ((4, 9), (6, 9)),
    "down": ((9, 14), (5, 6)),
    "one pixel": ((1, 1), (5, 6)),
    "to one pixel": ((3, 4), (1, 1)),
}


def case(small: tuple[int, int], full: tuple[int, int], classes: int = 5, seed: int = 0):
    """Logits (2, C, h, w) float64, labels with every eighth pixel ignored, weights, pixel weights."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, classes, *small, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (2, *full), generator=generator)
    labels.view(-1)[::8] = 255
    weight = torch.rand(classes, generator=generator, dtype=torch.float64)
    pixel_weight = torch.rand(2, *full, generator=generator, dtype=torch.float64)
    return logits, labels, weight, pixel_weight


def literal(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor,
    scale: Tensor,
    *,
    suppressed: int | None = None,
    ignore_index: int = 255,
    pixel_weight: Tensor | None = None,
    align_corners: bool = False,
) -> tuple[Tensor, Tensor]:
    """The two sums and the gradient of their weighted sum, all at full size."""
    given = logits.detach().double().requires_grad_()
    full = given
    if given.shape[-2:] != labels.shape[-2:]:
        full = F.interpolate(given, size=labels.shape[-2:], mode="bilinear", align_corners=align_corners)
    valid = labels.long() != ignore_index
    ids = labels.long().masked_fill(~valid, 0)
    terms = -full.log_softmax(1).gather(1, ids[:, None])[:, 0] * weight.double()[ids] * valid
    if pixel_weight is not None:
        terms = terms * pixel_weight.double()
    chance = full.softmax(1)[:, suppressed] * valid if suppressed is not None else torch.zeros(())
    sums = torch.stack([terms.sum(), chance.sum().double()])
    (sums * scale.double()).sum().backward()
    return sums.detach(), given.grad


def assert_like_literal(logits: Tensor, labels: Tensor, weight: Tensor, rtol: float = 1e-12, **options) -> None:
    align_corners = options.pop("align_corners", False)
    scale = torch.tensor([0.7, 1.9], dtype=torch.float64)
    expected, gradient = literal(logits, labels, weight, scale, align_corners=align_corners, **options)
    given = logits.detach().clone().requires_grad_()
    total, sums = head_losses(Resize(given, align_corners), labels, weight, scale, **options)
    total.backward()
    assert sums.dtype == torch.float64
    torch.testing.assert_close(sums.detach(), expected, rtol=rtol, atol=rtol)
    torch.testing.assert_close(total.detach().double(), (expected * scale).sum(), rtol=max(rtol, 1e-12), atol=rtol)
    assert given.grad.dtype == given.dtype
    bound = rtol * float(gradient.abs().max())
    torch.testing.assert_close(given.grad.double(), gradient, rtol=rtol, atol=bound)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", list(SIZES))
def test_every_size_equals_the_literal_sums(size: str, align_corners: bool):
    logits, labels, weight, pixel_weight = case(*SIZES[size])
    for suppressed, pixels in itertools.product((None, 2), (None, pixel_weight)):
        assert_like_literal(
            # torch computes the positions of its resize in the tensor's own type: float64 here.
            logits,
            labels,
            weight,
            suppressed=suppressed,
            pixel_weight=pixels,
            align_corners=align_corners,
        )


@pytest.mark.parametrize("classes", [2, 3, 19, 150])
def test_any_number_of_classes(classes: int):
    logits, labels, weight, _ = case((5, 7), (37, 51), classes)
    assert_like_literal(logits, labels, weight, suppressed=1)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.bfloat16, 8e-3), (torch.float16, 1e-3)])
def test_shorter_types_are_computed_in_float32(dtype: torch.dtype, rtol: float):
    # The gradient is rounded once to the logits' type: 2⁻⁸ for bfloat16, 2⁻¹¹ for float16.
    logits, labels, weight, _ = case((5, 7), (37, 51), 19)
    assert_like_literal(logits.to(dtype), labels, weight, rtol, suppressed=3)


@pytest.mark.parametrize("ignore_index", [-100, -1, 0, 2, 255])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_any_ignore_index_and_label_type(dtype: torch.dtype, ignore_index: int):
    logits, labels, weight, _ = case((3, 4), (24, 32))
    if dtype == torch.uint8 and ignore_index < 0:
        labels[labels == 255] = 1
    else:
        labels[labels == 255] = ignore_index
    assert_like_literal(logits, labels.to(dtype), weight, suppressed=4, ignore_index=ignore_index)


def test_all_ignored_is_zero_with_zero_gradient():
    logits, labels, weight, _ = case((3, 4), (24, 32))
    given = logits.requires_grad_()
    total, sums = head_losses(Resize(given), labels.fill_(255), weight, torch.ones(2), suppressed=1)
    total.backward()
    assert (total.item(), sums.tolist()) == (0.0, [0.0, 0.0])
    assert given.grad.eq(0).all()


def test_an_empty_batch():
    total, sums = head_losses(
        Resize(torch.zeros(0, 3, 2, 2)), torch.zeros(0, 8, 8).long(), torch.ones(3), torch.ones(2)
    )
    assert (total.item(), sums.tolist()) == (0.0, [0.0, 0.0])


@pytest.mark.parametrize("size", [50.0, 1e4, 1e30])
def test_extreme_logits_stay_finite(size: float):
    logits, labels, weight, _ = case((3, 4), (24, 32))
    given = (logits.sign() * size).float().requires_grad_()
    total, sums = head_losses(Resize(given), labels, weight.float(), torch.tensor([1e-3, 1.0]), suppressed=1)
    total.backward()
    assert sums.isfinite().all()
    assert given.grad.isfinite().all()
    expected, _ = literal(given, labels, weight, torch.ones(2), suppressed=1)
    # Relative to the logits' size: their differences cancel.
    torch.testing.assert_close(sums, expected, rtol=1e-5, atol=1e-5 * size)


@pytest.mark.parametrize("layout", ["channels last", "sliced", "expanded"])
def test_any_memory_layout(layout: str):
    logits, labels, weight, _ = case((5, 7), (20, 28))
    given = {
        "channels last": logits.to(memory_format=torch.channels_last),
        "sliced": torch.cat([logits, logits], dim=3)[..., :7],
        "expanded": logits[:1].expand(2, -1, -1, -1),
    }[layout]
    assert_like_literal(given, labels, weight, suppressed=1)


@pytest.mark.parametrize(("tile", "count"), [(1, 960), (40_000, 60), (300_000, 12), (10**6, 3)])
def test_the_tiles_do_not_show(tile: int, count: int, monkeypatch: pytest.MonkeyPatch):
    # From one row of some columns to all rows of them, of one image or of both.
    monkeypatch.setattr(chunked, "_TILE_BYTES", tile)
    logits, labels, weight, pixel_weight = case((40, 70), (160, 293), 3)
    tiles = list(chunked._tiles(logits, labels, False))
    assert len(tiles) == count
    assert sum(labels[t.images, t.rows.pixels, t.columns.pixels].numel() for t in tiles) == labels.numel()
    for align_corners in (False, True):
        assert_like_literal(
            logits, labels, weight, suppressed=1, pixel_weight=pixel_weight, align_corners=align_corners
        )


def test_a_second_derivative_is_refused():
    logits, labels, weight, _ = case((3, 4), (24, 32))
    given = logits.requires_grad_()
    total, _ = head_losses(Resize(given), labels, weight, torch.ones(2))
    with pytest.raises(RuntimeError, match="have no second derivative"):
        torch.autograd.grad(total, given, create_graph=True)


def test_weights_that_want_a_gradient_are_refused():
    logits, labels, weight, pixel_weight = case((3, 4), (24, 32))
    for options in ({"pixel_weight": pixel_weight.requires_grad_()}, {"class_weight": weight.requires_grad_()}):
        with pytest.raises(UserError, match=r"a weight of the loss requires a gradient; expected .*detach\(\)"):
            cross_entropy(logits, labels, **options)


def test_an_infinite_logit_of_an_ignored_pixel_is_no_matter():
    logits, labels, weight, _ = case((5, 7), (5, 7))
    logits[:, 0] = -torch.inf
    labels[labels == 0] = 255  # a class that is ruled out is no pixel's
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    total, _ = head_losses(Resize(ours), labels, weight, torch.tensor([1.0, 0.0], dtype=torch.float64), suppressed=2)
    expected = F.cross_entropy(theirs, labels, weight, ignore_index=255, reduction="sum")
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(torch.autograd.grad(total, ours), torch.autograd.grad(expected, theirs))


def test_where_triton_cannot_run_one_warning_says_so():
    resized._kernels.cache_clear()
    with pytest.warns(UserWarning, match=r"Triton's kernels do not run on meta .*plain operations run instead"):
        assert resized._kernels(torch.device("meta")) is None
    resized._kernels.cache_clear()


@pytest.mark.parametrize("align_corners", [False, True])
def test_gradcheck(align_corners: bool):
    logits, labels, weight, pixel_weight = case((2, 3), (9, 7), 3)
    scale = torch.tensor([0.3, 0.8], dtype=torch.float64)

    def losses(given: Tensor) -> tuple[Tensor, Tensor]:
        return head_losses(Resize(given, align_corners), labels, weight, scale, suppressed=1, pixel_weight=pixel_weight)

    given = logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: losses(x)[0], (given,))
    # The sums by themselves, and both in one: these go over the pixels again.
    assert torch.autograd.gradcheck(lambda x: losses(x)[1], (given,))
    assert torch.autograd.gradcheck(lambda x: 2 * losses(x)[0] + losses(x)[1][1], (given,))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck's own
def test_the_operator_keeps_torchs_rules():
    logits, labels, weight, pixel_weight = case((2, 3), (9, 7), 3)
    scale = torch.ones(2, dtype=torch.float64)
    for given in (logits, logits.clone().requires_grad_()):
        results = torch.library.opcheck(
            torch.ops.dropclass.head_losses.default,
            (given, labels, weight, pixel_weight, scale, 1, 255, False, given.requires_grad),
        )
        assert set(results.values()) == {"SUCCESS"}


def test_compiled_whole():
    logits, labels, weight, _ = case((5, 7), (20, 28))
    scale = torch.tensor([0.3, 0.8], dtype=torch.float64)

    def loss(given: Tensor, z: int) -> Tensor:
        return 2 * head_losses(Resize(2 * given), labels, weight, scale, suppressed=z)[0]

    # What traces and plans the backward pass; the backend behind it has no say in that, and needs a C++ compiler.
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for z in (1, 3, 4):
        ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        loss(ours, z).backward()
        compiled(theirs, z).backward()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-15)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_on_a_gpu_the_operator_is_the_cpus(dtype: torch.dtype):
    logits, labels, weight, pixel_weight = case((5, 7), (37, 51), 19)
    results = []
    for device in ("cpu", "cuda"):
        given = logits.to(device, dtype).requires_grad_()
        total, sums = head_losses(
            Resize(given), labels.to(device), weight, torch.tensor([0.7, 1.9]), suppressed=3, pixel_weight=pixel_weight
        )
        total.backward()
        results.append((sums.detach().cpu(), given.grad.cpu()))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-5, atol=1e-6)
    # The gradient is rounded once to the logits' type.
    torch.testing.assert_close(results[1][1], results[0][1], rtol=max(1e-4, 2 * torch.finfo(dtype).eps), atol=1e-5)


def test_without_gradients_none_is_computed():
    logits, labels, weight, _ = case((5, 7), (20, 28))
    assert chunked.head_losses(logits, labels, weight, None, torch.ones(2), 1, 255, False, False)[1].numel() == 0
    with torch.no_grad():
        total, _ = head_losses(Resize(logits.requires_grad_()), labels, weight, torch.ones(2))
    assert not total.requires_grad


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that an operation's result had."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.untyped_storage().nbytes() // value.element_size())
        return result


@pytest.mark.parametrize("classes", [19, 60])
def test_full_size_logits_never_exist(classes: int):
    logits, labels, weight, _ = case((32, 64), (256, 512), classes)
    with LargestTensor() as seen:
        chunked.head_losses(
            logits.float(), labels.to(torch.uint8), weight.float(), None, torch.ones(2), 1, 255, False, True
        )
    full = 2 * classes * 256 * 512
    assert seen.elements <= full // 4
    # The literal way, by the same measure.
    with LargestTensor() as seen:
        F.interpolate(logits, size=(256, 512), mode="bilinear")
    assert seen.elements == full


def test_the_working_memory_depends_on_the_tile_alone():
    largest = []
    for height in (256, 1024):
        logits, labels, weight, _ = case((height // 8, 16), (height, 128), 19)
        with LargestTensor() as seen:
            chunked.head_losses(logits.float(), labels, weight.float(), None, torch.ones(2), 1, 255, False, False)
        largest.append(seen.elements)
    assert max(largest) * 4 <= chunked._TILE_BYTES


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(4, 32), (5, 37), (9, 4), (1, 6), (6, 1), (7, 7), (65, 513)])
def test_an_axis_is_torchs(inputs: int, outputs: int, align_corners: bool):
    ramp = torch.randn(inputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = F.interpolate(
        ramp[None, None, :, None], size=(outputs, 1), mode="bilinear", align_corners=align_corners
    ).flatten()
    low, high, weights = resize_axis(inputs, outputs, align_corners).matrix(0, outputs)
    torch.testing.assert_close(weights @ ramp[low:high], expected, rtol=1e-12, atol=1e-13)


def test_pixel_weights_weigh_the_mean():
    logits, labels, _, pixel_weight = case((5, 7), (5, 7))
    valid = labels != 255
    terms = F.cross_entropy(logits, labels, ignore_index=255, reduction="none")
    expected = (terms * pixel_weight).sum() / pixel_weight[valid].sum()
    torch.testing.assert_close(cross_entropy(logits, labels, pixel_weight=pixel_weight), expected)


def test_an_offset_of_the_small_logits_is_an_offset_of_the_full_ones():
    # Logit adjustment adds a number a class: a resize, whose weights sum to 1, leaves it as it is.
    logits, labels, weight, _ = case((5, 7), (37, 51))
    offset = torch.linspace(-2, 2, 5, dtype=torch.float64).view(1, -1, 1, 1)
    full = F.interpolate(logits, size=(37, 51), mode="bilinear") + offset
    expected = F.cross_entropy(full, labels, weight, ignore_index=255)
    torch.testing.assert_close(cross_entropy(logits + offset, labels, class_weight=weight), expected)
