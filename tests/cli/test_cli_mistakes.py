"""Every mistake of a user: exit code 2, one clear line, nothing lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_data import DATA
from PIL import Image

from dropclass_deploy.cli import demo

CLASSES = "classes:\n  - {name: cell, value: 0}\n  - {name: nucleus, value: 255}\n"


def folder_data(path: Path, values: list[int], classes: str = CLASSES, count: int = 5) -> Path:
    for name in ("images", "masks"):
        (path / name).mkdir(parents=True)
    for index in range(count):
        Image.fromarray(np.full((16, 16, 3), index, np.uint8)).save(path / "images" / f"{index}.png")
        mask = np.resize(np.array(values, np.uint8), (16, 16))
        Image.fromarray(mask).save(path / "masks" / f"{index}.png")
    (path / "classes.yaml").write_text(classes)
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["polish"], "No such command 'polish'"),
        (["train"], "Missing argument"),
        (["train", "x.yaml", "--colour"], "No such option"),
        (["bench", "a", "--queries", "many"], "'--queries'"),
        (["train", "gone.yaml"], "there is no recipe gone.yaml"),
        (["evaluate", "nowhere", "--data", DATA], "nowhere is not a run folder"),
        (["evaluate", "nowhere", "--data", "camvid"], "has no colon"),
        (["evaluate", "nowhere", "--data", "tiff:here"], "unknown format 'tiff'"),
        (["evaluate", "nowhere", "--data", DATA, "--split", "exam"], "exam"),
        (["export", "nowhere", "-o", "out"], "nowhere is not a run folder"),
        (["verify", "nowhere", "--data", DATA], "nowhere"),
        (["verify", "--data", DATA], "expected an ARTIFACT, or --reference"),
        (["predict", "nowhere", "image.png", "-o", "out"], "image.png"),
        (["bench", "nowhere"], "nowhere"),
    ],
)
def test_what_is_not_there_is_named(dropclass, tmp_path, monkeypatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in dropclass(*arguments).mistake()
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_recipe_key(dropclass, recipe: Path, tmp_path: Path) -> None:
    line = dropclass("train", recipe, "--set", "train.stepz=3", "-o", tmp_path / "run").mistake()
    assert "unknown key train.stepz; did you mean 'steps'?" in line
    assert not (tmp_path / "run").exists()


def test_a_class_count_that_disagrees_with_the_masks(dropclass, recipe: Path, tmp_path: Path) -> None:
    data = folder_data(tmp_path / "data", [0, 128, 255])
    line = dropclass("train", recipe, "--set", f"data=folder:{data}", "-o", tmp_path / "run").mistake()
    assert "128" in line
    assert "0.png" in line
    assert "--fix-map" in line


def test_a_mask_full_of_200s(dropclass, recipe: Path, tmp_path: Path) -> None:
    data = folder_data(tmp_path / "data", [200])
    line = dropclass("train", recipe, "--set", f"data=folder:{data}", "-o", tmp_path / "run").mistake()
    assert "200" in line
    assert "1,280 pixels in 5 masks" in line


def test_an_image_that_is_a_text_file(dropclass, artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "note.png").write_text("I am not a picture")
    line = dropclass("predict", artifact, tmp_path / "note.png", "-o", tmp_path / "out").mistake()
    assert "note.png" in line


def test_one_bad_image_does_not_cost_the_good_one(dropclass, artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(tmp_path / "b.png")
    line = dropclass("predict", artifact, tmp_path / "a.png", tmp_path / "b.png", "-o", tmp_path / "out").mistake()
    assert "a.png" in line
    assert (tmp_path / "out" / "b.png").is_file()


def test_an_artifact_gives_masks_and_no_probabilities_to_rank(dropclass, artifact: Path) -> None:
    line = dropclass("evaluate", artifact, "--data", DATA, "--average-precision").mistake()
    assert "--average-precision is asked of an artifact" in line


@pytest.mark.parametrize("command", ["verify", "predict", "bench", "evaluate"])
def test_a_changed_byte_is_found(dropclass, artifact: Path, tmp_path: Path, command: str) -> None:
    copy = tmp_path / "artifact"
    shutil.copytree(artifact, copy)
    path = copy / "models" / "model.mask.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(tmp_path / "i.png")
    more = {
        "verify": ["--data", DATA],
        "evaluate": ["--data", DATA],
        "predict": [str(tmp_path / "i.png"), "-o", str(tmp_path / "out")],
        "bench": ["--queries", "1"],
    }[command]
    line = dropclass(command, copy, *more).mistake()
    assert "models/model.mask.onnx has changed (sha256)" in line


def test_resume_with_another_recipe(dropclass, recipe: Path, trained: Path) -> None:
    line = dropclass("train", recipe, "-o", trained, "--resume", "--set", "train.seed=5").mistake()
    assert "train.seed was 0 and is now 5" in line


def test_an_existing_run_is_refused(dropclass, recipe: Path, trained: Path) -> None:
    assert "--overwrite" in dropclass("train", recipe, "-o", trained).mistake()


def test_an_existing_artifact_is_refused_and_kept(dropclass, trained: Path, artifact: Path) -> None:
    before = (artifact / "manifest.json").read_bytes()
    assert "--overwrite" in dropclass("export", trained, "-o", artifact).mistake()
    assert (artifact / "manifest.json").read_bytes() == before


def test_overwrite_never_replaces_a_folder_of_other_things(dropclass, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    line = dropclass("export", trained, "-o", tmp_path, "--overwrite").mistake()
    assert "holds other things" in line
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "int4"], "precision 'int4' is not available"),
        (["--shape", "big"], "big"),
        (["--shape", "1x0x32"], "1x0x32"),
        (["--head", "golden"], "golden"),
        (["--opset", "9"], "opset 9"),
        (["--data", "synthetic:size=zero"], "size"),
    ],
)
def test_export_options_that_make_no_sense(dropclass, trained, tmp_path, arguments: list[str], message: str) -> None:
    assert message in dropclass("export", trained, "-o", tmp_path / "out", *arguments).mistake()
    assert not (tmp_path / "out").exists()


def test_an_output_below_a_file(dropclass, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "file" in dropclass("export", trained, "-o", tmp_path / "file" / "artifact").mistake()


def test_a_model_name_that_does_not_exist(dropclass, recipe: Path, tmp_path: Path) -> None:
    line = dropclass("train", recipe, "--set", "model.name=resnet9000", "-o", tmp_path / "run").mistake()
    assert "there is no model 'resnet9000'" in line
    assert "lite0" in line


def test_weights_that_do_not_exist(dropclass, recipe: Path, tmp_path: Path) -> None:
    line = dropclass("train", recipe, "--set", "model.weights=none.pth", "-o", tmp_path / "run").mistake()
    assert "none.pth" in line


def test_a_preprocessing_file_that_is_none(dropclass, artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text("{}garbage")
    file = artifact / "models" / "model.onnx"
    arguments = ["--reference", file, "--candidate", file, "--data", DATA, "--preprocess", tmp_path / "p.json"]
    assert "p.json is no preprocessing specification" in dropclass("verify", *arguments).mistake()


def test_the_classes_of_the_data_must_be_the_artifacts(dropclass, artifact: Path, tmp_path: Path) -> None:
    data = folder_data(tmp_path / "data", [0, 255])
    line = dropclass("verify", artifact, "--data", f"folder:{data}").mistake()
    assert "2" in line
    assert "12" in line


def reordered(run: Path, target: Path, swap: bool = True) -> str:
    """Data of the run's own classes, the first two swapped or the first renamed."""
    names = json.loads((run / "model.json").read_text())["classes"]["names"]
    names[:2] = names[1::-1] if swap else ["heaven", names[1]]
    return f"folder:{folder_data(target, [0, 1], 'classes: ' + json.dumps(names))}"


