"""The gate on an artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_builders import (
    NAMES,
    MemoryDataset,
    conv_weights,
    dense_masks,
    noisy,
    random_images,
    write_artifact,
)

from dropclass_deploy.core.errors import ArtifactError, UserError
from dropclass_deploy.core.files import write_text
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.images import write_png
from dropclass_deploy.serving import VerifyOptions, verify

IMAGES = random_images(12, (24, 32))
MASKS = dense_masks(IMAGES, conv_weights())
DATA = MemoryDataset(IMAGES, noisy(MASKS))
SIZED = Preprocess(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), size=(16, 20))


def with_references(folder: Path, **options: Any) -> Path:
    return write_artifact(folder, references=(DATA, MASKS), **options)


def killed(index: int) -> tuple[np.ndarray, np.ndarray]:
    """The network's weights with one class that never wins."""
    kernel, bias = conv_weights()
    bias = bias.copy()
    bias[index] = -1e6
    return kernel, bias


def test_faithful_artifact_passes_and_writes_evidence(tmp_path: Path) -> None:
    report = verify(with_references(tmp_path / "a"), data=DATA)
    assert (report.verdict, report.rule, report.reasons) == ("pass", "strict", ())
    assert json.loads((tmp_path / "a/evidence/parity.json").read_text()) == report.to_json()


def test_json_has_the_fields_of_the_contract(tmp_path: Path) -> None:
    content = verify(with_references(tmp_path / "a"), data=DATA, options=VerifyOptions(seed=7, resamples=50)).to_json()
    needed = "verdict classes pixel_disagreement provider precision reference candidate rule seed resamples data split"
    assert set(needed.split()) | {"images", "miou", "rare_miou", "reasons", "preprocess_digest", "sample_check"} <= set(
        content
    )
    assert (content["unit"], content["provider"], content["precision"]) == ("fraction", "CPUExecutionProvider", "fp32")
    assert (content["seed"], content["resamples"], content["images"]) == (7, 50, 12)
    assert content["sample_check"]["verdict"] == "pass"
    assert [row["name"] for row in content["classes"]] == list(NAMES)
    wanted = {
        "name",
        "iou_reference",
        "iou_candidate",
        "delta",
        "interval",
        "margin",
        "images",
        "pixels",
        "rare",
        "verdict",
    }
    assert all(wanted <= set(row) for row in content["classes"])
    ious = [row["iou_reference"] for row in content["classes"]]
    # The same four numbers averaged in another order.
    assert content["miou"]["reference"] == pytest.approx(sum(ious) / 4, abs=1e-12)
    assert content["rare_miou"]["candidate"] == pytest.approx(sum(ious[2:]) / 2, abs=1e-12)


def test_class_silently_killed_is_caught_and_named(tmp_path: Path) -> None:
    report = verify(with_references(tmp_path / "a", weights=killed(3)), data=DATA)
    assert report.verdict == "fail"
    assert any(reason.startswith("pole: IoU moved by -") for reason in report.reasons)
    assert {item.figures.name: item.verdict for item in report.classes}["pole"] == "fail"


def test_one_differing_pixel_in_a_thousand_fails_the_strict_rule(tmp_path: Path) -> None:
    masks = [mask.copy() for mask in MASKS]
    for mask in masks[:10]:
        mask[0, 0] = (mask[0, 0] + 1) % 4
    report = verify(write_artifact(tmp_path / "a", references=(DATA, masks)), data=DATA)
    # 10 of 12 · 24 · 32 pixels.
    assert report.pixel_disagreement == 10 / 9216
    assert report.verdict == "fail"
    assert any("differ at 0.00109 of the pixels" in reason for reason in report.reasons)


def test_figures_are_those_of_the_two_mask_sets(tmp_path: Path) -> None:
    report = verify(with_references(tmp_path / "a", weights=killed(3)), data=DATA)
    candidate = dense_masks(IMAGES, killed(3))
    for index, item in enumerate(report.classes):
        for masks, found in ((MASKS, item.figures.iou_reference), (candidate, item.figures.iou_candidate)):
            inside = sum(np.count_nonzero((m == index) & (t == index)) for m, t in zip(masks, DATA.masks, strict=True))
            union = sum(np.count_nonzero((m == index) | (t == index)) for m, t in zip(masks, DATA.masks, strict=True))
            # One division in float64.
            assert found == pytest.approx(inside / union, abs=1e-15)


def test_reference_function_is_asked_where_nothing_is_stored(tmp_path: Path) -> None:
    by_bytes = {image.tobytes(): mask for image, mask in zip(IMAGES, MASKS, strict=True)}
    report = verify(write_artifact(tmp_path / "a"), data=DATA, reference_masks=lambda image: by_bytes[image.tobytes()])
    assert (report.verdict, report.facts.reference) == ("pass", "PyTorch")


