"""Two real processes (gloo) against one process with the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.ops import FrozenBatchNorm2d

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.training.parallel.batchnorm_sync import _synchronised_class, synchronised

# Float64 on both sides; sums in another order: some hundred roundings of numbers about 1 (and gradients about 10).
EXACT = {"rtol": 1e-10, "atol": 1e-11}


def _network(middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), middle, nn.Conv2d(4, 2, 1))


def _frozen() -> nn.Module:
    network = _network(nn.BatchNorm2d(4))
    network[1].eval()
    network[1].running_mean.normal_()
    return network


# name: network, shape of the whole batch, images of process 0 (the rest goes to process 1)
Case = tuple[Callable[[], nn.Module], tuple[int, ...], int]
IMAGES = (4, 3, 5, 6)
CASES: dict[str, Case] = {
    "equal": (lambda: _network(nn.BatchNorm2d(4)), IMAGES, 2),
    "unequal": (lambda: _network(nn.BatchNorm2d(4)), IMAGES, 3),
    "nothing in one process": (lambda: nn.BatchNorm2d(3), IMAGES, 4),
    "with activation": (lambda: _network(BatchNormAct2d(4)), IMAGES, 3),
    "with another activation": (lambda: _network(BatchNormAct2d(4, act_layer=nn.SiLU)), IMAGES, 1),
    "1d, one value a channel in a process": (lambda: nn.BatchNorm1d(3), (4, 3), 3),
    "1d with length": (lambda: nn.BatchNorm1d(3), (4, 3, 5), 3),
    "3d": (lambda: nn.BatchNorm3d(3), (4, 3, 2, 3, 4), 3),
    "cumulative": (lambda: _network(nn.BatchNorm2d(4, momentum=None)), IMAGES, 3),
    "without affine": (lambda: nn.BatchNorm2d(3, affine=False), IMAGES, 3),
    "without running statistics": (lambda: nn.BatchNorm2d(3, track_running_stats=False), IMAGES, 3),
    "frozen": (_frozen, IMAGES, 3),
    "eval": (lambda: _network(BatchNormAct2d(4)).eval(), IMAGES, 3),
}


def _case(name: str) -> tuple[nn.Module, Tensor, Tensor, int]:
    """Network, two whole batches (2, N, …), weights of the loss by output value, share of process 0; all float64."""
    make, shape, first = CASES[name]
    torch.manual_seed(0)
    network = make().double()
    for layer in network.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.affine:
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    batches = 3 * torch.randn(2, *shape, dtype=torch.float64) + 2
    with torch.no_grad():
        modes = [layer.training for layer in network.modules()]
        loss_weight = torch.randn_like(network.eval()(batches[0]))
        for layer, mode in zip(network.modules(), modes, strict=True):
            layer.training = mode
    return network, batches, loss_weight, first


def _run(network: nn.Module, batches: Tensor, loss_weight: Tensor) -> dict[str, Any]:
    """Two passes; outputs and input gradients of both, parameter gradients summed over both, buffers after both."""
    inputs = batches.clone().requires_grad_()
    outputs = [network(batch) for batch in inputs]
    sum((output * loss_weight).sum() for output in outputs).backward()
    return {
        "outputs": torch.stack(outputs).detach(),
        "input gradients": inputs.grad,
        "parameter gradients": {name: p.grad for name, p in network.named_parameters()},
        "buffers": {name: b.clone() for name, b in network.named_buffers()},
    }


def _share(rank: int, first: int) -> slice:
    return slice(0, first) if rank == 0 else slice(first, None)


def _run_share(name: str, rank: int) -> dict[str, Any]:
    network, batches, loss_weight, first = _case(name)
    own = _share(rank, first)
    with synchronised(network):
        return _run(network, batches[:, own], loss_weight[own])


def _train_with_ddp(rank: int, *, built_inside: bool) -> dict[str, Tensor]:
    network, batches, loss_weight, first = _case("with activation")
    own = _share(rank, first)
    called = None if built_inside else DistributedDataParallel(network)
    with synchronised(network):
        called = called or DistributedDataParallel(network)
        _train(network, called, batches[:, own], loss_weight[own])
    return network.state_dict()


def _train(network: nn.Module, called: nn.Module, batches: Tensor, loss_weight: Tensor) -> None:
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    for batch in batches:
        optimiser.zero_grad()
        (called(batch) * loss_weight).sum().backward()
        optimiser.step()


def _far_from_zero(rank: int) -> Tensor:
    """Float32 values of mean 10,000 and variance 1: E[x²] − E[x]² would be off by several units."""
    values = _far_values()[_share(rank, 3)]
    layer = nn.BatchNorm2d(3, momentum=1.0)
    with synchronised(layer):
        layer(values)
    return layer.running_var


def _far_values() -> Tensor:
    return 10_000 + torch.randn(IMAGES, generator=torch.Generator().manual_seed(0))


def _under_autocast(rank: int) -> dict[str, Any]:
    network, images = _network(BatchNormAct2d(4)), torch.ones(2, 3, 5, 6) * (rank + 1)
    with synchronised(network), torch.autocast("cpu", torch.bfloat16):
        output = network(images)
    output.float().sum().backward()
    return {"dtype": output.dtype, "gradient": network[1].weight.grad.dtype}


class Shared(nn.Module):
    """One BatchNorm under two names, and in a list that torch does not know of."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.again = nn.Sequential(self.norm, FrozenBatchNorm2d(3))
        self.hidden = [self.norm]


