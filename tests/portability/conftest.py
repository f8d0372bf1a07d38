"""A small network of the operators that real ones are made of, exported with dynamic and with fixed sizes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.sliding_window import Window
from dropclass_deploy.export import ExportOptions, export_artifact
from dropclass_deploy.export.mask_format import MaskFormat
from dropclass_deploy.export.sample import procedural_image

# The engines belong to the benchmark; the tests run the same ones.
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

SIZE = (48, 64)


class Small(nn.Module):
    """Strided and depthwise convolutions, a resized branch, a concatenation; logits at a quarter of the resolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6())
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.BatchNorm2d(8), nn.ReLU())
        self.classifier = nn.Conv2d(16, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        deep = self.deep(stem)
        shortcut = nn.functional.interpolate(stem, deep.shape[-2:], mode="bilinear", align_corners=False)
        return self.classifier(torch.cat([deep, shortcut], dim=1))


def balanced(network: Small, images: Tensor) -> Small:
    """The network with biases that give every class its share of ``images``."""
    with torch.no_grad():
        network.classifier.bias -= network(images).mean(dim=(0, 2, 3))
    return network


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Artifacts ``dynamic`` and ``fixed``; ``images`` (1, 48, 64, 3) and torch's ``mask`` of them (1, 48, 64)."""
    preprocess, folder = Preprocess(), tmp_path_factory.mktemp("portability")
    images = procedural_image(SIZE)[None]
    pixels = torch.from_numpy(preprocess.normalise(images))
    network = balanced(Small().eval(), pixels)
    classes = ClassTable(names=("background", "liver", "vessel", "lesion"), rare=(2, 3))
    options = {"dynamic": ExportOptions(), "fixed": ExportOptions(shape=(1, *SIZE))}
    artifacts = {
        name: export_artifact(network, folder / name, classes=classes, preprocess=preprocess, options=option)
        for name, option in options.items()
    }
    with torch.inference_mode():
        logits = network(pixels)
        logits = nn.functional.interpolate(logits, SIZE, mode="bilinear", align_corners=False)
    mask = logits.argmax(dim=1).numpy().astype(np.uint8)
    return SimpleNamespace(**artifacts, images=images, mask=mask, network=network)


FORMS = {
    "int32 NHWC, two at once": ExportOptions(shape=(2, *SIZE), mask_format=MaskFormat("int32", "NHWC")),
    "int64 NCHW": ExportOptions(mask_format=MaskFormat("int64", "NCHW")),
    "floats": ExportOptions(mask_format=MaskFormat(bake_preprocess=False)),
    "window": ExportOptions(window=Window(height=16, width=16)),
}


@pytest.fixture(scope="session")
def forms(small: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same network in other forms that export offers."""
    folder, classes = tmp_path_factory.mktemp("forms"), ("background", "liver", "vessel", "lesion")
    return {
        form: export_artifact(
            small.network, folder / str(number), classes=classes, preprocess=Preprocess(), options=options
        )
        for number, (form, options) in enumerate(FORMS.items())
    }


@pytest.fixture(scope="session")
def javascript() -> Path:
    """The folder with onnxruntime-web, onnxruntime-node and sharp; installed now when they are not there yet."""
    from portability_engines.npm import NpmError, node_modules

    try:
        return node_modules()
    except NpmError as error:
        pytest.skip(f"the JavaScript runtimes are missing: {error}")
