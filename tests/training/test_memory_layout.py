"""channels_last while training: the same network, laid out otherwise for a while."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_trainer import DATA, Own, Teller, recipe, records
from torch import Tensor, nn

from dropclass_deploy.core.errors import RecipeError, TrainingInterruptedError
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.training import train
from dropclass_deploy.training.batches.augment import normalise
from dropclass_deploy.training.loop.memory_layout import channels_last

CLASSES = len(open_dataset(DATA, "val").classes)
LAST = torch.channels_last


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4), nn.Flatten()
    )


def test_only_weights_that_gain_are_moved_and_all_come_back() -> None:
    module = network()
    before = [(parameter, parameter.detach().clone(), parameter.stride()) for parameter in module.parameters()]
    with channels_last(module):
        assert module[0].weight.stride() == (27, 1, 9, 3)  # (8, 3, 3, 3) as 8 × 3 × 3 pixels of 3 channels
        assert not module[0].weight.is_contiguous()
        assert all(p.stride() == stride for p, _, stride in before[2:])
        assert all(torch.equal(parameter, value) for parameter, value, _ in before)
    after = list(module.parameters())
    for (parameter, value, stride), now in zip(before, after, strict=True):
        assert now is parameter
        assert torch.equal(now, value)
        assert now.stride() == stride


def test_the_former_layout_comes_back_after_an_error_and_nothing_moves_when_off() -> None:
    module = network()
    with pytest.raises(KeyError, match="lost"), channels_last(module):
        raise KeyError("lost")
    assert module[0].weight.is_contiguous()
    with channels_last(module, enabled=False):
        assert module[0].weight.is_contiguous()


def test_weights_that_share_memory_keep_sharing_it() -> None:
    flat = torch.randn(2 * 8 * 3 * 9)
    module = nn.ModuleList([nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(3, 8, 3, bias=False)])
    for layer, part in zip(module, flat.view(2, 8, 3, 3, 3), strict=True):
        layer.weight = nn.Parameter(part)
    with channels_last(module):
        flat.zero_()
        assert not module[0].weight.any()
    flat.fill_(1)
    assert module[1].weight.all()


def test_inputs_have_the_same_values_in_either_layout() -> None:
    images = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    scale, shift = torch.rand(3), torch.rand(3)
    plain, last = (normalise(images, scale, shift, channels_last=on) for on in (False, True))
    assert torch.equal(plain, last)
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=LAST)


class Watching(Own):
    """Notes the layout of what it is trained and evaluated with."""

    def __init__(self, classes: int) -> None:
        torch.manual_seed(4)
        super().__init__(classes)
        self.seen: list[tuple[bool, bool, bool]] = []

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        weight = self.body[0].weight
        # Crops only: what the network is probed with before training is another matter.
        trained = self.training and tuple(x.shape[-2:]) == recipe().train.crop
        self.seen.append((trained, x.is_contiguous(memory_format=LAST), weight.is_contiguous(memory_format=LAST)))
        return super().forward(x)


def test_training_sees_channels_last_and_the_caller_gets_the_former_layout(tmp_path: Path) -> None:
    model = Watching(CLASSES)
    path = train(recipe(), tmp_path / "run", model=model)
    assert {seen[1:] for seen in model.seen if seen[0]} == {(True, True)}
    # The last evaluations are of the network as whoever loads it has it.
    assert model.seen[-1] == (False, False, False)
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    saved = load_file(path / "model.safetensors")
    assert all(torch.equal(saved[key], value) for key, value in model.state_dict().items())


@pytest.mark.slow
def test_contiguous_training_differs_by_rounding_only_and_is_another_run(tmp_path: Path) -> None:
    models = [Watching(CLASSES), Watching(CLASSES)]
    settings = [recipe(train__channels_last=on, method__name="ce") for on in (True, False)]
    runs = [
        train(content, tmp_path / str(n), model=model)
        for n, (content, model) in enumerate(zip(settings, models, strict=True))
    ]
    assert {seen[1:] for seen in models[1].seen if seen[0]} == {(False, False)}
    one, other = ([line["loss"] for line in records(run, "train")] for run in runs)
    # Float32 sums of 27 products in another order, six steps long.
    assert one == pytest.approx(other, rel=1e-4)
    assert settings[0].digest() != settings[1].digest()


@pytest.mark.slow
def test_a_stopped_run_of_the_callers_own_network_goes_on_exactly(tmp_path: Path) -> None:
    whole, stopped, resumed = Watching(CLASSES), Watching(CLASSES), Watching(CLASSES)
    content = recipe(train__ema=0.5)
    train(content, tmp_path / "whole", model=whole)
    with pytest.raises(TrainingInterruptedError, match="after step 4"):
        train(content, tmp_path / "run", model=stopped, reporter=Teller(step=4))
    assert all(parameter.is_contiguous() for parameter in stopped.parameters())
    train(content, tmp_path / "run", model=resumed, resume=True)
    first, second = (records(tmp_path / name, "train") for name in ("whole", "run"))
    assert [line["loss"] for line in first] == [line["loss"] for line in second]
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in whole.state_dict().items())


class Viewing(Own):
    """Needs contiguous features; in training only when ``always`` is false."""

    def __init__(self, classes: int, *, always: bool) -> None:
        super().__init__(classes)
        self.always = always

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.body(x)
        if self.always or self.training:
            features = features.view(len(x), -1).view(features.shape)
        return {"out": self.head(features)}


def test_a_network_that_cannot_take_it_is_trained_contiguous_and_told(tmp_path: Path) -> None:
    teller = Teller()
    train(recipe(train__steps=1), tmp_path / "run", model=Viewing(CLASSES, always=True), reporter=teller)
    assert any("takes no channels_last tensors (view size is not compatible" in note for note in teller.notes)


def test_one_that_fails_in_training_alone_names_the_key(tmp_path: Path) -> None:
    model = Viewing(CLASSES, always=False)
    with pytest.raises(RecipeError, match=r"cannot be trained in channels_last .*set train\.channels_last: false"):
        train(recipe(), tmp_path / "run", model=model)
    train(recipe(train__channels_last=False, train__steps=1), tmp_path / "other", model=model)
