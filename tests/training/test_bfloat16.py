"""bfloat16 on the CPU, end to end: the network in low precision, the losses never."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_network import SmallNetwork
from test_trainer import Teller, recipe, records

from dropclass_deploy.core.errors import TrainingInterruptedError
from dropclass_deploy.training import train
from dropclass_deploy.training.methods import StepContext, build_method
from dropclass_deploy.training.recipe import MethodSection

CLASSES = 12


@pytest.mark.parametrize("name", ["ce", "dropclass"])
def test_losses_are_float32_and_as_exact_as_float32(name: str) -> None:
    model = SmallNetwork(CLASSES)
    method = build_method(model, MethodSection(name=name))
    torch.manual_seed(0)
    images, labels = torch.randn(2, 3, 24, 32), torch.randint(0, CLASSES, (2, 24, 32), dtype=torch.uint8)
    kept: list[torch.Tensor] = []
    model.head.register_forward_hook(lambda _m, _i, out: kept.append(out.detach()))
    context = StepContext(0, 0.5, 0, 255, None, dropped=None)
    with torch.autocast("cpu", torch.bfloat16):
        loss = method.loss(images, labels, context)
    assert kept[0].dtype == torch.bfloat16
    assert loss.total.dtype == torch.float32
    assert {value.dtype for value in loss.terms.values()} == {torch.float32}
    exact = F.cross_entropy(kept[0].double(), labels.long())
    # A mean of 1,536 float32 numbers; summed in bfloat16 it would be off in the third digit.
    assert float(loss.terms["ce"]) == pytest.approx(float(exact), rel=1e-5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SmallNetwork]:
    model = SmallNetwork(CLASSES)
    return train(CONTENT, tmp_path_factory.mktemp("bf16") / "run", model=model), model


CONTENT = recipe(train__precision="bf16", train__steps=30, train__lr=0.02, train__ema=0.5, method__lambda_max=0.0)


def test_the_loss_falls(whole: tuple[Path, SmallNetwork]) -> None:
    losses = [line["ce"] for line in records(whole[0], "train")]
    # By an eighth here; the losses of neighbouring steps differ by a few per cent.
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


def test_the_weights_stay_float32(whole: tuple[Path, SmallNetwork]) -> None:
    assert {value.dtype for value in whole[1].parameters()} == {torch.float32}


@pytest.mark.slow
def test_a_stopped_run_goes_on_exactly(whole: tuple[Path, SmallNetwork], tmp_path: Path) -> None:
    with pytest.raises(TrainingInterruptedError, match="after step 10"):
        train(CONTENT, tmp_path / "run", model=SmallNetwork(CLASSES), reporter=Teller(step=10))
    resumed = SmallNetwork(CLASSES)
    train(CONTENT, tmp_path / "run", model=resumed, resume=True)
    one, other = (records(path, "train") for path in (whole[0], tmp_path / "run"))
    assert [line["loss"] for line in one] == [line["loss"] for line in other]
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in whole[1].state_dict().items())
