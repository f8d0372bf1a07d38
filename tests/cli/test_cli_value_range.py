"""16-bit images from the first command to the last: the run learns the range of its data, the artifact carries it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from PIL import Image

from dropclass_deploy.cli.app import run as run_command
from dropclass_deploy.data.images import read_image

pytestmark = pytest.mark.slow  # a training and an export

LOW, HIGH = 1000, 3000
CLASSES = "classes: [tissue, {name: lesion, value: 1}]\n"


def write_scans(root: Path, value_range: str) -> Path:
    """Five 12-bit pictures as 16-bit PNGs with a bright square each, and their masks."""
    for index in range(5):
        for name in ("images", "masks"):
            (root / name).mkdir(parents=True, exist_ok=True)
        raw = np.random.default_rng(index).integers(900, 1900, (32, 48)).astype(np.uint16)
        mask = np.zeros((32, 48), np.uint8)
        square = np.s_[4 + index : 20 + index, 8:24]
        raw[square] += 1500
        mask[square] = 1
        Image.fromarray(raw).save(root / f"images/{index}.png")
        Image.fromarray(mask).save(root / f"masks/{index}.png")
    (root / "classes.yaml").write_text(CLASSES + value_range)
    return root


def raw_values(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scans(tmp_path_factory.mktemp("data") / "scans", f"value_range: [{LOW}, {HIGH}]\n")


@pytest.fixture(scope="module")
def run(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    content: dict[str, Any] = {
        "data": f"folder:{scans}",
        "model": {"name": "unet", "options": {"width": 4, "depth": 2}},
        "train": {"steps": 2, "batch_size": 2, "crop": [32, 32], "device": "cpu"},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    assert run_command(["train", str(folder / "recipe.yaml"), "-o", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def artifact(run: Path) -> Path:
    target = run.parent / "artifact"
    assert run_command(["export", str(run), "-o", str(target)]) == 0
    return target


def test_the_range_is_in_every_file_that_tells_the_preprocessing(run: Path, artifact: Path) -> None:
    told = [json.loads((artifact / "preprocess.json").read_text())]
    told.append(json.loads((artifact / "manifest.json").read_text())["preprocess"])
    told.append(json.loads((run / "model.json").read_text())["preprocess"])
    for name in ("model", "model.mask"):
        props = onnx.load(artifact / f"models/{name}.onnx").metadata_props
        told.append(json.loads({item.key: item.value for item in props}["preprocess"]))
    assert [item["value_range"] for item in told] == [[LOW, HIGH]] * 5


def test_the_card_says_that_the_networks_come_after_the_range(artifact: Path, scans: Path) -> None:
    card = (artifact / "docs/README.md").read_text()
    assert "`models/model.mask.onnx` takes uint8 RGB after the range was applied" in card
    formula = card.partition("in float64: `")[2].partition("`")[0]
    raw = raw_values(scans / "images/4.png")
    # The formula of the card, as a reader would run it, is what the package does.
    grey = eval(formula, {"np": np, "raw": raw})
    np.testing.assert_array_equal(read_image(scans / "images/4.png", (LOW, HIGH))[..., 0], grey)


def test_the_sample_is_rgb_after_the_range(artifact: Path, scans: Path) -> None:
    sample = read_image(artifact / "sample/image.png")
    # Four of the five are the training split; the sample is the first of val.
    np.testing.assert_array_equal(sample, read_image(scans / "images/4.png", (LOW, HIGH)))
    with Image.open(artifact / "sample/image.png") as image:
        assert image.mode == "RGB"


def test_predict_on_16_bit_equals_predict_on_hand_windowed_8_bit(
    artifact: Path, scans: Path, tmp_path: Path, dropclass: Callable[..., Any]
) -> None:
    raw = raw_values(scans / "images/0.png").tolist()
    grey = [[round(min(max((float(v) - LOW) / (HIGH - LOW) * 255, 0), 255)) for v in row] for row in raw]
    Image.fromarray(np.stack([np.array(grey, np.uint8)] * 3, axis=-1)).save(tmp_path / "hand.png")
    for source, target in ((scans / "images/0.png", "deep"), (tmp_path / "hand.png", "eight")):
        assert dropclass("predict", artifact, source, "-o", tmp_path / target).code == 0
    assert (tmp_path / "deep/0.png").read_bytes() == (tmp_path / "eight/hand.png").read_bytes()


def test_verify_and_evaluate_take_the_same_data(
    run: Path, artifact: Path, scans: Path, tmp_path: Path, dropclass: Callable[..., Any]
) -> None:
    gate = dropclass("verify", artifact, "--data", f"folder:{scans}", "--json")
    assert (gate.code, gate.json["verdict"], gate.json["pixel_disagreement"]) == (0, "pass", 0.0)
    for path in (run, artifact):
        assert dropclass("evaluate", path, "--data", f"folder:{scans}", "--json").json["images"] == 1


@pytest.mark.parametrize("command", ["evaluate run", "evaluate artifact", "verify artifact", "export run"])
def test_data_of_another_range_are_a_mistake(
    command: str, run: Path, artifact: Path, tmp_path: Path, dropclass: Callable[..., Any]
) -> None:
    other = write_scans(tmp_path / "other", "value_range: [0, 4095]\n")
    verb, what = command.split()
    arguments = [verb, run if what == "run" else artifact, "--data", f"folder:{other}"]
    result = dropclass(*arguments, *(["-o", tmp_path / "out"] if verb == "export" else []))
    assert "has the value range 0 … 4095 and" in result.mistake()
    assert "write value_range: [1000.0, 3000.0] in the classes.yaml" in result.mistake()


def test_training_on_16_bit_images_without_a_range_names_the_key(tmp_path: Path, dropclass: Callable[..., Any]) -> None:
    root = write_scans(tmp_path / "scans", "")
    recipe = {"data": f"folder:{root}", "model": {"name": "lite0"}, "train": {"steps": 1, "device": "cpu"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert "value_range" in dropclass("train", tmp_path / "recipe.yaml", "-o", tmp_path / "run").mistake()
