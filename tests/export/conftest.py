"""Small networks and data for the export tests."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engine_artifacts import add_fp16
from torch import Tensor, nn
from trained_street import Street, trained_street

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.export import ExportOptions, export_artifact
from dropclass_deploy.export.shapes import DYNAMIC
from dropclass_deploy.export.to_onnx import Traced, trace

NAMES = ("sky", "road", "tree, old", "cyclist")


class Tiny(nn.Module):
    """Full-resolution logits; BatchNorm and dropout, so that eval mode matters; a linear classifier, for DropClass."""

    def __init__(self, num_classes: int = 4, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.5))
        self.classifier = nn.Conv2d(8, num_classes, 1)
        norm = self.features[1]
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.5, 2.0)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images))


class LowResolution(nn.Module):
    """Logits at a quarter of the resolution, wrapped as ``kind`` says."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.stem = nn.Conv2d(3, 4, 5, stride=4, padding=2)
        self.kind = kind

    def forward(self, images: Tensor) -> object:
        logits = self.stem(images)
        if self.kind == "dict":
            return {"out": logits, "aux": logits * 2}
        return SimpleNamespace(logits=logits) if self.kind == "attribute" else logits


class ConstantLogits(nn.Module):
    """The same logits everywhere, as given: exact ties on demand."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, len(values), 1)
        nn.init.zeros_(self.conv.weight)
        self.conv.bias = nn.Parameter(torch.tensor(values))

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images)


class Branching(nn.Module):
    """A forward that no tracer can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.conv(images)
        return logits * 2 if logits.mean() > 0 else logits


class Frames(Dataset):
    """A few random frames in memory; two of them have the same pixels size, one is odd."""

    def __init__(
        self, sizes: tuple[tuple[int, int], ...] = ((24, 32), (24, 32), (21, 27)), names: tuple[str, ...] = NAMES
    ) -> None:
        generator = np.random.default_rng(7)
        self.spec, self.split = "memory:", "val"
        self.classes = ClassTable(names=names)
        self._images = [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
        self._masks = [generator.integers(0, len(names), size, dtype=np.uint8) for size in sizes]

    def __len__(self) -> int:
        return len(self._images)

    def key(self, index: int) -> str:
        return f"frame{index}"

    def image(self, index: int) -> np.ndarray:
        return self._images[index]

    def mask(self, index: int) -> np.ndarray:
        return self._masks[index]


@pytest.fixture(scope="session")
def networks() -> SimpleNamespace:
    """The classes of this file, by name."""
    return SimpleNamespace(
        Tiny=Tiny, LowResolution=LowResolution, ConstantLogits=ConstantLogits, Branching=Branching, Frames=Frames
    )


@pytest.fixture
def table() -> ClassTable:
    return ClassTable(
        names=NAMES,
        palette=((70, 130, 180), (128, 64, 128), (0, 128, 0), (255, 0, 0)),
        rare=(2, 3),
    )


@pytest.fixture
def preprocess() -> Preprocess:
    return Preprocess()


@pytest.fixture(scope="session")
def dynamic_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Any size, float32 and float16. Shared: build engines from it with an evidence folder of your own."""
    folder = tmp_path_factory.mktemp("engines") / "dynamic"
    return add_fp16(export_artifact(Tiny(), folder, classes=NAMES, preprocess=Preprocess(), name="tiny"))


@pytest.fixture(scope="session")
def static_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One size, whose logits are resized inside. Shared likewise."""
    folder = tmp_path_factory.mktemp("engines") / "static"
    options = ExportOptions(shape=(1, 24, 32))
    module = LowResolution("plain")
    return add_fp16(
        export_artifact(module, folder, classes=NAMES, preprocess=Preprocess(), name="tiny", options=options)
    )


@pytest.fixture(scope="session")
def street(tmp_path_factory: pytest.TempPathFactory) -> Street:
    """The trained network of ``trained_street``, one for all test processes."""
    base = tmp_path_factory.getbasetemp()
    # Under xdist every process has a folder of its own below a common one.
    return trained_street(base.parent if base.name.startswith("popen-") else base)


@pytest.fixture(scope="session")
def street_traced(street: Street) -> Traced:
    """Its ONNX graph with dynamic sizes."""
    return trace(street, DYNAMIC)
