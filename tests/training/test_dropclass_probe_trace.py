"""The probe leaves a network exactly as it was."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.training.dropclass import find_classifier


class Network(nn.Module):
    """Body → classifier → what ``finish`` makes of (logits, images)."""

    def __init__(self, classifier: nn.Module, finish=lambda logits, images: logits, body: nn.Module | None = None):
        super().__init__()
        self.body = body or nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.classifier = classifier
        self.finish = finish

    def forward(self, images: Tensor):
        return self.finish(self.classifier(self.body(images)), images)


def resize(align_corners: bool):
    def finish(logits: Tensor, images: Tensor) -> Tensor:
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=align_corners)

    return finish


class Restless(nn.Module):
    """Draws random numbers, counts its passes in buffers even in eval mode, and replaces some of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 1)
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))
        self.register_buffer("replaced", torch.arange(3.0))
        self.register_buffer("grown", torch.zeros(2))
        self.register_buffer("late", None)
        self.register_buffer("not_a_number", torch.full((2,), torch.nan), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        self.replaced = self.replaced + torch.rand(3)
        self.grown = torch.cat([self.grown, torch.ones(1)])
        self.late = torch.ones(4)
        self.register_buffer("new", torch.ones(1))
        return self.conv(images + 0 * torch.rand_like(images))


def probe_is_invisible(model: nn.Module, probe) -> None:
    """Run ``probe`` and compare everything that a later step could see."""
    state = {key: (value, value.clone()) for key, value in model.state_dict(keep_vars=True).items()}
    buffers = dict(model.named_buffers())
    modes = [module.training for module in model.modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    rng = torch.get_rng_state()
    probe()
    assert torch.equal(torch.get_rng_state(), rng)
    assert [module.training for module in model.modules()] == modes
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks
    after = model.state_dict(keep_vars=True)
    assert list(after) == list(state)
    assert all(after[key] is value and torch.equal(value, copied) for key, (value, copied) in state.items())
    assert dict(model.named_buffers()).keys() == buffers.keys()
    assert all(buffer is buffers[name] for name, buffer in model.named_buffers())
    assert all(parameter.grad is None for parameter in model.parameters())


def mixed(model: nn.Module) -> nn.Module:
    model.train()
    for index, module in enumerate(model.modules()):
        module.training = index % 2 == 0
    return model


@pytest.mark.parametrize("mode", [nn.Module.train, nn.Module.eval, mixed], ids=["train", "eval", "mixed"])
def test_the_probe_leaves_no_trace(mode):
    model = mode(Network(nn.Sequential(nn.Dropout(0.5), nn.Conv2d(8, 5, 1)), resize(False)))
    probe_is_invisible(model, lambda: find_classifier(model))


def test_the_probe_leaves_no_trace_in_a_module_that_changes_its_buffers_in_eval():
    model = Restless()
    probe_is_invisible(model, lambda: find_classifier(model))


def test_the_probe_leaves_no_trace_when_it_fails():
    def fail(logits: Tensor, images: Tensor) -> Tensor:
        raise ValueError("first line\nsecond line")

    model = mixed(Network(Restless(), fail, body=nn.BatchNorm2d(3)))

    def probe() -> None:
        with pytest.raises(ModelError, match=r"ValueError: first line; pass an input") as caught:
            find_classifier(model)
        assert "second line" not in str(caught.value)

    probe_is_invisible(model, probe)


def test_the_probe_leaves_no_trace_when_the_classifier_is_not_found():
    model = Network(nn.Conv2d(8, 5, 1), lambda logits, images: logits.softmax(1)).train()

    def probe() -> None:
        with pytest.raises(ModelError, match="cannot be found"):
            find_classifier(model)

    probe_is_invisible(model, probe)


def test_the_probe_gives_the_same_answer_in_every_mode_and_twice():
    model = Network(nn.Sequential(nn.Dropout(0.5), nn.Conv2d(8, 5, 1)), resize(True))
    answers = {find_classifier(change(copy.deepcopy(model))) for change in (nn.Module.train, nn.Module.eval, mixed)}
    assert len(answers | {find_classifier(model)}) == 1
