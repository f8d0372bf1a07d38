"""One mask file, one mask: every engine against torch's own argmax of the same network."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from portability_engines import javascript_engines, python_engines
from portability_engines.isolation import ERROR, RAN, ask
from portability_engines.outcome import compare

MASK_FILE = "models/model.mask.onnx"


@pytest.mark.parametrize("shape", ["dynamic", "fixed"])
@pytest.mark.parametrize("engine", ["onnx_runtime", "reference", "openvino_f32"])
def test_the_mask_is_torchs(small: SimpleNamespace, engine: str, shape: str) -> None:
    assert len(np.unique(small.mask)) == 4  # else a constant would pass
    outcome = getattr(python_engines, engine)(getattr(small, shape) / MASK_FILE, small.images)
    np.testing.assert_array_equal(outcome.mask, small.mask)


def test_opencv_runs_a_fixed_shape_and_no_dynamic_one(small: SimpleNamespace) -> None:
    fixed = ask("opencv", small.fixed / MASK_FILE, small.images)
    assert (fixed.kind, fixed.text) == (RAN, "")
    assert compare(small.mask, fixed.mask) == 0
    # A known fault of 4.x: it computes with a shape that it does not know yet. The table says so.
    dynamic = ask("opencv", small.dynamic / MASK_FILE, small.images)
    assert dynamic.kind == ERROR
    assert dynamic.text.startswith(("Reshape (", "Resize (", "Concat ("))


def test_opencv_runs_a_fixed_copy_of_a_dynamic_file(small: SimpleNamespace) -> None:
    answer = ask("opencv-fixed", small.dynamic / MASK_FILE, small.images)
    assert answer.kind == RAN, answer.text
    assert compare(small.mask, answer.mask) == 0


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")
@pytest.mark.parametrize("shape", ["dynamic", "fixed"])
def test_tensorrt_rtx_parses_and_builds(small: SimpleNamespace, shape: str) -> None:
    outcome = python_engines.tensorrt_rtx(getattr(small, shape) / MASK_FILE, small.images)
    assert outcome.mask is None
    assert outcome.note.startswith("built for compute capability 8.9")


@pytest.mark.browser
def test_the_mask_is_torchs_in_a_browser(small: SimpleNamespace, javascript: Path) -> None:
    if javascript_engines.chromium() is None:
        pytest.skip("chromium is not installed, or does not run")
    outcome = javascript_engines.onnxruntime_web(small.dynamic / MASK_FILE, small.images)
    assert outcome.note.startswith("Chromium ")
    np.testing.assert_array_equal(outcome.mask, small.mask)


def test_a_browser_that_does_not_run_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stub = tmp_path / "chromium"
    stub.write_text("#!/bin/sh\necho 'Command requires the chromium snap' >&2\nexit 10\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert javascript_engines.chromium() is None
    stub.write_text("#!/bin/sh\necho 'Chromium 150'\n")
    assert javascript_engines.chromium() == str(stub)


@pytest.mark.browser
def test_the_mask_is_torchs_in_node(small: SimpleNamespace, javascript: Path) -> None:
    outcome = javascript_engines.onnxruntime_node(small.dynamic / MASK_FILE, small.images)
    np.testing.assert_array_equal(outcome.mask, small.mask)
