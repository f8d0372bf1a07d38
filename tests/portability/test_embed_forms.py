"""The examples on every form of mask file that export offers: the same mask, or a refusal of one line."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from isolated import EXAMPLES, run_alone
from PIL import Image

Done = subprocess.CompletedProcess[str]
READ = ["int32 NHWC, two at once", "int64 NCHW"]
REFUSED = {"floats": "normalised", "window": "window"}


def segment_py(artifact: Path, image: Path, folder: Path) -> Done:
    return run_alone(folder, "segment.py", artifact / "models/model.mask.onnx", image, "mask.png")


@pytest.fixture
def segment_mjs(javascript: Path, tmp_path: Path) -> Callable[[Path, Path, Path], Done]:
    shutil.copy(EXAMPLES / "segment.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(javascript, target_is_directory=True)

    def run(artifact: Path, image: Path, folder: Path) -> Done:
        command = ["node", "segment.mjs", str(artifact), str(image), "mask.png"]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def segment(request: pytest.FixtureRequest) -> Callable[[Path, Path, Path], Done]:
    """The example that the parameter names."""
    return segment_py if request.param == "segment.py" else request.getfixturevalue("segment_mjs")


EXAMPLE = pytest.mark.parametrize(
    "segment", ["segment.py", pytest.param("segment.mjs", marks=pytest.mark.browser)], indirect=True
)


@EXAMPLE
@pytest.mark.parametrize("form", READ)
def test_the_mask_is_the_plain_forms(
    small: SimpleNamespace,
    forms: dict[str, Path],
    segment: Callable[[Path, Path, Path], Done],
    tmp_path: Path,
    form: str,
) -> None:
    Image.fromarray(small.images[0]).save(tmp_path / "image.png")
    done = segment(forms[form], tmp_path / "image.png", tmp_path)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "mask.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), small.mask[0])


@EXAMPLE
@pytest.mark.parametrize("form", REFUSED)
def test_what_is_not_done_is_refused_in_one_line(
    forms: dict[str, Path], segment: Callable[[Path, Path, Path], Done], tmp_path: Path, form: str
) -> None:
    check_refused(segment(forms[form], forms[form] / "sample/image.png", tmp_path), REFUSED[form])
    assert not (tmp_path / "mask.png").exists()


def check_refused(done: Done, reason: str) -> None:
    (line,) = done.stderr.splitlines()
    assert reason in line
    assert done.returncode == 2


@pytest.fixture
def slices(tmp_path: Path) -> Callable[[np.ndarray], Path]:
    """Writes values (H, W) as a NIfTI slice whose axes are a picture's columns and rows."""
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (the extra 'medical')")

    def write(values: np.ndarray) -> Path:
        # Left and Posterior, as a picture's columns and rows.
        nibabel.save(nibabel.Nifti1Image(values.T, np.diag([-1.0, -1.0, 1.0, 1.0])), tmp_path / "slice.nii")
        return tmp_path / "slice.nii"

    return write


@pytest.mark.parametrize("form", READ)
def test_medical_py_reads_the_form(
    small: SimpleNamespace, forms: dict[str, Path], slices: Callable[[np.ndarray], Path], tmp_path: Path, form: str
) -> None:
    import nibabel

    grey = small.images[0].mean(axis=-1).astype(np.uint8)
    done = run_alone(tmp_path, "medical.py", forms[form], slices(grey), "mask.nii")
    assert done.returncode == 0, done.stderr
    session = onnxruntime.InferenceSession(small.dynamic / "models/model.mask.onnx", providers=["CPUExecutionProvider"])
    (expected,) = session.run(["mask"], {"image": np.stack([grey] * 3, axis=-1)[None]})
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(np.asarray(nibabel.load(tmp_path / "mask.nii").dataobj), expected[0].T)


@pytest.mark.parametrize("form", [*REFUSED, "nan"])
def test_medical_py_refuses_in_one_line(
    small: SimpleNamespace, forms: dict[str, Path], slices: Callable[[np.ndarray], Path], tmp_path: Path, form: str
) -> None:
    values = np.zeros((48, 64), np.float32)
    values[3, 5] = np.nan if form == "nan" else 0
    done = run_alone(tmp_path, "medical.py", forms.get(form, small.dynamic), slices(values), "mask.nii")
    check_refused(done, REFUSED.get(form, "NaN at 1 of 3072 pixels"))
    assert not (tmp_path / "mask.nii").exists()