def test_stored_masks_come_before_the_function(tmp_path: Path) -> None:
    def never(image: np.ndarray) -> np.ndarray:
        raise AssertionError("asked for an image that has a stored mask")

    assert verify(with_references(tmp_path / "a"), data=DATA, reference_masks=never).verdict == "pass"


def test_no_reference_at_all_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no reference mask for image image0.*export again with --data"):
        verify(write_artifact(tmp_path / "a"), data=DATA)


def test_other_label_than_at_export_fails(tmp_path: Path) -> None:
    artifact = with_references(tmp_path / "a")
    labels = [label.copy() for label in DATA.masks]
    labels[4][0, 0] ^= 1
    report = verify(artifact, data=MemoryDataset(IMAGES, labels))
    assert report.verdict == "fail"
    assert any("the label is not the one" in reason and "image4" in reason for reason in report.reasons)


def test_nan_logits_fail_and_name_the_image(tmp_path: Path) -> None:
    kernel, bias = conv_weights()
    poisoned = (kernel, np.array([np.nan, *bias[1:]], dtype=np.float32))
    report = verify(with_references(tmp_path / "a", logits_weights=poisoned), data=DATA)
    assert report.verdict == "fail"
    assert any(
        "NaN or infinity in the logits of models/model.onnx: image image0 and 8 more" in r for r in report.reasons
    )


def test_logits_file_of_another_network_fails(tmp_path: Path) -> None:
    report = verify(with_references(tmp_path / "a", logits_weights=conv_weights(5)), data=DATA)
    assert report.verdict == "fail"
    assert report.logits_disagreement is not None
    assert report.logits_disagreement > 0.1
    assert any("logits file differs from models/model.mask.onnx" in reason for reason in report.reasons)


def test_wrong_sample_mask_fails(tmp_path: Path) -> None:
    def swap(folder: Path) -> None:
        write_png(folder / "sample/mask.png", np.zeros((24, 32), np.uint8))

    report = verify(with_references(tmp_path / "a", edit=swap), data=DATA)
    assert report.verdict == "fail"
    assert any("the sample's mask differs" in reason for reason in report.reasons)
    assert report.to_json()["sample_check"]["verdict"] == "fail"


def test_missing_sample_fails(tmp_path: Path) -> None:
    def remove(folder: Path) -> None:
        (folder / "sample/mask.png").unlink()

    report = verify(with_references(tmp_path / "a", edit=remove), data=DATA)
    assert report.verdict == "fail"
    assert any("has no sample/mask.png" in reason for reason in report.reasons)


def test_precision_that_is_not_the_promised_one_fails(tmp_path: Path) -> None:
    report = verify(with_references(tmp_path / "a", precision="fp16"), data=DATA)
    assert report.verdict == "fail"
    assert any("is fp32 as read from its graph, and fp16 in the manifest" in reason for reason in report.reasons)


def test_changed_byte_stops_everything(tmp_path: Path) -> None:
    path = with_references(tmp_path / "a") / "models/model.mask.onnx"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match=r"models/model\.mask\.onnx has changed"):
        verify(tmp_path / "a", data=DATA)


def test_fixed_size_is_compared_at_the_labels_size(tmp_path: Path) -> None:
    images = random_images(10, (40, 50))
    artifact = write_artifact(tmp_path / "a", preprocess=SIZED)
    from dropclass_deploy.serving import Segmenter

    with Segmenter.load(artifact) as segmenter:
        masks = [segmenter(image).mask for image in images]
    data = MemoryDataset(images, noisy(masks))
    report = verify(
        artifact,
        data=data,
        reference_masks=lambda image: next(m for i, m in zip(images, masks, strict=True) if i is image),
    )
    assert (report.verdict, report.pixel_disagreement, report.logits_disagreement) == ("pass", 0.0, 0.0)


def test_evidence_can_go_elsewhere(tmp_path: Path) -> None:
    verify(with_references(tmp_path / "a"), data=DATA, evidence=tmp_path / "b/c")
    assert (tmp_path / "b/c/parity.json").is_file()
    assert not (tmp_path / "a/evidence").exists()


def test_unwritable_evidence_names_the_option(tmp_path: Path) -> None:
    artifact = with_references(tmp_path / "a")
    write_text(artifact / "evidence", "a file where a folder is needed")
    with pytest.raises(UserError, match=r"parity\.json cannot be written.*--evidence"):
        verify(artifact, data=DATA)


def test_limit_takes_the_first_images_and_reports_progress(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    options = VerifyOptions(limit=5, progress=lambda done, total, status="": told.append((done, total)))
    assert verify(with_references(tmp_path / "a"), data=DATA, options=options).images == 5
    assert told == [(index, 5) for index in range(1, 6)]
