"""What training puts around a network is taken off before it is exported."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.export.source import Source, source_from_module
from dropclass_deploy.training import DropClass


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def read(model: nn.Module) -> Source:
    names = ("a", "b", "c", "d")
    return source_from_module(model, ClassTable(names=names), Preprocess(), None, None, None)


def equal(source: Source, model: nn.Module) -> bool:
    wanted = model.state_dict()
    got = source.network.state_dict()
    return set(got) == set(wanted) and all(torch.equal(got[key], value) for key, value in wanted.items())


WRAPPERS = {
    "plain": lambda model: model,
    "compile": torch.compile,
    "parallel": nn.DataParallel,
    "distributed": DistributedDataParallel,
    "both": lambda model: torch.compile(DistributedDataParallel(model)),
}


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("method", [DropClass, lambda model: model], ids=["DropClass", "bare"])
def test_the_plain_network_is_found_inside(networks, wrap, method) -> None:
    model = networks.Tiny()
    found = read(wrap(method(model)))
    assert found.model == "Tiny"
    assert equal(found, model)


@pytest.mark.usefixtures("process_group")
def test_a_wrapper_inside_the_method_goes_too(networks) -> None:
    model = networks.Tiny()
    found = read(DropClass(nn.DataParallel(model)))
    assert (found.model, equal(found, model)) == ("Tiny", True)


def test_a_users_own_module_that_holds_another_stays_whole(networks) -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = networks.Tiny()

        def forward(self, images: Tensor) -> Tensor:
            return 2 * self.module(images)

    model = Doubled()
    found = read(model)
    assert (found.model, equal(found, model)) == ("Doubled", True)
