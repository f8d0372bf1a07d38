"""Strip gives the plain network back; hooks, copies and training leave it as it would be without the method."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.training.dropclass import DropClass, strip


class Network(nn.Module):
    """A body with BatchNorm and dropout, a 1×1 classifier at a quarter of the size, a resize."""

    def __init__(self, classes: int = 5, classifier: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.2)
        )
        self.classifier = classifier or nn.Conv2d(8, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.classifier(self.body(images))
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)


class Nested(nn.Module):
    """What DistributedDataParallel and DataParallel look like from outside."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)


def network(seed: int = 0, **options) -> Network:
    torch.manual_seed(seed)
    return Network(**options)


def nonlinear() -> Network:
    torch.manual_seed(0)
    return Network(
        classifier=nn.Sequential(
            nn.Hardswish(inplace=True), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 1)
        )
    )


def images(count: int = 2, height: int = 16, width: int = 24, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def hook_count(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in module.modules())


def test_strip_is_the_very_object():
    model = network()
    assert strip(DropClass(model)) is model


@pytest.mark.parametrize("build", [network, nonlinear])
def test_keys_tensors_and_outputs_are_those_of_before_bit_for_bit(build):
    model = build().eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    names = list(before)
    expected = model(images())
    method = DropClass(model, "classifier")
    stripped = strip(method)
    assert list(stripped.state_dict()) == names
    assert all(torch.equal(value, before[key]) for key, value in stripped.state_dict().items())
    assert torch.equal(stripped(images()), expected)
    for dropped in (None, 1):
        assert torch.equal(method(images(), dropped=dropped).logits, expected)
    assert all(torch.equal(value, before[key]) for key, value in stripped.state_dict().items())


@pytest.mark.parametrize("build", [network, nonlinear])
def test_training_steps_update_the_statistics_as_without_the_method(build):
    plain, wrapped = build().train(), build().train()
    method = DropClass(wrapped, "classifier").train()
    torch.manual_seed(7)
    expected = plain(images())
    torch.manual_seed(7)
    result = method(images(), dropped=2)
    assert torch.equal(result.logits, expected)
    for (key, value), other in zip(wrapped.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(value, other), key


def test_the_training_modes_survive_wrapping():
    model = network().train()
    model.body[1].eval()
    modes = [module.training for module in model.modules()]
    DropClass(model)
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("build", [network, nonlinear])
def test_no_hook_is_left_after_a_pass(build):
    method = DropClass(build(), "classifier")
    method(images(), dropped=1)
    assert hook_count(method) == 0


@pytest.mark.parametrize("part", ["body", "classifier", "branch"])
def test_no_hook_is_left_after_a_failing_pass(part: str):
    method = DropClass(network())

    def fail(module, inputs):
        raise RuntimeError("out of luck")

    target = method.branch if part == "branch" else method.model.get_submodule(part)
    handle = target.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of luck"):
        method(images(), dropped=1)
    handle.remove()
    assert hook_count(method) == 0


def test_hooks_of_the_user_stay():
    model = network()
    seen = []
    model.classifier.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    method = DropClass(model)
    method(images())
    assert hook_count(method) == 1
    assert torch.Size((2, 5, 4, 6)) in seen


@pytest.mark.parametrize("build", [network, nonlinear])
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_are_equal_and_independent(build, copier):
    method = DropClass(build(), "classifier", divisor="all").eval()
    method(images(), dropped=1)
    twin = copier(method)
    assert torch.equal(twin(images(), dropped=1).drop_logits, method(images(), dropped=1).drop_logits)
    assert strip(twin) is not strip(method)
    with torch.no_grad():
        twin.branch.conv.weight.zero_()
    assert method.branch.conv.weight.abs().sum() > 0


def test_the_state_dict_round_trip():
    method, other = DropClass(network(0)).eval(), DropClass(network(1)).eval()
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(images(), 1).drop_logits, method(images(), 1).drop_logits)


@pytest.mark.parametrize(
    "wrap",
    [
        Nested,
        nn.DataParallel,
        lambda m: Nested(Nested(m)),
        lambda m: torch.compile(m, backend="eager"),
        lambda m: Nested(torch.compile(m, backend="eager")),
    ],
    ids=["module", "DataParallel", "twice", "compiled", "compiled in module"],
)
def test_strip_looks_through_wrappers(wrap):
    model = network()
    assert strip(wrap(DropClass(model))) is model


@pytest.mark.parametrize(
    "thing", [network(), Nested(network()), nn.Sequential(), None, "model"], ids=lambda t: type(t).__name__
)
def test_strip_of_something_else_is_refused(thing):
    with pytest.raises(ModelError, match=rf"strip was given a {type(thing).__name__}; expected a DropClass"):
        strip(thing)
