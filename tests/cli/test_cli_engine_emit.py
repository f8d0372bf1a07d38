"""``dropclass engine`` and ``dropclass emit``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

grpc = pytest.importorskip("tritonclient.grpc", reason="needs tritonclient[grpc], which has Triton's schema")

Command = Callable[..., Any]
PLAN = "engines/fp32.tensorrt-rtx.sm86-sm89.1x32x32-1x32x48-4x64x64.plan"


@pytest.fixture
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx, which builds without a GPU")


@pytest.mark.usefixtures("rtx")
def test_engine_is_built_then_found(dropclass: Command, artifact: Path, tmp_path: Path) -> None:
    common = ["engine", artifact, "--evidence", tmp_path, "--compute-capability", "8.9", "--compute-capability", "8.6"]
    common += ["--profile", "1x32x32", "1x32x48", "4x64x64"]
    first, again = dropclass(*common, "--json"), dropclass(*common)
    assert (first.code, again.code) == (0, 0)
    assert first.json["plan"] == str(tmp_path / PLAN)
    assert first.json["reused"] is False
    assert first.json["request"]["compute_capabilities"] == ["8.6", "8.9"]
    assert first.json["request"]["profile"] == {"min": [1, 32, 32], "opt": [1, 32, 48], "max": [4, 64, 64]}
    assert "nothing to build" in again.err
    assert "reused" in again.out
    assert f"verify --reference {artifact}/models/model.mask.onnx --candidate {tmp_path / PLAN}" in again.out
    assert not (artifact / "evidence/engines").exists()


def test_a_plan_from_elsewhere_is_taken_in_by_name(
    dropclass: Command, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--evidence", tmp_path, "--compute-capability", "8.9", "--shape", "1x32x48"]
    plan = dropclass("engine", artifact, *options, "--json").json["plan"]
    monkeypatch.setenv("DROPCLASS_CACHE", str(tmp_path / "another machine"))
    assert dropclass("engine", artifact, "--trust", plan).out == f"engine: {plan} is trusted on this machine\n"
    assert dropclass("engine", artifact, *options, "--json").json["reused"] is True
    assert dropclass("engine", artifact, "--trust", plan, "--json").json["trusted"] is True
    Path(plan).write_bytes(b"other")
    assert "not the plan that was built" in dropclass("engine", artifact, "--trust", plan).mistake()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "1x32x48", "--compute-capability", "9.0"], "does not build for compute capability '9.0'"),
        (["--shape", "wide"], "'wide' has 1 parts"),
        (["--shape", "1xHxW"], "leaves a size open"),
        (["--profile", "2x32x32", "1x32x32", "2x32x32"], "does not grow"),
        (["--shape", "1x32x48", "--profile", "1x32x32", "1x32x32", "1x32x32"], "both a shape and a profile"),
        (["--shape", "1x32x48", "--precision", "fp16"], "has no models/model.fp16.mask.onnx"),
        (["--shape", "1x32x48", "--library", "cudnn"], "no TensorRT library 'cudnn'"),
        (["--profile", "1x32x32"], "--profile"),
    ],
)
def test_engine_mistakes(
    dropclass: Command, artifact: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = dropclass("engine", artifact, "--evidence", tmp_path, *arguments)
    assert message in result.mistake()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("rtx")
def test_engine_without_a_shape_proposes_one(dropclass: Command, artifact: Path, tmp_path: Path) -> None:
    assert "--shape 1x512x1024" in dropclass("engine", artifact, "--evidence", tmp_path).mistake()
    assert list(tmp_path.iterdir()) == []


def test_predict_without_an_engine_says_how_to_build_one(dropclass: Command, artifact: Path, tmp_path: Path) -> None:
    result = dropclass("predict", artifact, artifact / "sample/image.png", "-o", tmp_path, "--runtime", "tensorrt")
    assert "dropclass engine" in result.mistake()


def test_emit_triton(dropclass: Command, artifact: Path, tmp_path: Path) -> None:
    result = dropclass(
        *("emit", "triton", artifact, "-o", tmp_path / "out", "--name", "street", "--gpus", "0,1", "--json"),
        *("--max-batch-size", "4", "--preferred-batch-size", "4", "--max-queue-delay-us", "500", "--instances", "2"),
    )
    assert result.code == 0, result.err
    assert "street/config.pbtxt" in result.json["files"]
    text = (tmp_path / "out/street/config.pbtxt").read_text()
    config = text_format.Parse(text, grpc.model_config_pb2.ModelConfig())
    assert (config.name, config.max_batch_size, config.instance_group[0].count) == ("street", 4, 2)
    assert list(config.instance_group[0].gpus) == [0, 1]
    assert list(config.dynamic_batching.preferred_batch_size) == [4]
    assert config.dynamic_batching.max_queue_delay_microseconds == 500


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing command"),
        (["kserve", "a", "-o", "b"], "No such command 'kserve'"),
        (["triton", "nowhere", "-o", "out"], "nowhere is not an artifact"),
        (["triton", "nowhere"], "Missing option"),
        (["triton", "nowhere", "-o", "out", "--gpus", "all"], "'all' is no GPU id"),
        (["triton", "nowhere", "-o", "out", "--max-batch-size", "0"], "--max-batch-size"),
    ],
)
def test_emit_mistakes(
    dropclass: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in dropclass("emit", *arguments).mistake()
    assert list(tmp_path.iterdir()) == []


def test_emit_does_not_replace_unasked(dropclass: Command, artifact: Path, tmp_path: Path) -> None:
    command = ["emit", "triton", artifact, "-o", tmp_path / "out"]
    assert dropclass(*command).code == 0
    assert "--overwrite" in dropclass(*command).mistake()
    assert dropclass(*command, "--overwrite").code == 0
