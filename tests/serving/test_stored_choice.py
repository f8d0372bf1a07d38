"""``evidence/auto.json`` is a hint that anybody can write: a bad one is no choice, and never stops the default load."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from serving_builders import write_artifact

from dropclass_deploy.serving import Segmenter
from dropclass_deploy.serving.artifact import open_artifact
from dropclass_deploy.serving.auto import choice
from dropclass_deploy.serving.auto.choice import Configuration, machine, stored_choice
from dropclass_deploy.serving.benchmark.environment import gpu_models


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = write_artifact(tmp_path / "a")
    (folder / "evidence").mkdir()
    return folder


def store(folder: Path, here: dict[str, Any] | None = None, **chosen: Any) -> None:
    known = open_artifact(folder).manifest.files["models/model.mask.onnx"]
    content = {"machine": here or machine(), "candidate_sha256": known, "chosen": chosen}
    (folder / "evidence/auto.json").write_text(json.dumps(content))


def test_a_whole_choice_is_taken(artifact: Path) -> None:
    pytest.importorskip("openvino", reason="needs another runtime than the default")
    store(artifact, runtime="openvino", threads=1)
    assert stored_choice(open_artifact(artifact)) == Configuration(runtime="openvino", threads=1)
    with Segmenter.load(artifact) as segmenter:
        assert segmenter.mask_runtime.name == "openvino"


@pytest.mark.parametrize(
    "chosen",
    [
        {"runtime": "auto"},
        {"runtime": "warp"},
        {"runtime": ""},
        {"runtime": "tensorrt"},
        {"runtime": "onnxruntime-cuda"},
        {"runtime": "onnxruntime", "threads": 0},
        {"runtime": "onnxruntime", "threads": -1},
        {"runtime": "onnxruntime", "threads": 10**6},
        {"runtime": "onnxruntime", "head": "logits"},
        {"runtime": "onnxruntime", "trusted": True},
    ],
)
def test_what_no_search_on_this_machine_chose_is_none(
    artifact: Path, chosen: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "gpu_models", lambda: None)
    store(artifact, **chosen)
    assert stored_choice(open_artifact(artifact)) is None
    with Segmenter.load(artifact) as segmenter:
        assert segmenter.mask_runtime.name == "onnxruntime"


def test_a_gpu_is_chosen_only_where_the_driver_names_the_same(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "gpu_models", lambda: "NVIDIA L4")
    store(artifact, runtime="tensorrt")
    assert stored_choice(open_artifact(artifact)) == Configuration(runtime="tensorrt")
    with Segmenter.load(artifact) as segmenter:  # there is no plan: the choice cannot be run
        assert segmenter.mask_runtime.name == "onnxruntime"
    monkeypatch.setattr(choice, "gpu_models", lambda: "NVIDIA T4")
    assert stored_choice(open_artifact(artifact)) is None


def test_a_runtime_that_is_gone_leaves_the_default(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(artifact, runtime="openvino")
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert stored_choice(open_artifact(artifact)) == Configuration(runtime="openvino")
    with Segmenter.load(artifact) as segmenter:
        assert segmenter.mask_runtime.name == "onnxruntime"


@pytest.mark.parametrize("kind", ["linked evidence", "linked file", "FIFO", "deep", "key twice"])
def test_what_is_no_file_of_the_artifact_is_no_choice(artifact: Path, tmp_path: Path, kind: str) -> None:
    store(artifact, runtime="openvino")
    path = artifact / "evidence/auto.json"
    if kind == "linked evidence":
        (artifact / "evidence").rename(tmp_path / "elsewhere")
        (artifact / "evidence").symlink_to(tmp_path / "elsewhere")
    elif kind == "linked file":
        path.rename(tmp_path / "auto.json")
        path.symlink_to(tmp_path / "auto.json")
    elif kind == "FIFO":
        path.unlink()
        os.mkfifo(path)
    elif kind == "deep":
        path.write_text("[" * 10**5)
    else:
        path.write_text(path.read_text().replace('"machine"', '"chosen": {}, "machine"', 1))
    assert stored_choice(open_artifact(artifact)) is None
    with Segmenter.load(artifact) as segmenter:
        assert segmenter.mask_runtime.name == "onnxruntime"


def test_names_of_gpus_are_the_drivers(tmp_path: Path) -> None:
    assert gpu_models(tmp_path) is None
    for bus, model in (("0000:0b:00.0", "NVIDIA T4"), ("0000:03:00.0", "NVIDIA L4")):
        (tmp_path / bus).mkdir()
        (tmp_path / bus / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 11\nBus Type: \t PCIe\n")
    assert gpu_models(tmp_path) == "NVIDIA L4, NVIDIA T4"


def report(folder: Path, name: str, verdict: str, digest: str | None = None) -> None:
    known = open_artifact(folder).manifest.files["models/model.mask.onnx"]
    content = {"verdict": verdict, "candidate_sha256": digest or known}
    (folder / "evidence" / name).write_text(json.dumps(content))


def test_a_choice_that_the_gate_refused_since_is_none(artifact: Path) -> None:
    store(artifact, runtime="openvino")
    report(artifact, "parity.fp32.dense.openvino.json", "fail")
    assert stored_choice(open_artifact(artifact)) is None
    report(artifact, "parity.fp32.dense.openvino.json", "fail", digest="0" * 64)  # of another file: says nothing
    assert stored_choice(open_artifact(artifact)) == Configuration(runtime="openvino")


def test_an_engine_that_passed_this_file_is_preferred_to_one_that_was_never_asked(artifact: Path) -> None:
    pytest.importorskip("openvino", reason="needs another runtime than the default")
    opened = open_artifact(artifact)
    assert choice.judged_runtime(opened, "fp32", "dense") is None
    report(artifact, "parity.json", "pass")
    assert choice.judged_runtime(opened, "fp32", "dense") == "onnxruntime"
    report(artifact, "parity.fp32.dense.openvino.json", "fail")
    assert choice.judged_runtime(opened, "fp32", "dense") == "onnxruntime"
    report(artifact, "parity.fp32.dense.openvino.json", "pass")
    assert choice.judged_runtime(opened, "fp32", "dense") == "openvino"