# The gate compares two networks, which see the same labels: there a renamed class is a note, and no case here.
@pytest.mark.parametrize(
    ("command", "swap"),
    [
        ("evaluate run", True),
        ("evaluate run", False),
        ("evaluate artifact", True),
        ("evaluate artifact", False),
        ("verify", True),
        ("export", True),
        ("export", False),
    ],
)
def test_classes_in_another_order_or_of_another_name(
    dropclass, trained: Path, artifact: Path, tmp_path: Path, command: str, swap: bool
) -> None:
    data = reordered(trained, tmp_path / "data", swap)
    given = {
        "evaluate run": ["evaluate", trained],
        "evaluate artifact": ["evaluate", artifact],
        "verify": ["verify", artifact],
        "export": ["export", trained, "-o", tmp_path / "out"],
    }[command]
    line = dropclass(*given, "--data", data).mistake()
    assert "class 0 is 'sky' in" in line
    assert ("the same classes in another order" if swap else "'heaven' in") in line
    assert not (tmp_path / "out").exists()


def test_overwrite_never_replaces_another_programs_folder(dropclass, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"manifest_version": 3, "name": "extension", "version": "1.0"}')
    (tmp_path / "background.js").write_text("years of work")
    line = dropclass("export", trained, "-o", tmp_path, "--overwrite").mistake()
    assert "is no artifact of ours" in line
    assert (tmp_path / "background.js").read_text() == "years of work"


