"""The DropClass objective against Eq. 6–9 written out in float64, and at the edges where means lose their pixels."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropclass_deploy.training.dropclass import DropClass, DropClassOutput, dropclass_loss, loss_weights

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


def literal(
    out: DropClassOutput,
    labels: Tensor,
    progress: float,
    *,
    alpha: float = 10.0,
    ignore_index: int = 255,
    class_weight: list[float] | None = None,
    lambda_max: float = 1.0,
    drop_divisor: str = "kept",
    suppress_at: str = "labels",
    plain_weight: str = "rest",
) -> dict[str, float]:
    """One pixel after the other, in float64."""
    size = labels.shape[-2:]
    plain = out.logits.detach().double()
    if plain.shape[-2:] != size:
        plain = F.interpolate(plain, size=size, mode="bilinear")
    branch = out.drop_logits.detach().double()
    if out.align_corners is not None and branch.shape != out.logits.shape:
        branch = F.interpolate(branch, size=out.logits.shape[-2:], mode="bilinear", align_corners=out.align_corners)
    if branch.shape[-2:] != size:
        branch = F.interpolate(branch, size=size, mode="bilinear")
    weights = class_weight or [1.0] * C
    sums = {"ce": 0.0, "ce_weight": 0.0, "drop": 0.0, "drop_weight": 0.0, "p": 0.0, "p_count": 0}
    for n, row, column in torch.cartesian_prod(*(torch.arange(s) for s in labels.shape)).tolist():
        truth = int(labels[n, row, column])
        if truth == ignore_index:
            continue
        sums["ce"] -= weights[truth] * float(plain[n, :, row, column].log_softmax(0)[truth])
        sums["ce_weight"] += weights[truth]
        if truth != out.dropped:
            sums["drop"] -= weights[truth] * float(branch[n, :, row, column].log_softmax(0)[truth])
            sums["drop_weight"] += weights[truth]
        if out.dropped is not None and not (suppress_at == "elsewhere" and truth == out.dropped):
            sums["p"] += float(branch[n, :, row, column].softmax(0)[out.dropped])
            sums["p_count"] += 1
    suppression = sums["p"] / max(1, sums["p_count"])
    if suppress_at == "classifier" and out.dropped is not None:
        suppression = float(out.drop_logits.detach().double().softmax(1)[:, out.dropped].mean())
    ce = sums["ce"] / sums["ce_weight"]
    divisor = sums["drop_weight"] if drop_divisor == "kept" else labels.numel()
    ce_drop = sums["drop"] / divisor
    weight = lambda_max * progress
    total = (1.0 if plain_weight == "full" else 1 - weight) * ce + weight * ce_drop + alpha * suppression
    return {"total": total, "ce": ce, "ce_drop": ce_drop, "suppression": suppression}


def assert_terms(out: DropClassOutput, labels: Tensor, progress: float, **options) -> None:
    expected = literal(out, labels, progress, **options)
    if options.get("class_weight"):
        options["class_weight"] = torch.tensor(options["class_weight"])
    terms = dropclass_loss(out, labels, progress=progress, **options)
    for name, value in expected.items():
        # Means over some hundred pixels in float32 against float64.
        assert getattr(terms, name).item() == pytest.approx(value, rel=2e-5, abs=1e-6), name
        assert getattr(terms, name).dtype == torch.float32
        assert getattr(terms, name).shape == ()


@pytest.mark.parametrize("class_weight", [None, [0.5, 2.0, 3.0, 0.0]])
@pytest.mark.parametrize("drop_divisor", ["kept", "all"])
@pytest.mark.parametrize("suppress_at", ["labels", "classifier", "elsewhere"])
@pytest.mark.parametrize("dropped", [None, 0, 2])
def test_every_option_equals_the_literal_sum(dropped, suppress_at: str, drop_divisor: str, class_weight):
    options = {"suppress_at": suppress_at, "drop_divisor": drop_divisor, "class_weight": class_weight}
    assert_terms(output(dropped=dropped), some_labels(), 0.3, **options)


@pytest.mark.parametrize("suppress_at", ["labels", "classifier", "elsewhere"])
def test_parts_of_a_step_add_up_to_the_whole(suppress_at: str):
    out, labels = output(), some_labels()
    weight = torch.tensor([0.5, 2.0, 3.0, 1.0])
    options = {"suppress_at": suppress_at, "class_weight": weight}
    whole = dropclass_loss(out, labels, progress=0.3, **options)
    weights = torch.stack([loss_weights(labels[n : n + 1], out.dropped, C, **options) for n in range(2)])
    parts = []
    for n, shares in enumerate(weights / weights.sum(0)):
        one = replace(out, logits=out.logits[n : n + 1], drop_logits=out.drop_logits[n : n + 1])
        parts.append(dropclass_loss(one, labels[n : n + 1], progress=0.3, shares=shares, **options).total)
    assert sum(parts).item() == pytest.approx(whole.total.item(), rel=1e-5)


def test_full_weight_for_the_plain_path():
    assert_terms(output(), some_labels(), 0.9, plain_weight="full")


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_branch_is_resized_as_the_model_resizes(align_corners: bool):
    assert_terms(output(align_corners=align_corners), some_labels(), 0.6)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(16, 24), (4, 6), (9, 13)])
def test_labels_of_another_size_than_the_logits(size: tuple[int, int], align_corners: bool):
    assert_terms(output(align_corners=align_corners), some_labels(size), 0.6)


def test_logits_and_branch_of_the_same_size():
    assert_terms(output(low=False, align_corners=None), some_labels(), 0.5)


@pytest.mark.parametrize("ignore_index", [-100, -1, 0, 254])
def test_any_ignore_index(ignore_index: int):
    labels = some_labels()
    labels[labels == 255] = ignore_index
    assert_terms(output(), labels, 0.4, ignore_index=ignore_index)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64, torch.uint16])
def test_any_integer_label_dtype(dtype: torch.dtype):
    expected = dropclass_loss(output(), some_labels(), progress=0.5).total
    assert torch.equal(dropclass_loss(output(), some_labels().to(dtype), progress=0.5).total, expected)


def test_small_unsigned_labels_with_a_negative_ignore_index():
    labels = some_labels().clamp(max=C - 1)
    expected = dropclass_loss(output(), labels, progress=0.5, ignore_index=-100).total
    result = dropclass_loss(output(), labels.to(torch.uint8), progress=0.5, ignore_index=-100).total
    assert torch.equal(result, expected)


def test_worked_by_hand():
    # Two pixels, two classes. Plain logits equal: CE = ln 2. Branch at pixel 0 (truth 0): logits (ln 3, 0), so
    # p = (3/4, 1/4); pixel 1 holds the dropped class 1 and is left out of CE_drop, not of L_sup: (0, 0), p = 1/2.
    logits = torch.zeros(1, 2, 1, 2)
    drop = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    terms = dropclass_loss(
        DropClassOutput(logits, drop, 1, None, logits), torch.tensor([[[0, 1]]]), progress=0.25, alpha=2.0
    )
    assert terms.ce.item() == pytest.approx(math.log(2), rel=1e-6)  # float32
    assert terms.ce_drop.item() == pytest.approx(math.log(4 / 3), rel=1e-6)
    assert terms.suppression.item() == pytest.approx(0.375, rel=1e-6)
    assert terms.total.item() == pytest.approx(0.75 * math.log(2) + 0.25 * math.log(4 / 3) + 0.75, rel=1e-6)


@pytest.mark.parametrize(("progress", "lambda_max"), [(0.0, 1.0), (1.0, 1.0), (0.5, 0.4), (1.0, 0.0)])
def test_the_total_is_the_weighted_sum(progress: float, lambda_max: float):
    terms = dropclass_loss(output(), some_labels(), progress=progress, lambda_max=lambda_max, alpha=3.0)
    weight = progress * lambda_max
    expected = (1 - weight) * terms.ce + weight * terms.ce_drop + 3.0 * terms.suppression
    # Three float32 roundings in another order.
    torch.testing.assert_close(terms.total, expected, rtol=1e-6, atol=0)


def test_defaults_are_the_papers():
    default = dropclass_loss(output(), some_labels(), progress=0.4)
    spelled = dropclass_loss(
        output(), some_labels(), progress=0.4, alpha=10.0, lambda_max=1.0, ignore_index=255, class_weight=None
    )
    assert torch.equal(default.total, spelled.total)


def test_suppression_is_zero_when_nothing_is_dropped():
    terms = dropclass_loss(output(dropped=None), some_labels(), progress=0.5)
    assert terms.suppression.item() == 0.0
    assert not terms.suppression.requires_grad


def test_suppression_is_not_scaled_by_lambda():
    out = output()
    terms = dropclass_loss(out, some_labels(), progress=0.0)
    terms.total.backward()
    assert out.drop_logits.grad.abs().sum() > 0
    assert terms.total.item() == pytest.approx((terms.ce + 10 * terms.suppression).item(), rel=1e-6)  # float32


def test_suppression_lowers_the_dropped_class():
    out = output(dropped=1)
    dropclass_loss(out, some_labels(), progress=0.0).total.backward()
    assert (out.drop_logits.grad[:, 1] >= 0).all()  # descent lowers class 1 …
    assert (out.drop_logits.grad[:, [0, 2, 3]] <= 0).all()  # … and raises the others


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, C, 1),
        nn.UpsamplingBilinear2d(scale_factor=2),
    )


def test_end_to_end_with_a_model_that_aligns_corners():
    method = DropClass(model()).eval()
    assert method.classifier.align_corners is True
    out = method(torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(1)), dropped=1)
    assert_terms(out, some_labels(), 0.7)


def test_training_lowers_the_loss_and_the_dropped_class():
    method = DropClass(model()).train()
    images = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(method.parameters(), lr=0.02)
    history = []
    for _ in range(25):
        terms = dropclass_loss(method(images, dropped=1), some_labels(), progress=0.5)
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        history.append((terms.total.item(), terms.suppression.item()))
    assert history[-1][0] < 0.7 * history[0][0]
    assert history[-1][1] < 0.2 * history[0][1]
