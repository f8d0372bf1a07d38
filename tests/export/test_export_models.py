"""Every network by name goes the whole way: two steps of DropClass, strip, export, verify."""

from pathlib import Path

import numpy as np
import pytest

from dropclass_deploy.core.errors import ArtifactError
from dropclass_deploy.core.manifest import read_manifest
from dropclass_deploy.export import export_artifact
from dropclass_deploy.export.from_artifact import network_from_artifact, reference_from_artifact
from dropclass_deploy.serving import Segmenter, verify
from dropclass_deploy.training import load_recipe, train

DATA = "synthetic:size=32x48,train=4,val=2,unbiased=1"
RECIPE = """\
data: "{data}"
model: {model}
method: {{name: dropclass}}
train: {{steps: 2, batch_size: 2, seed: 1}}
"""
FACTORY = """\
from torch import nn


def network(num_classes, width):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, num_classes, 1)
    )
"""
PYTHON = "python:network_beside_the_recipe:network"
MODELS = {
    "lite0": "{name: lite0, options: {width: 8}}",
    "deeplabv3_mobilenet_v3_large": "{name: deeplabv3_mobilenet_v3_large}",
    "hrnetv1_w18_small": "{name: hrnetv1_w18_small}",
    "hrnetv2_w18_small": "{name: hrnetv2_w18_small}",
    "unet": "{name: unet, options: {width: 4}}",
    "hourglass": "{name: hourglass, options: {blocks: 2, channels: 4, activation: gelu}}",
    "vgg_resnet": "{name: vgg_resnet, options: {stages: 3, width: 4, down: stride}}",
    # Its images must be multiples of 32, so that the graph computes a size, which 32×48 and those below show.
    "timm": '{name: "timm:test_convnext", options: {width: 8}}',
    "python": f'{{name: "{PYTHON}", options: {{width: 6}}}}',
}


CHOSEN = ("lite0", "unet")
"""Every round; the others are built of the same parts, or by libraries."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.chosen if name in CHOSEN else ()) for name in MODELS],
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of a run of two steps, with dynamic N, H and W."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "recipe.yaml").write_text(RECIPE.format(data=DATA, model=MODELS[request.param]), encoding="utf-8")
    (folder / "network_beside_the_recipe.py").write_text(FACTORY, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = train(load_recipe(folder / "recipe.yaml"), folder / "run")
        return export_artifact(run, folder / "artifact")


pytestmark = pytest.mark.slow


def test_the_exported_network_is_verified(exported: Path):
    report = verify(exported, data=DATA)
    assert report.pixel_disagreement == 0.0
    # float32 against float32 is judged by the pixels, for which two images are enough.
    assert report.verdict == "pass"


@pytest.mark.parametrize("size", [(1, 1), (33, 65), (37, 1)])
def test_one_file_takes_images_of_any_size(exported: Path, size: tuple[int, int]):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    with Segmenter.load(exported) as segmenter:
        mask = segmenter(image).mask
    assert mask.shape == size
    if not read_manifest(exported).model.startswith("python:"):
        # At sizes that its strides do not divide, PyTorch and the file may round a resize apart: a tie in a hundred.
        assert (mask != reference_from_artifact(exported)(image)).mean() <= 0.01


def test_it_is_rebuilt_from_its_name_unless_that_would_run_a_users_code(exported: Path):
    if read_manifest(exported).model.startswith("python:"):
        with pytest.raises(ArtifactError, match=r"'python:.*' that cannot be rebuilt by name; .* timm:NAME"):
            network_from_artifact(exported)
    else:
        assert sum(1 for _ in network_from_artifact(exported).parameters())