@pytest.mark.parametrize("name", ["predictions/holiday.png", "predictions/images/holiday.png", "artifact/mine.txt"])
def test_the_demo_overwrites_its_own_files_only(
    dropclass, recipe: Path, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("dropclass_deploy.cli.demo.RECIPE", recipe)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("{}")
    shutil.copytree(artifact, tmp_path / "artifact")
    demo._predict(tmp_path / "artifact", tmp_path / "predictions", DATA)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    demo._check_predictions(tmp_path / "predictions", DATA)  # what the demo wrote itself is no obstacle
    (tmp_path / name).write_text("kept")
    line = dropclass("demo", "-o", tmp_path, "--overwrite").mistake()
    assert name.partition("/")[2] in line
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before | {tmp_path / name}


def test_debug_shows_the_traceback(dropclass, tmp_path: Path) -> None:
    result = dropclass("train", tmp_path / "gone.yaml", "--debug")
    assert result.code == 2
    assert "Traceback" in result.err


def test_existing_masks_are_not_replaced_unasked(dropclass, artifact: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.png").write_bytes(b"hand-made labels")
    line = dropclass("predict", artifact, tmp_path / "a.png", "-o", tmp_path / "masks").mistake()
    assert "a.png exists already" in line
    assert (tmp_path / "masks" / "a.png").read_bytes() == b"hand-made labels"
    assert dropclass("predict", artifact, tmp_path / "a.png", "-o", tmp_path / "masks", "--overwrite").code == 0


@pytest.mark.parametrize("size", [(5, 400), (1, 1)])
def test_no_image_is_too_small(dropclass, artifact: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / "thin.png")
    assert dropclass("predict", artifact, tmp_path / "thin.png", "-o", tmp_path / "out").code == 0
    with Image.open(tmp_path / "out" / "thin.png") as mask:
        assert (mask.height, mask.width) == size


def test_bench_does_not_replace_a_file_that_is_no_benchmark(dropclass, artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.json").write_text("{}")
    line = dropclass("bench", artifact, "--queries", "1", "-o", tmp_path / "thesis.json").mistake()
    assert "exists and is no benchmark" in line
    assert (tmp_path / "thesis.json").read_text() == "{}"


@pytest.mark.slow
def test_a_reader_that_goes_away_does_not_change_the_exit_code(artifact: Path) -> None:
    command = f"{sys.executable} -m dropclass_deploy evaluate {artifact} --data {DATA} | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
