"""The components of a recipe's loss, composed: with cross-entropy, with DropClass, with each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from component_cases import BESIDE, LOSSES, NAMES, PIXELS, WEIGHT, C, context, images, labels, method, section
from small_network import SmallNetwork
from torch import Tensor, nn

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import ModelError, RecipeError
from dropclass_deploy.training.dropclass import find_classifier
from dropclass_deploy.training.methods import CrossEntropy, StepLoss, build_method
from dropclass_deploy.training.methods.dropout import dropout
from dropclass_deploy.training.recipe import MethodSection

METHODS = ("ce", "ce+block", "dropclass")
EXACT = {"rtol": 2e-5, "atol": 1e-6}
"""Float32 sums of some hundred pixels, added in another order."""


def step(asked: MethodSection, dropped: int | None = None, seed: int = 0, **changes: Any) -> tuple[StepLoss, Any]:
    """One step's loss with its gradients; ``seed`` is of the noise."""
    made = method(asked)
    torch.manual_seed(seed)
    loss = made.loss(images(), labels(), context(dropped, **changes))
    loss.total.backward()
    return loss, made


def gradient(made: Any) -> Tensor:
    return torch.cat([p.grad.flatten() for p in made.model.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("component", LOSSES)
def test_a_loss_stands_by_its_name_and_changes_the_training(name: str, component: str) -> None:
    dropped = 1 if name == "dropclass" else None
    usual, plain = step(section(name=name), dropped)
    loss, changed = step(section(component, name=name), dropped)
    assert float(loss.terms[component]) > 0
    assert loss.total.item() != usual.total.item()
    assert not torch.allclose(gradient(changed), gradient(plain), rtol=1e-3, atol=1e-7)
    assert bool(torch.isfinite(gradient(changed)).all())
    assert set(loss.terms) - set(usual.terms) <= {component, "push"}


NEUTRAL: dict[str, dict[str, Any]] = {
    "focal": {"gamma": 0},
    "boundary": {"weight": 1},
    "ohem": {"threshold": 1.0},
    "logit_adjustment": {"tau": 1e-6},
}
"""Options at which a component changes nothing."""


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("component", NEUTRAL)
@pytest.mark.parametrize("suppress_at", ["labels", "classifier", "elsewhere"])
def test_a_component_that_changes_nothing_gives_the_methods_own_loss(
    name: str, component: str, suppress_at: str
) -> None:
    dropped = 2 if name == "dropclass" else None
    place: Any = {"suppress_at": suppress_at}
    usual, plain = step(section(name=name).model_copy(update=place), dropped)
    asked = section(component, name=name, **{component: NEUTRAL[component]}).model_copy(update=place)
    loss, changed = step(asked, dropped)
    torch.testing.assert_close(loss.total, usual.total, **EXACT)
    for term, value in usual.terms.items():
        torch.testing.assert_close(loss.terms[term], value, **EXACT)
    torch.testing.assert_close(gradient(changed), gradient(plain), rtol=1e-3, atol=2e-6)


def pixel_losses(logits: Tensor, truth: Tensor) -> Tensor:
    """−log softmax of the truth, 0 at ignored pixels, float64."""
    return F.cross_entropy(logits.double(), truth.long(), reduction="none", ignore_index=255)


def class_weights(truth: Tensor) -> Tensor:
    table = torch.cat([WEIGHT.double(), torch.zeros(252, dtype=torch.float64)])
    return table[truth.long()]


def test_boundary_logit_adjustment_and_focal_together() -> None:
    loss, _ = step(section("boundary", "logit_adjustment", "focal"))
    again = method(section())
    shifted = again.model(images())["out"].double() + context().class_log_frequency.double().view(1, -1, 1, 1)
    truth = labels()
    edge = torch.zeros(truth.shape, dtype=torch.bool)
    for n, y, x in torch.cartesian_prod(*map(torch.arange, truth.shape)).tolist():
        around = truth[n, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        edge[n, y, x] = bool(((around != truth[n, y, x]) & (around != 255)).any())
    weight = class_weights(truth) * torch.where(edge, 3.0, 1.0)
    each = pixel_losses(shifted, truth)
    expected = (weight * (1 - (-each).exp()) ** 2 * each).sum() / weight.sum()
    torch.testing.assert_close(loss.total.double(), expected, **EXACT)
    assert loss.terms["ce"] == loss.terms["focal"] == loss.terms["boundary"] == loss.terms["logit_adjustment"]


def test_terms_are_added_by_their_weights() -> None:
    loss, _ = step(section("dice", "lovasz", dice={"weight": 0.25}, lovasz={"weight": 3}))
    terms = {name: float(value) for name, value in loss.terms.items()}
    assert terms["ce"] + 0.25 * terms["dice"] + 3 * terms["lovasz"] == pytest.approx(loss.total.item(), rel=1e-6)
    assert set(terms) == {"ce", "dice", "lovasz"}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("component", ["focal", "boundary", "logit_adjustment", "dice"])
def test_parts_of_a_step_add_up(name: str, component: str) -> None:
    """Each image by itself, times its share, is the whole step: for dice its mean over the images."""
    made = method(section(component, name=name))
    made.module.eval()  # a BatchNorm sees the images of a part only
    where = context(1 if name == "dropclass" else None)
    parts = [(images()[n : n + 1], labels()[n : n + 1]) for n in range(4)]
    weights = torch.stack([made.loss_weights(part, where) for _, part in parts])
    shares = weights / weights.sum(0)
    losses = [made.loss(*part, where, share) for part, share in zip(parts, shares, strict=True)]
    whole = made.loss(images(), labels(), where)
    for term in ("ce", "ce_drop", "suppression"):
        if term in whole.terms:
            torch.testing.assert_close(sum(loss.terms[term] for loss in losses), whole.terms[term], **EXACT)
    if component == "dice":
        alone = torch.stack([made.loss(*part, where).terms["dice"].double() for part in parts])
        mean = (alone * shares[:, -1]).sum()
        torch.testing.assert_close(sum(loss.terms["dice"].double() for loss in losses), mean, **EXACT)


@pytest.mark.parametrize("component", LOSSES)
@pytest.mark.parametrize("name", METHODS)
def test_a_batch_without_labels_costs_nothing(component: str, name: str) -> None:
    made = method(section(component, name=name))
    nothing = torch.full_like(labels(), 255)
    loss = made.loss(images(), nothing, context(None))
    loss.total.backward()
    named = {term: float(value) for term, value in loss.terms.items() if term not in ("uncertainty",)}
    assert named == dict.fromkeys(named, 0.0)
    assert bool(torch.isfinite(gradient(made)).all())


@pytest.mark.parametrize("component", LOSSES)
def test_under_autocast(component: str) -> None:
    made = method(section(component, name="dropclass"))
    with torch.autocast("cpu", torch.bfloat16):
        loss = made.loss(images(), labels(), context(1))
    loss.total.backward()
    assert loss.total.dtype == torch.float32
    assert bool(torch.isfinite(gradient(made)).all())


def test_noise_is_drawn_anew_and_repeated_by_its_seed() -> None:
    for component in ("blv", "uncertainty"):
        first, again, other = (float(step(section(component), seed=seed)[0].terms[component]) for seed in (0, 0, 1))
        assert first == again != other


def test_ignore_label_is_cross_entropy_without_the_labels_of_one_class() -> None:
    made = method(section("ignore_label"))
    assert [made.draw(labels(), context(progress=0.0))] == [None]
    drawn = {made.draw(labels(), context(progress=0.999, step=number)) for number in range(60)}
    assert {0, 1, 2, 3} <= drawn
    loss = made.loss(images(), labels(), context(2))
    without = labels().masked_fill(labels() == 2, 255)
    expected = method(section()).loss(images(), without, context())
    torch.testing.assert_close(loss.total, expected.total, **EXACT)
    assert loss.dropped == 2


def uncertain(**options: Any) -> MethodSection:
    return section("uncertainty", uncertainty=options)


def test_uncertainty_is_the_variance_over_passes_of_dropout() -> None:
    loss, _ = step(uncertain(rate=0.4, passes=5, background="car", weight=2), seed=7)
    torch.manual_seed(7)
    again = method(section())
    features = again.model.body(images())
    torch.manual_seed(7)
    maps = [again.model.head(dropout(features, 0.4)) for _ in range(5)]
    varied = torch.stack(maps).double().var(dim=0).mean(dim=1)
    let_off = again.model.head(features).softmax(1)[:, 1]
    expected = (varied * (1 - let_off.double())).mean()
    assert float(loss.terms["uncertainty"]) == pytest.approx(expected.item(), rel=1e-5)
    assert loss.total.item() == pytest.approx(float(loss.terms["ce"] + 2 * loss.terms["uncertainty"]), rel=1e-6)


def test_uncertainty_is_on_average_what_dropout_of_a_linear_classifier_varies_by() -> None:
    """Var of Σ w·f·m/(1 − p) over masks m: Σ w²·f²·p/(1 − p), whatever draws them."""
    rate = 0.3
    model = method(section()).model
    features, weight = model.body(images()).double(), model.head.weight[..., 0, 0].double()
    expected = torch.einsum("nkhw,ck->nchw", features.square(), weight.square()).mean() * rate / (1 - rate)
    found = [step(uncertain(rate=rate, passes=8), seed=seed)[0].terms["uncertainty"].item() for seed in range(60)]
    # The mean's own error over 60 draws is about 1 %.
    assert sum(found) / len(found) == pytest.approx(expected.item(), rel=0.05)


@pytest.mark.parametrize("name", ["ce", "dropclass"])
def test_pixels_without_a_label_may_have_an_output_of_their_own(name: str) -> None:
    asked = section("uncertainty", name=name, uncertainty={"background": "ignore"})
    made = method(asked)
    made.loss(images(), labels(), context(None)).total.backward()
    assert isinstance(made.objective.beside, nn.Conv2d)  # type: ignore[attr-defined]
    trained = {id(parameter) for parameter in made.module.parameters()}
    for parameter in made.objective.beside.parameters():  # type: ignore[attr-defined]
        assert id(parameter) in trained
        assert parameter.grad is not None
        assert float(parameter.grad.abs().sum()) > 0
    # What is deployed has C outputs, and no part of it.
    assert find_classifier(made.model).num_classes == C
    assert set(made.model.state_dict()) == set(method(section()).model.state_dict())
    assert made.branch() is not None


def test_the_output_of_its_own_learns_the_pixels_without_a_label() -> None:
    made = method(uncertain(background="ignore", weight=1e-6))
    loss = made.loss(images(), labels(), context(None))
    seen = method(section()).model
    features = seen.body(images())
    logits = torch.cat([seen.head(features), made.objective.beside(features)], 1).double()  # type: ignore[attr-defined]
    truth = torch.where(labels() == 255, 4, labels()).long()
    expected = F.cross_entropy(logits, truth, weight=torch.cat([WEIGHT, torch.ones(1)]).double())
    torch.testing.assert_close(loss.terms["ce"].double(), expected, **EXACT)


def test_a_background_that_the_data_do_not_have() -> None:
    with pytest.raises(
        RecipeError, match=r"background is 'tree'; expected a class of the data: road, car, pole, sign; or"
    ):
        method(uncertain(background="tree"))


def test_uncertainty_needs_to_see_the_classifier() -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Conv2d(3, C, 1)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(images) + self.head(2 * images)

    with pytest.raises(ModelError, match=r"input of the network's classifier, and it cannot be found"):
        build_method(Doubled(), uncertain())
    assert isinstance(build_method(Doubled(), section("dice")), CrossEntropy)


CONTRADICTIONS = [
    (("ohem", "focal"), {}, r"lists ohem and focal: both choose the pixels that matter"),
    (("ignore_label",), {"name": "dropclass"}, r"ignore_label is in with, and name is dropclass"),
    (("boundary",), {"name": "dropclass", "drop_divisor": "all"}, r"drop_divisor is all, and boundary divides"),
    (
        ("ignore_label", "uncertainty"),
        {"options": {"uncertainty": {"background": "ignore"}}},
        r"the ignored labels would be",
    ),
    (
        ("uncertainty",),
        {"name": "dropclass", "drop_divisor": "all", "options": {"uncertainty": {"background": "ignore"}}},
        r"drop_divisor is all, and uncertainty divides",
    ),
    (("template",), {"options": {"template": {"weight": 0}}}, r"weight and push are both 0"),
    (("dice",), {"options": {"dice": {"weight": 0}}}, r"greater than 0"),
    (("uncertainty",), {"options": {"uncertainty": {"passes": 1}}}, r"greater than or equal to 2"),
]


@pytest.mark.parametrize(("components", "more", "problem"), CONTRADICTIONS)
def test_contradictions_are_refused(components: tuple[str, ...], more: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        MethodSection.model_validate({"name": "ce", "with": list(components), **more})


def test_pixels_without_a_label_bound_no_object() -> None:
    row = torch.tensor([[[0, 0, 0, 255, 255, 255, 1, 1, 2, 2]]], dtype=torch.uint8)
    alone = method(section("boundary"))
    both = method(section("boundary", "uncertainty", uncertainty={"background": "ignore"}))
    unweighted = context(class_weight=None)
    # Two pixels of weight 3, five of weight 1; the three without a label count in the other one.
    assert alone.loss_weights(row, unweighted)[0] == 2 * 3 + 5
    assert both.loss_weights(row, unweighted)[0] == 2 * 3 + 5 + 3


@pytest.mark.parametrize("name", ["ce", "dropclass"])
@pytest.mark.parametrize("background", [None, "road", "ignore"])
def test_a_network_that_stops_short_of_the_labels_size(name: str, background: str | None) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU())
            self.head = nn.Conv2d(8, C, 1)

        def forward(self, images: Tensor) -> Tensor:
            return F.interpolate(self.head(self.body(images)), scale_factor=2, mode="bilinear")

    table = ClassTable(names=NAMES, palette=((0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0)))
    asked = section("uncertainty", name=name, uncertainty={"background": background})
    made = build_method(Half(), asked, classes=table)
    loss = made.loss(torch.rand(2, 3, 32, 32), torch.zeros(2, 32, 32, dtype=torch.uint8), context())
    loss.total.backward()
    assert float(loss.terms["uncertainty"]) > 0


def test_a_class_that_is_called_ignore_cannot_be_told_from_it() -> None:
    table = ClassTable(names=("road", "ignore", "pole", "sign"), palette=((0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0)))
    with pytest.raises(RecipeError, match=r"the data have a class of this name; rename the class"):
        build_method(SmallNetwork(C), uncertain(background="ignore"), classes=table)


def test_what_is_no_contradiction() -> None:
    everything = [name for name in (*PIXELS, *BESIDE) if name != "focal"]
    made = method(section(*everything, name="dropclass"))
    loss = made.loss(images(), labels(), context(3))
    assert set(everything) <= set(loss.terms)
    section("ignore_label", "uncertainty", uncertainty={"background": NAMES[0]})
