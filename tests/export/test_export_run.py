"""Export from a run folder: the head, the provenance, the data it was trained on."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import RunError
from dropclass_deploy.core.files import write_json
from dropclass_deploy.core.manifest import read_manifest
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.export import ExportOptions, export_artifact
from dropclass_deploy.models import build_model
from dropclass_deploy.training import load_recipe
from dropclass_deploy.training.methods import build_method
from dropclass_deploy.training.runs.run import load_run, save_network, write_model_json

PREPROCESS = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
RECIPE = """\
data: "folder:no/such/place"
model: {{name: lite0, options: {{width: 8}}}}
method: {{name: {method}}}
train: {{steps: 7, seed: 3}}
export: {{deploy_head: {head}}}
"""


def write_run(folder: Path, method: str, head: str) -> Path:
    """A run folder as a training leaves it, of a network with random weights."""
    folder.mkdir()
    (folder / "recipe.yaml").write_text(RECIPE.format(method=method, head=head), encoding="utf-8")
    recipe = load_recipe(folder / "recipe.yaml")
    torch.manual_seed(0)
    save_network(folder, build_method(build_model("lite0", 4, width=8), recipe.method, None))
    table = ClassTable(names=("sky", "road", "tree", "cyclist"), rare=(2, 3))
    facts = {"method": method, "seed": 3, "steps": 7, "recipe_sha256": recipe.digest()}
    content = {"name": "lite0", "options": {"width": 8}, "num_classes": 4, **facts}
    content |= {"classes": table.model_dump(mode="json"), "preprocess": PREPROCESS.model_dump(mode="json")}
    write_model_json(folder, content)
    rows = [{"name": name, "iou": 0.125, "precision": None, "recall": None, "pixels": 1} for name in table.names]
    scores = {"miou": 0.125, "rare_miou": 0.125, "pixel_accuracy": 0.5, "classes": rows}
    heads = {"plain": scores, "folded": scores}
    write_json(
        folder / "evaluation.json", {"data": "folder:x", "split": "val", "images": 2, "selected": head, "heads": heads}
    )
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A DropClass run whose recipe deploys the folded head, and its artifact."""
    folder = tmp_path_factory.mktemp("from_run")
    run = write_run(folder / "run", "dropclass", "folded")
    return run, export_artifact(run, folder / "artifact", options=ExportOptions(shape=(1, 64, 64)))


def test_the_recipes_head_is_exported(exported: tuple[Path, Path]) -> None:
    run, artifact = exported
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pixels = PREPROCESS.normalise(image)
    session = onnxruntime.InferenceSession(artifact / "models/model.onnx", providers=["CPUExecutionProvider"])
    got = session.run(None, {"image": pixels})[0]
    loaded = load_run(run)
    with torch.inference_mode():
        folded, plain = (network(torch.from_numpy(pixels)).numpy() for network in (loaded.folded, loaded.model))
    scale = np.abs(folded).max()
    # Sixty float32 layers summed in another order: about 1e-6 of the largest logit; the heads differ by far more.
    np.testing.assert_allclose(got, folded, atol=1e-4 * scale, rtol=0)
    assert np.abs(folded - plain).max() > 1e-2 * scale


def test_manifest_tells_where_the_weights_come_from(exported: tuple[Path, Path]) -> None:
    run, artifact = exported
    manifest = read_manifest(artifact)
    assert (manifest.model, manifest.deploy_head) == ("lite0", "folded")
    assert manifest.classes.rare == (2, 3)
    recipe = load_recipe(run / "recipe.yaml").digest()
    expected = {"run": "run", "method": "dropclass", "seed": 3, "steps": 7, "recipe_sha256": recipe}
    assert expected.items() <= manifest.provenance.items()


def test_missing_data_are_noted_and_no_references_stored(exported: tuple[Path, Path]) -> None:
    _, artifact = exported
    card = (artifact / "docs/README.md").read_text(encoding="utf-8")
    assert "The run's data could not be opened" in card
    assert "| cyclist | 12.50 | 12.50 |" in card
    assert not (artifact / "reference").exists()


def test_a_shape_imposed_on_figures_of_another_size_is_said(exported: tuple[Path, Path]) -> None:
    _, artifact = exported
    assert json.loads((artifact / "preprocess.json").read_text())["size"] == [64, 64]
    card = (artifact / "docs/README.md").read_text(encoding="utf-8")
    assert "the artifact resizes to 64×64, which was not measured" in card


def test_a_run_without_a_folded_head_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "ce", "plain")
    with pytest.raises(RunError, match=r"has no folded head \(method ce\); expected plain"):
        export_artifact(run, tmp_path / "artifact", options=ExportOptions(deploy_head="folded"))
    assert not (tmp_path / "artifact").exists()
