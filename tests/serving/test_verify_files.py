"""The gate between two ONNX files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from serving_builders import (
    NAMES,
    PLAIN,
    MemoryDataset,
    conv_weights,
    dense_masks,
    metadata_of,
    noisy,
    random_images,
    save,
    save_logits,
    save_mask,
)

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import ArtifactError, DataError, UserError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.serving import ParityReport, VerifyOptions, verify

IMAGES = random_images(12, (32, 40))
MASKS = dense_masks(IMAGES, conv_weights())
DATA = MemoryDataset(IMAGES, noisy(MASKS))
OWN = metadata_of(PLAIN, rare=("car", "pole"))


def compare(reference: Path, candidate: Path, data: MemoryDataset = DATA, **options: Any) -> ParityReport:
    return verify(reference=reference, candidate=candidate, data=data, options=VerifyOptions(resamples=500, **options))


def killed(index: int) -> tuple[np.ndarray, np.ndarray]:
    kernel, bias = conv_weights()
    return kernel, np.where(np.arange(4) == index, np.float32(-6e4), bias)  # the least that float16 holds is −65504


@pytest.fixture
def logits_file(tmp_path: Path) -> Path:
    return save_logits(tmp_path / "logits.onnx", conv_weights(), metadata=OWN)


def test_logits_against_mask_file_is_strict_and_passes(tmp_path: Path, logits_file: Path) -> None:
    report = compare(logits_file, save_mask(tmp_path / "mask.onnx", conv_weights(), metadata=OWN))
    assert (report.verdict, report.rule, report.reasons) == ("pass", "strict", ())
    assert (report.facts.reference, report.facts.candidate) == ("logits.onnx", "mask.onnx")
    assert report.sample_check is None


def test_half_precision_is_judged_by_non_inferiority(tmp_path: Path, logits_file: Path) -> None:
    half = save_logits(tmp_path / "half.onnx", conv_weights(), metadata=OWN, dtype=T.FLOAT16)
    report = compare(logits_file, half)
    assert (report.rule, report.facts.precision, report.facts.reference_precision) == (
        "non-inferiority",
        "fp16",
        "fp32",
    )
    assert [item.margin for item in report.classes] == [0.005, 0.005, 0.003, 0.003]
    # The poles cover under 1,000 pixels of these images or the interval decides; never a failure.
    assert report.verdict in ("pass", "insufficient")


def test_class_silently_killed_in_half_precision_is_caught_and_named(tmp_path: Path, logits_file: Path) -> None:
    half = save_logits(tmp_path / "half.onnx", killed(0), metadata=OWN, dtype=T.FLOAT16)
    report = compare(logits_file, half)
    assert report.verdict == "fail"
    assert any(reason.startswith("sky: the 95 % interval") for reason in report.reasons)
    assert report.classes[0].verdict == "fail"


def test_identical_outputs_on_nine_images_are_insufficient(tmp_path: Path) -> None:
    half = save_logits(tmp_path / "half.onnx", conv_weights(), metadata=OWN, dtype=T.FLOAT16)
    report = compare(half, half, MemoryDataset(DATA.images[:9], DATA.masks[:9]))
    assert report.pixel_disagreement == 0.0
    assert report.verdict == "insufficient"
    assert {item.verdict for item in report.classes} == {"insufficient"}
    assert all("9 images" in reason for reason in report.reasons)


def test_allowed_insufficient_classes_are_recorded(tmp_path: Path) -> None:
    half = save_logits(tmp_path / "half.onnx", conv_weights(), metadata=OWN, dtype=T.FLOAT16)
    few = MemoryDataset(DATA.images[:9], DATA.masks[:9])
    names = ("sky", "road", "car", "pole")
    report = compare(half, half, few, allow_insufficient=names)
    assert (report.verdict, report.reasons) == ("pass", ())
    assert report.to_json()["allow_insufficient"] == list(names)
    assert {row["verdict"] for row in report.to_json()["classes"]} == {"insufficient"}


def test_low_resolution_logits_are_resized_to_the_label(tmp_path: Path) -> None:
    small = save_logits(tmp_path / "small.onnx", conv_weights(), metadata=OWN, stride=4)
    assert compare(small, small).verdict == "pass"


def test_fixed_input_gets_resized_images(tmp_path: Path, logits_file: Path) -> None:
    fixed = save_logits(tmp_path / "fixed.onnx", conv_weights(), metadata=OWN, shape=(2, 32, 40))
    assert compare(logits_file, fixed).verdict == "pass"
    other = save_logits(tmp_path / "other.onnx", conv_weights(), metadata=OWN, shape=(1, 16, 24))
    assert compare(logits_file, other).verdict == "fail"


def test_preprocessing_is_taken_from_the_other_file(tmp_path: Path, logits_file: Path) -> None:
    bare = save_logits(tmp_path / "bare.onnx", conv_weights())
    assert compare(logits_file, bare).verdict == "pass"
    assert compare(bare, logits_file).verdict == "pass"


def test_preprocessing_that_nobody_names_is_asked_for(tmp_path: Path) -> None:
    bare = save_logits(tmp_path / "bare.onnx", conv_weights())
    with pytest.raises(UserError, match=r"bare\.onnx takes normalised images.*--preprocess FILE\.json"):
        compare(bare, bare)
    assert compare(bare, bare, preprocess=PLAIN).verdict == "pass"


def test_mask_files_need_no_preprocessing(tmp_path: Path) -> None:
    bare = save_mask(tmp_path / "bare.onnx", conv_weights())
    report = compare(bare, bare)
    assert (report.verdict, report.facts.preprocess_digest) == ("pass", None)


@pytest.mark.parametrize("given", [False, True])
def test_other_preprocessing_fails(tmp_path: Path, logits_file: Path, given: bool) -> None:
    metadata = OWN if given else metadata_of(Preprocess())
    other = save_logits(tmp_path / "other.onnx", conv_weights(), metadata=metadata)
    report = compare(logits_file, other, **({"preprocess": Preprocess()} if given else {}))
    assert report.verdict == "fail"
    assert any(
        "the preprocessing differs" in reason and Preprocess().digest()[:12] in reason for reason in report.reasons
    )


def test_nan_logits_fail(tmp_path: Path, logits_file: Path) -> None:
    kernel, bias = conv_weights()
    poisoned = save_logits(tmp_path / "nan.onnx", (kernel, np.where(np.arange(4) == 1, np.nan, bias)), metadata=OWN)
    report = compare(logits_file, poisoned)
    assert report.verdict == "fail"
    assert any("NaN or infinity in the logits of nan.onnx" in reason for reason in report.reasons)


def test_number_of_logits_against_the_data(tmp_path: Path) -> None:
    five = save_logits(tmp_path / "five.onnx", conv_weights(classes=5), metadata=metadata_of(PLAIN, names=None))
    with pytest.raises(DataError, match=r"five\.onnx gives logits of shape.*\(N, 4, h, w\)"):
        compare(five, five)


def test_number_of_named_classes_against_the_data(tmp_path: Path) -> None:
    other = save_logits(tmp_path / "m.onnx", conv_weights(), metadata=metadata_of(PLAIN, names=("a", "b")))
    with pytest.raises(DataError, match=r"memory: has 4 classes and .*m\.onnx 2"):
        compare(other, other)


def test_mask_id_outside_the_data(tmp_path: Path) -> None:
    three = MemoryDataset(IMAGES, [np.minimum(mask, 2) for mask in MASKS], ClassTable(names=("a", "b", "c")))
    mask = save_mask(tmp_path / "m.onnx", conv_weights())
    with pytest.raises(DataError, match=r"m\.onnx gives class ids from 0 to 3.*0 … 2"):
        compare(mask, mask, three)


@pytest.mark.parametrize(("axes", "dtype"), [([1], T.INT64), ([3], T.INT32), (None, T.INT64)])
def test_foreign_mask_layouts(tmp_path: Path, logits_file: Path, axes: list[int] | None, dtype: int) -> None:
    nodes = [
        h.make_node("Conv", ["data", "w", "b"], ["logits"], pads=[1, 1, 1, 1]),
        h.make_node("ArgMax", ["logits"], ["ids"], axis=1, keepdims=0),
        h.make_node("Cast", ["ids"], ["cast"], to=dtype),
        h.make_node("Unsqueeze", ["cast", "axes"], ["prediction"])
        if axes
        else h.make_node("Identity", ["cast"], ["prediction"]),
    ]
    kernel, bias = conv_weights()
    shape: list[Any] = ["N", "H", "W"]
    foreign = save(
        tmp_path / "foreign.onnx",
        nodes,
        h.make_tensor_value_info("data", T.FLOAT, ["N", 3, "H", "W"]),
        h.make_tensor_value_info("prediction", dtype, shape if not axes else [*shape[: axes[0]], 1, *shape[axes[0] :]]),
        {"w": kernel, "b": bias} | ({"axes": np.array(axes)} if axes else {}),
        {},
    )
    assert compare(logits_file, foreign).verdict == "pass"


def test_small_masks_are_enlarged_and_that_is_noted(tmp_path: Path) -> None:
    small = save_mask(tmp_path / "m.onnx", conv_weights(), shape=(1, 16, 20))
    report = compare(small, small)
    assert any("enlarged by nearest neighbour" in note and "m.onnx" in note for note in report.notes)


def test_two_inputs_are_refused(tmp_path: Path, logits_file: Path) -> None:
    import onnx

    graph = h.make_graph(
        [h.make_node("Add", ["a", "b"], ["c"])], "g",
        [h.make_tensor_value_info(name, T.FLOAT, [1, 3, 4, 4]) for name in "ab"],
        [h.make_tensor_value_info("c", T.FLOAT, [1, 3, 4, 4])],
    )  # fmt: skip
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.save(model, tmp_path / "two.onnx")
    with pytest.raises(UserError, match=r"two\.onnx has 2 inputs"):
        compare(logits_file, tmp_path / "two.onnx")


def test_unknown_input_layout_is_refused(tmp_path: Path, logits_file: Path) -> None:
    flat = save(
        tmp_path / "flat.onnx",
        [h.make_node("Identity", ["x"], ["y"])],
        h.make_tensor_value_info("x", T.FLOAT, [1, 10]),
        h.make_tensor_value_info("y", T.FLOAT, [1, 10]),
        {},
        {},
    )
    with pytest.raises(UserError, match=r"flat\.onnx has the input x float32 \(1, 10\); expected an image"):
        compare(logits_file, flat)


def test_unknown_output_layout_is_refused(tmp_path: Path, logits_file: Path) -> None:
    pooled = save(
        tmp_path / "pooled.onnx",
        [h.make_node("Flatten", ["x"], ["y"])],
        h.make_tensor_value_info("x", T.FLOAT, [1, 3, "H", "W"]),
        h.make_tensor_value_info("y", T.FLOAT, [1, "M"]),
        {},
        {},
    )
    with pytest.raises(UserError, match=r"pooled\.onnx has the outputs y float32 .*expected float logits"):
        compare(logits_file, pooled)


def test_unreadable_metadata(tmp_path: Path, logits_file: Path) -> None:
    for key in ("preprocess", "class_names", "rare_classes"):
        broken = save_logits(tmp_path / f"{key}.onnx", conv_weights(), metadata={key: "{nonsense"})
        with pytest.raises(ArtifactError, match=f"carries metadata '{key}' that cannot be read"):
            compare(logits_file, broken)


def test_unknown_rare_classes_are_noted(tmp_path: Path) -> None:
    bare = save_mask(tmp_path / "m.onnx", conv_weights())
    plain = MemoryDataset(IMAGES, DATA.masks, ClassTable(names=DATA.classes.names))
    assert any("rare classes are not known" in note for note in compare(bare, bare, plain).notes)


def test_evidence_is_written_only_where_asked(tmp_path: Path, logits_file: Path) -> None:
    compare(logits_file, logits_file)
    assert list(tmp_path.iterdir()) == [logits_file]
    report = verify(reference=logits_file, candidate=logits_file, data=DATA, evidence=tmp_path / "e")
    assert json.loads((tmp_path / "e/parity.json").read_text())["verdict"] == report.verdict


@pytest.mark.parametrize(("first", "second"), [("own", "moved"), ("moved", "own"), ("moved", "moved")])
def test_classes_in_another_order_are_refused(tmp_path: Path, first: str, second: str) -> None:
    names = {"own": NAMES, "moved": (NAMES[1], NAMES[0], *NAMES[2:])}
    files = {
        key: save_logits(tmp_path / f"{key}.onnx", conv_weights(), metadata=metadata_of(PLAIN, names=value))
        for key, value in names.items()
    }
    with pytest.raises(DataError, match=r"moved\.onnx and .*: the same classes in another order"):
        compare(files[first], files[second])


def test_two_files_are_held_against_one_another_too(tmp_path: Path) -> None:
    # Neither shares a name with the data: only the other file shows that "x" has moved.
    files = [
        save_logits(tmp_path / f"{index}.onnx", conv_weights(), metadata=metadata_of(PLAIN, names=names))
        for index, names in enumerate([("x", "y", "u", "v"), ("y", "x", "u", "v")])
    ]
    with pytest.raises(DataError, match=r"class 0 is 'x' in 0\.onnx and 'y' in 1\.onnx: the same classes in another"):
        compare(*files)
