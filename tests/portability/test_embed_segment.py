"""The two short examples on an exported artifact."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from isolated import EXAMPLES, run_alone
from PIL import Image


def test_nothing_of_ours_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "spy.py").write_text("import dropclass_deploy")
    done = run_alone(tmp_path, tmp_path / "spy.py")
    assert "ModuleNotFoundError: import of dropclass_deploy halted" in done.stderr


def test_segment_py_is_short() -> None:
    documented, *lines = (EXAMPLES / "segment.py").read_text(encoding="utf-8").splitlines()
    assert documented.startswith('"""')
    assert len([line for line in lines if line.strip()]) <= 15


@pytest.mark.parametrize("shape", ["dynamic", "fixed"])
def test_segment_py_gives_the_samples_mask(small: SimpleNamespace, tmp_path: Path, shape: str) -> None:
    artifact = getattr(small, shape)
    model, image = artifact / "models/model.mask.onnx", artifact / "sample/image.png"
    done = run_alone(tmp_path, "segment.py", model, image, tmp_path / "mask.png")
    assert done.returncode == 0, done.stderr
    mask = Image.open(tmp_path / "mask.png")
    np.testing.assert_array_equal(np.asarray(mask), np.asarray(Image.open(artifact / "sample/mask.png")))
    colours = [row["colour"] for row in json.loads((artifact / "label_map.json").read_text())["classes"]]
    assert mask.mode == "P"
    assert mask.getpalette()[:12] == np.ravel(colours).tolist()


def test_segment_py_brings_a_fixed_size_back_to_the_images(small: SimpleNamespace, tmp_path: Path) -> None:
    Image.fromarray(small.images[0]).resize((128, 96)).save(tmp_path / "large.png")
    done = run_alone(tmp_path, "segment.py", small.fixed / "models/model.mask.onnx", "large.png", "mask.png")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "mask.png") as mask:
        assert mask.size == (128, 96)


@pytest.mark.browser
@pytest.mark.parametrize("shape", ["dynamic", "fixed"])
def test_segment_mjs_gives_the_samples_mask(
    small: SimpleNamespace, javascript: Path, tmp_path: Path, shape: str
) -> None:
    artifact = getattr(small, shape)
    done = run_node(javascript, tmp_path, artifact, artifact / "sample/image.png", "mask.png")
    assert done.returncode == 0, done.stderr
    mask, expected = Image.open(tmp_path / "mask.png"), np.asarray(Image.open(artifact / "sample/mask.png"))
    assert mask.mode == "L"
    np.testing.assert_array_equal(np.asarray(mask), expected)
    counts = np.bincount(expected.ravel(), minlength=4)
    assert done.stdout.splitlines() == [
        f"{name}\t{count}" for name, count in zip(("background", "liver", "vessel", "lesion"), counts, strict=True)
    ]


def run_node(modules: Path, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the script beside the packages that the tests have installed."""
    shutil.copy(EXAMPLES / "segment.mjs", folder)
    (folder / "node_modules").symlink_to(modules, target_is_directory=True)
    command = ["node", "segment.mjs", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_examples_packages_are_the_tested_ones() -> None:
    example, tested = (
        json.loads((folder / "package.json").read_text())["dependencies"]
        for folder in (EXAMPLES, Path(__file__).parent)
    )
    assert example.items() <= tested.items()
