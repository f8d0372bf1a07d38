"""The moving average against a literal loop in float64."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from dropclass_deploy.training.loop.weight_average import WeightAverage


class Tied(nn.Module):
    """A network with a tied weight, a BatchNorm, an integer counter and a buffer that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 2, 1)
        self.norm = nn.BatchNorm2d(2)
        self.last = nn.Conv2d(2, 2, 1)
        self.last.weight = self.first.weight
        self.register_buffer("grid", torch.zeros(3), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.norm(self.first(images)))


@pytest.fixture
def network() -> Tied:
    torch.manual_seed(0)
    return Tied()


def _steps(network: nn.Module, count: int) -> Iterator[None]:
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        images = torch.randn(4, 2, 3, 3, generator=generator)
        network(images).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
        yield


def _double(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().double().clone() for name, tensor in network.state_dict().items()}


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def _assert_same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.99])
def test_equals_a_literal_loop_in_float64(network: Tied, decay: float) -> None:
    average = WeightAverage(network, decay)
    expected = _double(network)
    for n, _ in enumerate(_steps(network, 20)):
        average.update(network)
        d = min(decay, (1 + n) / (10 + n))
        for name, tensor in _double(network).items():
            expected[name] = d * expected[name] + (1 - d) * tensor
    with average.applied(network):
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                # 20 float32 roundings of numbers about 1.
                torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)
        # The counter is not averaged but copied.
        assert int(network.norm.num_batches_tracked) == 20


def test_the_decay_warms_up_by_hand() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    average = WeightAverage(module, 0.15)
    nn.init.ones_(module.weight)
    average.update(module)  # d = min(0.15, 1/10): 0.1 · 0 + 0.9 · 1
    with average.applied(module):
        assert module.weight.item() == pytest.approx(0.9, rel=1e-6)  # float32
    average.update(module)  # d = min(0.15, 2/11): 0.15 · 0.9 + 0.85 · 1
    with average.applied(module):
        assert module.weight.item() == pytest.approx(0.985, rel=1e-6)


def test_starts_as_the_module_itself(network: Tied) -> None:
    average, before = WeightAverage(network, 0.9), _state(network)
    with average.applied(network):
        _assert_same_bits(_state(network), before)


def test_swaps_back_bit_for_bit_in_the_same_tensors(network: Tied) -> None:
    average = WeightAverage(network, 0.9)
    for _ in _steps(network, 3):
        average.update(network)
    objects = {name: id(tensor) for name, tensor in network.state_dict(keep_vars=True).items()}
    before = _state(network)
    with average.applied(network):
        assert not torch.equal(network.first.weight, before["first.weight"])
        assert network.last.weight is network.first.weight
    _assert_same_bits(_state(network), before)
    assert {name: id(tensor) for name, tensor in network.state_dict(keep_vars=True).items()} == objects


def test_swaps_back_when_the_block_raises(network: Tied) -> None:
    average = WeightAverage(network, 0.9)
    for _ in _steps(network, 3):
        average.update(network)
    before = _state(network)
    with pytest.raises(KeyError, match="inside"), average.applied(network):
        raise KeyError("inside")
    _assert_same_bits(_state(network), before)


def test_training_goes_on_as_if_nothing_was_swapped() -> None:
    torch.manual_seed(0)
    watched, plain = Tied(), Tied()
    plain.load_state_dict(watched.state_dict())
    average = WeightAverage(watched, 0.9)
    for _ in _steps(watched, 5):
        average.update(watched)
        with average.applied(watched):
            watched.eval()(torch.ones(1, 2, 3, 3))
            watched.train()
    for _ in _steps(plain, 5):
        pass
    _assert_same_bits(_state(watched), _state(plain))


def test_what_the_block_trains_is_not_kept(network: Tied) -> None:
    average, before = WeightAverage(network, 0.9), _state(network)
    with average.applied(network):
        network(torch.randn(4, 2, 3, 3))  # BatchNorm moves its running statistics
    _assert_same_bits(_state(network), before)


def test_a_bfloat16_network_has_a_float32_average() -> None:
    module = nn.Linear(1, 1, bias=False).bfloat16()
    nn.init.ones_(module.weight)
    average = WeightAverage(module, 0.999)
    average.updates = 10**6  # the decay has warmed up
    with torch.no_grad():
        module.weight += 1
    for _ in range(100):
        average.update(module)
    # In bfloat16 the first step, 1 → 1.001, would round back to 1 (its neighbour is 1.0078) and nothing ever move.
    assert average.state_dict()["average"]["weight"].item() == pytest.approx(2 - 0.999**100, rel=1e-5)


def test_a_float64_network_keeps_its_precision() -> None:
    module = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(module.weight, 1 / 3)
    average, before = WeightAverage(module, 0.5), module.weight.detach().clone()
    average.update(module)
    with average.applied(module):
        assert torch.equal(module.weight, before)


def test_goes_on_from_its_checkpoint(network: Tied) -> None:
    unbroken = WeightAverage(network, 0.9)
    saved = None
    for index, _ in enumerate(_steps(network, 6)):
        unbroken.update(network)
        if index == 2:
            saved = copy.deepcopy(unbroken.state_dict())
            resumed = WeightAverage(Tied(), 0.9)
            resumed.load_state_dict(saved)
        elif saved is not None:
            resumed.update(network)
    assert resumed.updates == unbroken.updates == 6
    _assert_same_bits(resumed.state_dict()["average"], unbroken.state_dict()["average"])


def test_its_checkpoint_is_read_with_weights_only(network: Tied, tmp_path) -> None:
    torch.save(WeightAverage(network, 0.9).state_dict(), tmp_path / "average.pt")
    loaded = torch.load(tmp_path / "average.pt", weights_only=True)
    WeightAverage(network, 0.9).load_state_dict(loaded)


def test_averages_what_a_state_dict_holds(network: Tied) -> None:
    # Not "grid": it is registered as not persistent.
    assert WeightAverage(network, 0.9).state_dict()["average"].keys() == network.state_dict().keys()


def test_follows_a_module_to_another_device(network: Tied) -> None:
    # A move to the meta device also unties the tied weight; the names stay.
    average = WeightAverage(network, 0.9)
    average.update(network.to("meta"))
    assert {tensor.device.type for tensor in average.state_dict()["average"].values()} == {"meta"}


def test_another_network_is_refused_and_nothing_changes(network: Tied) -> None:
    average = WeightAverage(network, 0.9)
    before = copy.deepcopy(average.state_dict()["average"])
    with pytest.raises(ValueError, match=r"'first.weight' is of shape \(3, 2, 1, 1\).*\(2, 2, 1, 1\)"):
        average.load_state_dict({"updates": 1, "average": before | {"first.weight": torch.zeros(3, 2, 1, 1)}})
    with pytest.raises(ValueError, match=r"'first\.weight' is missing"):
        average.update(nn.Linear(2, 2))
    _assert_same_bits(average.state_dict()["average"], before)


def test_no_update_while_the_average_is_swapped_in(network: Tied) -> None:
    average = WeightAverage(network, 0.9)
    with average.applied(network), pytest.raises(RuntimeError, match="inside applied"):
        average.update(network)
    average.update(network)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_that_is_no_share_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="must be in"):
        WeightAverage(nn.Linear(1, 1), decay)
