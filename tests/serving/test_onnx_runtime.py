from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import numpy as np
import pytest
from serving_builders import conv_weights, metadata_of, random_images, save_logits, save_mask

from dropclass_deploy.core.errors import ArtifactError, MissingExtraError, UserError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.serving.runtimes import open_runtime
from dropclass_deploy.serving.runtimes.base import TensorSpec, fallback_problem
from dropclass_deploy.serving.runtimes.onnx_runtime import OnnxRuntime


@pytest.fixture
def mask_file(tmp_path: Path) -> Path:
    return save_mask(tmp_path / "m.onnx", conv_weights(), metadata=metadata_of(Preprocess(), rare=("pole",)))


def test_names_types_shapes_and_metadata(mask_file: Path) -> None:
    with open_runtime(mask_file) as runtime:
        assert runtime.inputs == (TensorSpec("image", "uint8", (None, None, None, 3)),)
        assert runtime.outputs == (TensorSpec("mask", "uint8", (None, None, None)),)
        assert (runtime.name, runtime.provider, runtime.precision) == ("onnxruntime", "CPUExecutionProvider", "fp32")
        assert runtime.metadata == metadata_of(Preprocess(), rare=("pole",))


def test_bound_call_runs_without_error_and_leaves_run_alone(mask_file: Path) -> None:
    image = random_images(1)[0][None]
    with open_runtime(mask_file) as runtime:
        before = runtime.run({"image": image})["mask"]
        call = runtime.bind({"image": image})
        call()
        call()
        np.testing.assert_array_equal(runtime.run({"image": image})["mask"], before)


@pytest.mark.parametrize("content", [b"", b"this is no network", bytes(range(256)) * 8])
def test_broken_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"broken\.onnx cannot be loaded"):
        open_runtime(path)


def test_truncated_file(mask_file: Path) -> None:
    mask_file.write_bytes(mask_file.read_bytes()[:-40])
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        open_runtime(mask_file)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        open_runtime(tmp_path / "none.onnx")


def test_unknown_runtime_lists_the_known(mask_file: Path) -> None:
    with pytest.raises(UserError, match=r"no runtime 'warp'.*auto, onnxruntime.*openvino"):
        open_runtime(mask_file, "warp")


def test_no_threads_are_refused(mask_file: Path) -> None:
    with pytest.raises(UserError, match="0 threads"):
        open_runtime(mask_file, threads=0)


def test_closed_runtime_refuses_to_run(mask_file: Path) -> None:
    runtime = open_runtime(mask_file)
    runtime.close()
    with pytest.raises(UserError, match="closed"):
        runtime.run({})


def test_unavailable_provider_is_refused(mask_file: Path) -> None:
    with pytest.raises(UserError, match=r"no CUDAExecutionProvider.*CPUExecutionProvider"):
        OnnxRuntime(mask_file, provider="CUDAExecutionProvider")


def test_fallback_is_told_and_refused(mask_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fell_back(path: Path, threads: int | None) -> OnnxRuntime:
        runtime = OnnxRuntime(path, threads=threads)
        runtime.requested_provider = "CUDAExecutionProvider"
        return runtime

    monkeypatch.setitem(sys.modules["dropclass_deploy.serving.runtimes.registry"].RUNTIMES, "onnxruntime", fell_back)
    with pytest.raises(UserError, match="runs on CPUExecutionProvider, not on CUDAExecutionProvider"):
        open_runtime(mask_file)
    assert "not on CUDA" in str(fallback_problem(open_runtime(mask_file, allow_fallback=True)))


def test_both_wheels_are_refused(mask_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.31.1")
    with pytest.raises(UserError, match=r"both onnxruntime and onnxruntime-gpu are installed.*pip uninstall"):
        open_runtime(mask_file)


def test_missing_library_names_the_extra(mask_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"'onnxruntime' is not installed.*dropclass-deploy\[serve\]"):
        open_runtime(mask_file)


def test_errors_of_a_run_do_not_reach_the_terminal(mask_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken = save_logits(mask_file.parent / "fixed.onnx", conv_weights(), shape=(1, 8, 8))
    with open_runtime(broken) as runtime, pytest.raises(UserError, match="refused"):
        runtime.run({"image": np.zeros((1, 3, 9, 9), np.float32)})
    assert capfd.readouterr().err == ""