def _what_changes() -> dict[str, Any]:
    network = Shared()
    norm, frozen = network.norm, network.again[1]
    parts = {name: id(part) for name, part in network.state_dict(keep_vars=True).items()}
    facts: dict[str, Any] = {}
    with synchronised(network):
        facts["class inside"] = type(norm).__name__
        facts["still a BatchNorm2d"] = isinstance(norm, nn.BatchNorm2d)
        facts["aliases inside"] = network.norm is network.again[0] is network.hidden[0] is norm
        facts["frozen inside"] = type(frozen) is FrozenBatchNorm2d
        facts["state inside"] = {n: id(p) for n, p in network.state_dict(keep_vars=True).items()} == parts
        with synchronised(network):
            facts["class twice inside"] = type(norm).__name__
        facts["class after the inner block"] = type(norm).__name__
        network.eval()
    facts["mode after"] = norm.training
    facts["class after"] = type(norm).__name__
    facts["aliases after"] = network.norm is network.again[0] is network.hidden[0] is norm
    facts["state after"] = {n: id(p) for n, p in network.state_dict(keep_vars=True).items()} == parts
    return facts


def _message(kind: type[Exception], action: Callable[[], Any]) -> str:
    try:
        action()
    except kind as error:
        return str(error)
    return "nothing was raised"


def _raise_inside(layer: nn.Module) -> None:
    with synchronised(layer):
        raise KeyError("inside")


