"""What ``evaluate`` and ``predict`` say about the network that runs, chosen or named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_data import DATA

from dropclass_deploy.cli.auto import print_choice
from dropclass_deploy.core.manifest import hash_files, read_manifest, write_manifest
from dropclass_deploy.core.model_files import model_file
from dropclass_deploy.serving.auto.choice import AUTO_FILE, machine

SPARSE = "models/model.sparse.mask.onnx"
NAMED = {"runtime": "onnxruntime", "precision": "fp32", "head": "dense", "threads": None, "stored_choice": False}
CHOSEN = NAMED | {"head": "sparse", "threads": 1, "stored_choice": True}


@pytest.fixture
def chosen(artifact: Path, tmp_path: Path) -> Path:
    """The artifact with a choice that speaks of this machine: the sparse head, one thread."""
    copy = shutil.copytree(artifact, tmp_path / "artifact")
    configuration = {"runtime": "onnxruntime", "precision": "fp32", "head": "sparse", "threads": 1}
    # The network's own logits have full resolution, and no sparse head: the dense file stands in under the other name.
    shutil.copy(copy / model_file(), copy / SPARSE)
    files = hash_files(copy)
    write_manifest(copy, read_manifest(copy).model_copy(update={"files": files}))
    content = {"machine": machine(), "candidate_sha256": files[SPARSE], "chosen": configuration}
    (copy / "evidence").mkdir(exist_ok=True)
    (copy / "evidence" / AUTO_FILE).write_text(json.dumps(content))
    return copy


def ran(content: dict[str, Any]) -> dict[str, Any]:
    found = dict(content["ran"])
    assert found.pop("provider") == "CPUExecutionProvider"
    return found


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_the_stored_choice_runs_and_is_told(dropclass, chosen: Path, tmp_path: Path, command: str) -> None:
    given = [chosen, "--data", DATA] if command == "evaluate" else [chosen, chosen / "sample/image.png", "-o", tmp_path]
    result = dropclass(command, *given, "--json")
    assert "running on onnxruntime, fp32, sparse head, 1 thread (CPUExecutionProvider), as 'dropclass auto' chose" in (
        result.err
    )
    assert ran(result.json) == CHOSEN


def test_what_is_named_runs_instead(dropclass, chosen: Path, tmp_path: Path) -> None:
    evaluated = dropclass("evaluate", chosen, "--data", DATA, "--mask-head", "dense", "--json")
    assert ran(evaluated.json) == NAMED
    assert "running on onnxruntime, fp32, dense head (CPUExecutionProvider)\n" in evaluated.err
    predicted = dropclass(
        "predict", chosen, chosen / "sample/image.png", "-o", tmp_path, "--precision", "fp32", "--json"
    )
    assert ran(predicted.json) == NAMED
    assert "running on" not in predicted.err
    other = dropclass("evaluate", chosen, "--data", DATA, "--runtime", "openvino", "--json").json["ran"]
    assert (other["runtime"], other["head"], other["stored_choice"]) == ("openvino", "dense", False)


def test_a_precision_that_is_not_there_is_refused(dropclass, artifact: Path, tmp_path: Path) -> None:
    for given in (
        ["evaluate", artifact, "--data", DATA],
        ["predict", artifact, artifact / "sample/image.png", "-o", "x"],
    ):
        assert "model.int8.mask.onnx" in dropclass(*given, "--precision", "int8").mistake()


@pytest.mark.parametrize("option", [["--runtime", "openvino"], ["--precision", "fp16"], ["--mask-head", "sparse"]])
def test_a_run_has_no_network_files_to_choose_from(dropclass, trained: Path, option: list[str]) -> None:
    result = dropclass("evaluate", trained, "--data", DATA, *option)
    assert f"{' '.join(option)} is asked of {trained}, which is no artifact" in result.mistake()


@pytest.mark.parametrize(
    ("threads", "told"), [(1, "dense head, 1 thread\n"), (2, "dense head, 2 threads\n"), (None, "dense head\n")]
)
def test_auto_counts_its_threads(capsys: pytest.CaptureFixture[str], threads: int | None, told: str) -> None:
    choice = {"runtime": "openvino", "precision": "int8", "head": "dense", "threads": threads}
    print_choice({"candidates": [], "unavailable": [], "chosen": choice})
    assert capsys.readouterr().out.endswith(f"chosen: openvino, int8, {told}")
