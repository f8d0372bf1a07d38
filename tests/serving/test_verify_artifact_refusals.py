"""What the gate on an artifact refuses, and what it only notes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_builders import (
    MemoryDataset,
    conv_weights,
    dense_masks,
    noisy,
    random_images,
    write_artifact,
)

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import ArtifactError, DataError, UserError
from dropclass_deploy.core.files import write_json, write_text
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.serving import VerifyOptions, verify

IMAGES = random_images(12, (24, 32))
MASKS = dense_masks(IMAGES, conv_weights())
DATA = MemoryDataset(IMAGES, noisy(MASKS))
SIZED = Preprocess(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), size=(16, 20))


def with_references(folder: Path, **options: Any) -> Path:
    return write_artifact(folder, references=(DATA, MASKS), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"limit": 0}, "limit is 0"), ({"resamples": 0}, "0 bootstrap"), ({"seed": -1}, "seed is -1")],
)
def test_nonsense_options_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        VerifyOptions(**options)  # type: ignore[arg-type]


def test_number_of_classes_against_the_data(tmp_path: Path) -> None:
    other = MemoryDataset(IMAGES, DATA.masks, ClassTable(names=("a", "b", "c", "d", "e")))
    with pytest.raises(DataError, match=r"memory: has 5 classes and .* 4"):
        verify(with_references(tmp_path / "a"), data=other)


def test_other_class_names_are_noted(tmp_path: Path) -> None:
    other = MemoryDataset(IMAGES, DATA.masks, ClassTable(names=("sky", "street", "car", "pole")))
    report = verify(with_references(tmp_path / "a"), data=other)
    assert report.verdict == "pass"
    assert any("class 1 is 'road'" in note and "'street' in memory:" in note for note in report.notes)


def test_the_same_classes_in_another_order_are_refused(tmp_path: Path) -> None:
    other = MemoryDataset(IMAGES, DATA.masks, ClassTable(names=("sky", "car", "road", "pole")))
    with pytest.raises(
        DataError, match=r"class 1 is 'road' in .*a and 'car' in memory:: the same classes in another order"
    ):
        verify(with_references(tmp_path / "a"), data=other)


def test_unknown_allowed_class(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no class 'pool'"):
        verify(with_references(tmp_path / "a"), data=DATA, options=VerifyOptions(allow_insufficient=("pool",)))


def test_all_ignored_labels_are_insufficient(tmp_path: Path) -> None:
    data = MemoryDataset(IMAGES, [np.full_like(mask, 255) for mask in MASKS])
    report = verify(write_artifact(tmp_path / "a", references=(data, MASKS)), data=data)
    assert report.verdict == "insufficient"
    assert "no class occurs in the labels" in report.reasons[0]
    assert report.to_json()["miou"] == {"reference": None, "candidate": None}


def test_empty_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image to compare on"):
        verify(with_references(tmp_path / "a"), data=MemoryDataset([], []))


def test_index_that_points_outside_is_refused(tmp_path: Path) -> None:
    def redirect(folder: Path) -> None:
        write_json(folder / "reference/index.json", {"masks": {"0": {"label": "1", "file": "../secret.png"}}})

    with pytest.raises(ArtifactError, match=r"names '\.\./secret\.png'"):
        verify(with_references(tmp_path / "a", edit=redirect), data=DATA)


def test_index_that_is_no_json_is_refused(tmp_path: Path) -> None:
    def break_it(folder: Path) -> None:
        write_text(folder / "reference/index.json", "[")

    with pytest.raises(ArtifactError, match=r"index\.json cannot be read"):
        verify(with_references(tmp_path / "a", edit=break_it), data=DATA)


def test_reference_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"shape \(5, 5\).*label's \(24, 32\)"):
        verify(write_artifact(tmp_path / "a"), data=DATA, reference_masks=lambda image: np.zeros((5, 5), np.uint8))


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"reference": "a.onnx"},
        {"artifact": "a", "candidate": "b.onnx"},
        {"artifact": "a", "reference": "a", "candidate": "b"},
    ],
)
def test_contradicting_arguments(named: dict[str, str]) -> None:
    with pytest.raises(UserError, match="expected an artifact alone, or both files"):
        verify(**named, data=DATA)


def test_provider_that_fell_back_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dropclass_deploy.serving.runtimes import registry
    from dropclass_deploy.serving.runtimes.onnx_runtime import OnnxRuntime

    def fell_back(path: Path, threads: int | None) -> OnnxRuntime:
        runtime = OnnxRuntime(path, threads=threads)
        runtime.requested_provider = "CUDAExecutionProvider"
        return runtime

    monkeypatch.setitem(registry.RUNTIMES, "onnxruntime", fell_back)
    report = verify(with_references(tmp_path / "a"), data=DATA)
    assert report.verdict == "fail"
    assert any("runs on CPUExecutionProvider, not on CUDAExecutionProvider" in reason for reason in report.reasons)
