"""The DropClass objective where means lose their pixels, in half precision, and on bad input: never NaN."""

import pytest
import torch
from torch import Tensor, nn

from dropclass_deploy.core.errors import DataError, UserError
from dropclass_deploy.training.dropclass import DropClass, DropClassOutput, dropclass_loss

C = 4


def output(
    *, dropped: int | None = 2, align_corners: bool | None = False, low: bool = True, seed: int = 0
) -> DropClassOutput:
    """Random logits at 8×12, and of the branch at 4×6 (or 8×12)."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, C, 8, 12, generator=generator).requires_grad_()
    size = (4, 6) if low else (8, 12)
    drop = torch.randn(2, C, *size, generator=generator).requires_grad_()
    return DropClassOutput(logits, drop, dropped, align_corners, logits)


def some_labels(size: tuple[int, int] = (8, 12)) -> Tensor:
    labels = torch.randint(0, C, (2, *size), generator=torch.Generator().manual_seed(3))
    labels[0, :2] = 255
    return labels


def gradients_are_zero(out: DropClassOutput, *names: str) -> None:
    for name in names:
        gradient = getattr(out, name).grad
        assert gradient is not None
        assert gradient.eq(0).all(), name


@pytest.mark.parametrize("dropped", [None, 2])
@pytest.mark.parametrize("drop_divisor", ["kept", "all"])
@pytest.mark.parametrize("suppress_at", ["labels", "classifier", "elsewhere"])
@pytest.mark.parametrize("class_weight", [None, torch.rand(C)])
def test_an_all_ignored_batch_gives_zero_and_zero_gradients(dropped, drop_divisor: str, suppress_at: str, class_weight):
    out = output(dropped=dropped)
    labels = torch.full((2, 8, 12), 255)
    options = {"drop_divisor": drop_divisor, "suppress_at": suppress_at, "class_weight": class_weight}
    terms = dropclass_loss(out, labels, progress=0.5, **options)
    assert (terms.ce.item(), terms.ce_drop.item()) == (0.0, 0.0)
    terms.total.backward()
    gradients_are_zero(out, "logits")
    if suppress_at == "labels" or dropped is None:
        assert terms.total.item() == 0.0
        gradients_are_zero(out, "drop_logits")
    else:
        assert out.drop_logits.grad.isfinite().all()


@pytest.mark.parametrize("drop_divisor", ["kept", "all"])
@pytest.mark.parametrize("class_weight", [None, torch.tensor([1.0, 2.0, 3.0, 4.0])])
def test_a_batch_of_only_the_dropped_class(drop_divisor: str, class_weight):
    out = output(dropped=2)
    labels = torch.full((2, 8, 12), 2)
    terms = dropclass_loss(out, labels, progress=0.5, alpha=0.0, drop_divisor=drop_divisor, class_weight=class_weight)
    assert terms.ce_drop.item() == 0.0
    assert terms.ce.item() > 0
    assert 0 < terms.suppression.item() < 1
    terms.total.backward()
    gradients_are_zero(out, "drop_logits")
    assert out.logits.grad.isfinite().all()


def test_only_classes_of_weight_zero():
    out = output(dropped=2)
    labels = torch.full((2, 8, 12), 1)
    weight = torch.tensor([1.0, 0.0, 1.0, 1.0])
    terms = dropclass_loss(out, labels, progress=0.5, alpha=0.0, class_weight=weight)
    assert (terms.ce.item(), terms.ce_drop.item()) == (0.0, 0.0)
    terms.total.backward()
    gradients_are_zero(out, "logits", "drop_logits")


def test_extreme_logits_stay_finite():
    out = output()
    with torch.no_grad():
        out.logits.mul_(1e4)
        out.drop_logits.mul_(1e4)
    terms = dropclass_loss(out, some_labels(), progress=0.5)
    terms.total.backward()
    assert terms.total.isfinite()
    assert out.logits.grad.isfinite().all()
    assert out.drop_logits.grad.isfinite().all()


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, C, 1),
        nn.UpsamplingBilinear2d(scale_factor=2),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", ["some", "all ignored", "only the dropped class"])
@pytest.mark.parametrize("inside", [True, False], ids=["loss in autocast", "loss outside"])
def test_autocast_never_gives_nan(dtype: torch.dtype, case: str, inside: bool):
    method = DropClass(model()).train()
    labels = {
        "some": some_labels(),
        "all ignored": torch.full((2, 8, 12), 255),
        "only the dropped class": torch.full((2, 8, 12), 2),
    }[case]
    images = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(1)) * 50
    with torch.autocast("cpu", dtype=dtype):
        out = method(images, dropped=2)
        assert out.logits.dtype == dtype
        if inside:
            terms = dropclass_loss(out, labels, progress=0.5)
    if not inside:
        terms = dropclass_loss(out, labels, progress=0.5)
    terms.total.backward()
    assert terms.total.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in method.parameters())
    if case == "all ignored":
        assert all(parameter.grad.eq(0).all() for parameter in method.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_loss_of_half_precision_logits_is_taken_in_float32(dtype: torch.dtype):
    out = output()
    half = DropClassOutput(out.logits.to(dtype), out.drop_logits.to(dtype), 2, False, None)
    rounded = DropClassOutput(half.logits.float(), half.drop_logits.float(), 2, False, None)
    result = dropclass_loss(half, some_labels(), progress=0.5)
    assert torch.equal(result.total, dropclass_loss(rounded, some_labels(), progress=0.5).total)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (torch.full((2, 8, 12), 200), r"192 label pixels hold ids such as 200; expected 0 … 3, or 255"),
        (torch.full((2, 8, 12), -1), "192 label pixels hold ids such as -1"),
        (torch.full((2, 8, 12), C), "192 label pixels hold ids such as 4"),
        (torch.zeros(2, 8, 12), r"labels have shape \(2, 8, 12\) and dtype torch.float32"),
        (torch.zeros(2, 8, 12, dtype=torch.complex64), "dtype torch.complex64"),
        (torch.zeros(2, 1, 8, 12, dtype=torch.int64), r"labels have shape \(2, 1, 8, 12\)"),
        (torch.zeros(8, 12, dtype=torch.int64), r"labels have shape \(8, 12\)"),
        (torch.zeros(3, 8, 12, dtype=torch.int64), r"labels have shape \(3, 8, 12\); expected \(2, H, W\)"),
    ],
    ids=["200", "negative", "C", "float", "complex", "4-D", "2-D", "other batch"],
)
def test_labels_that_cannot_be_are_refused(labels: Tensor, match: str):
    with pytest.raises(DataError, match=match):
        dropclass_loss(output(), labels, progress=0.5)


@pytest.mark.parametrize("shape", [(3,), (5,), (4, 1), ()])
def test_class_weights_of_another_shape_are_refused(shape: tuple[int, ...]):
    with pytest.raises(DataError, match=r"class_weight has shape .*; expected \(4,\), one weight a class"):
        dropclass_loss(output(), some_labels(), progress=0.5, class_weight=torch.ones(shape))


@pytest.mark.parametrize("option", [{"drop_divisor": "mean"}, {"suppress_at": "logits"}, {"plain_weight": "half"}])
def test_unknown_options_are_refused(option: dict[str, str]):
    ((name, value),) = option.items()
    with pytest.raises(UserError, match=rf'{name} is .{value}.; expected "'):
        dropclass_loss(output(), some_labels(), progress=0.5, **option)  # type: ignore[arg-type]


@pytest.mark.parametrize("progress", [-0.01, 1.01, float("nan")])
def test_progress_outside_0_to_1_is_refused(progress: float):
    with pytest.raises(UserError, match="the training progress is"):
        dropclass_loss(output(), some_labels(), progress=progress)