class Own(nn.BatchNorm2d):
    """A BatchNorm with a forward pass of its own."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).sigmoid()


def _what_is_refused(rank: int) -> dict[str, str]:
    layer = nn.BatchNorm1d(3)

    def too_few() -> None:
        with synchronised(layer):
            layer(torch.zeros(1 if rank == 0 else 0, 3))

    def foreign() -> None:
        with synchronised(nn.Sequential(nn.BatchNorm2d(3), Own(3))):
            pass

    return {
        "one value": _message(ValueError, too_few),
        "foreign": _message(ModelError, foreign),
        "raised inside": _message(KeyError, lambda: _raise_inside(layer)),
        "class after raising": type(layer).__name__,
    }


def _process(rank: int, folder: str) -> None:
    store = f"file://{folder}/store"
    # A process that waits for a dead one must not wait for half an hour.
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    result = {
        "cases": {name: _run_share(name, rank) for name in CASES},
        "ddp": [_train_with_ddp(rank, built_inside=inside) for inside in (False, True)],
        "far": _far_from_zero(rank),
        "autocast": _under_autocast(rank),
        "changes": _what_changes(),
        "refused": _what_is_refused(rank),
    }
    torch.save(result, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


slow = pytest.mark.slow  # two processes have to import torch


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the two processes found; they are started once for the whole file."""
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(_process, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one_with_the_whole_batch(both: list[dict[str, Any]], name: str) -> None:
    network, batches, loss_weight, first = _case(name)
    one, two = _run(network, batches, loss_weight), [rank["cases"][name] for rank in both]
    for what in ("outputs", "input gradients"):
        assert [part[what].shape[1] for part in two] == [first, 4 - first]
        torch.testing.assert_close(torch.cat([part[what] for part in two], dim=1), one[what], **EXACT)
    for name, gradient in one["parameter gradients"].items():
        # Each process has its own share; DistributedDataParallel's average is half of their sum.
        shares = [part["parameter gradients"][name] for part in two]
        torch.testing.assert_close(shares[0] + shares[1], gradient, **EXACT)
    for part in two:
        torch.testing.assert_close(part["buffers"], one["buffers"], **EXACT)


@slow
def test_training_with_ddp_equals_training_in_one_process(both: list[dict[str, Any]]) -> None:
    network, batches, loss_weight, _ = _case("with activation")
    # DistributedDataParallel averages the gradients of the two losses, whose sum is the whole's.
    _train(network, network, batches, loss_weight / 2)
    for rank in both:
        # The wrapper built before the block, and inside it.
        for state in rank["ddp"]:
            torch.testing.assert_close(state, network.state_dict(), **EXACT)


@slow
def test_the_variance_survives_values_far_from_zero(both: list[dict[str, Any]]) -> None:
    expected = _far_values().double().var(dim=(0, 2, 3), correction=1).float()
    for rank in both:
        # Float32 holds each process's mean of 10,000 to 5e-4; times the distance of the two means (below 0.5), twice, and
        # the shares 3/4 · 1/4, that is 1e-4.
        torch.testing.assert_close(rank["far"], expected, rtol=1e-4, atol=0)


@slow
def test_autocast_keeps_the_types_of_one_process(both: list[dict[str, Any]]) -> None:
    assert both[0]["autocast"] == both[1]["autocast"] == {"dtype": torch.bfloat16, "gradient": torch.float32}


@slow
def test_the_modules_stay_the_objects_they_are(both: list[dict[str, Any]]) -> None:
    assert both[0]["changes"] == {
        "class inside": "SynchronisedBatchNorm2d",
        "still a BatchNorm2d": True,
        "aliases inside": True,
        "frozen inside": True,
        "state inside": True,
        "class twice inside": "SynchronisedBatchNorm2d",
        "class after the inner block": "SynchronisedBatchNorm2d",
        "mode after": False,
        "class after": "BatchNorm2d",
        "aliases after": True,
        "state after": True,
    }


@slow
def test_one_value_a_channel_in_all_processes_is_refused_in_torchs_words(both: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="Expected more than 1 value per channel") as plain:
        nn.BatchNorm1d(3)(torch.zeros(1, 3))
    for rank in both:
        assert rank["refused"]["one value"].startswith(str(plain.value).partition(", got")[0])


@slow
def test_a_batchnorm_with_its_own_forward_is_refused(both: list[dict[str, Any]]) -> None:
    assert "1 is a Own, a BatchNorm with a forward pass of its own" in both[0]["refused"]["foreign"]


@slow
def test_the_classes_come_back_when_the_block_raises(both: list[dict[str, Any]]) -> None:
    assert both[0]["refused"]["raised inside"] == "'inside'"
    assert both[0]["refused"]["class after raising"] == "BatchNorm1d"


@pytest.fixture
def group_of_one(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_one_process_changes_nothing(group_of_one: None) -> None:
    _assert_nothing_happens()


def test_no_process_group_changes_nothing() -> None:
    _assert_nothing_happens()


def _assert_nothing_happens() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), Own(3))
    with synchronised(network):
        assert [type(layer) for layer in network] == [nn.BatchNorm2d, Own]


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
def test_the_class_for_gpus_is_torchs_and_keeps_the_activation(kind: type[nn.BatchNorm2d]) -> None:
    # Without a process group torch's SyncBatchNorm runs on a CPU too, as a plain BatchNorm: what is around it shows.
    ours, plain, images = kind(3), kind(3), torch.randn(IMAGES)
    ours.__class__ = _synchronised_class(kind, False)
    assert isinstance(ours, nn.SyncBatchNorm)
    for _ in ("train", "eval"):
        assert torch.equal(ours(images), plain(images))
        assert torch.equal(ours.eval().running_var, plain.eval().running_var)
