"""Which network file is run, and every layout of its mask and of its input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from serving_builders import (
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
    write_artifact,
)

from dropclass_deploy.core.errors import ArtifactError, UserError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.serving import Segmenter, verify
from dropclass_deploy.serving.artifact import open_artifact
from dropclass_deploy.serving.mask_layout import MaskLayout, mask_layout
from dropclass_deploy.serving.parity.artifact_comparison import check_sample
from dropclass_deploy.serving.runtimes import TensorSpec

IMAGE = random_images(1, (24, 32))[0]
EXPECTED = dense_masks([IMAGE], conv_weights())[0]
TYPES = {"uint8": T.UINT8, "int32": T.INT32, "int64": T.INT64}


@pytest.mark.parametrize("baked", [True, False])
@pytest.mark.parametrize("order", ["NHW", "NHWC", "NCHW"])
@pytest.mark.parametrize("dtype", list(TYPES))
def test_every_mask_layout_gives_the_same_mask(tmp_path: Path, dtype: str, order: str, baked: bool) -> None:
    options = {"dtype": TYPES[dtype], "order": order, "baked": baked}
    with Segmenter.load(write_artifact(tmp_path / "a", mask_options=options)) as segmenter:
        result = segmenter(IMAGE)
        assert segmenter._logits is None
    assert (result.mask.dtype, result.mask.shape) == (np.uint8, (24, 32))
    np.testing.assert_array_equal(result.mask, EXPECTED)


@pytest.mark.parametrize("order", ["NHWC", "NCHW"])
def test_static_batch_of_another_layout(tmp_path: Path, order: str) -> None:
    options = {"dtype": T.INT64, "order": order, "baked": False}
    folder = write_artifact(tmp_path / "a", shape=(2, 24, 32), mask_options=options)
    with Segmenter.load(folder) as segmenter:
        np.testing.assert_array_equal(segmenter(IMAGE).mask, EXPECTED)


@pytest.mark.parametrize("order", ["NHW", "NHWC", "NCHW"])
def test_verify_holds_the_sample_for_every_layout(tmp_path: Path, order: str) -> None:
    images = random_images(12, (24, 32))
    masks = dense_masks(images, conv_weights())
    data = MemoryDataset(images, noisy(masks))
    options = {"dtype": T.INT32, "order": order, "baked": False}
    report = verify(write_artifact(tmp_path / "a", references=(data, masks), mask_options=options), data=data)
    assert (report.verdict, report.to_json()["sample_check"]["differing"]) == ("pass", 0)


def test_a_sample_that_another_network_made_is_found(tmp_path: Path) -> None:
    images = random_images(12, (24, 32))
    masks = dense_masks(images, conv_weights())
    data = MemoryDataset(images, noisy(masks))

    def other_sample(folder: Path) -> None:
        save_mask(folder / "models/model.mask.onnx", conv_weights(seed=5), metadata=metadata_of(PLAIN), dtype=T.INT64)

    report = verify(write_artifact(tmp_path / "a", references=(data, masks), edit=other_sample), data=data)
    assert report.verdict == "fail"
    assert any("the sample's mask differs" in reason for reason in report.reasons)


@pytest.mark.parametrize(("head", "precision"), [("dense", "int8"), ("sparse", "fp32")])
def test_the_sample_goes_through_the_file_that_is_verified(tmp_path: Path, head: str, precision: str) -> None:
    artifact = open_artifact(with_variants(tmp_path / "a"))
    with Segmenter(artifact, precision=precision, head=head) as segmenter:
        check = check_sample(artifact, segmenter)
    # The variants of this artifact have other weights than the file that made the sample's mask, all in float32.
    assert check.differing > 0
    assert "the sample's mask differs" in check.problem
    with Segmenter(artifact) as segmenter:
        assert check_sample(artifact, segmenter).problem == ""


def save_half_mask(path: Path) -> None:
    """The network with float16 weights, each a little off: some borders move."""
    kernel, bias = conv_weights()
    kernel = kernel + 0.05 * np.random.default_rng(8).normal(size=kernel.shape)
    scale, shift = PLAIN.scale_and_shift()
    nodes = [
        h.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        h.make_node("Cast", ["planes"], ["floats"], to=T.FLOAT),
        h.make_node("Mul", ["floats", "scale"], ["scaled"]),
        h.make_node("Add", ["scaled", "shift"], ["normalised"]),
        h.make_node("Cast", ["normalised"], ["halves"], to=T.FLOAT16),
        h.make_node("Conv", ["halves", "w", "b"], ["logits"], pads=[1, 1, 1, 1]),
        h.make_node("ArgMax", ["logits"], ["ids"], axis=1, keepdims=0),
        h.make_node("Cast", ["ids"], ["mask"], to=T.UINT8),
    ]
    stored = {
        "scale": scale.reshape(1, 3, 1, 1),
        "shift": shift.reshape(1, 3, 1, 1),
        "w": kernel.astype(np.float16),
        "b": bias.astype(np.float16),
    }
    image = h.make_tensor_value_info("image", T.UINT8, ["N", "H", "W", 3])
    save(path, nodes, image, h.make_tensor_value_info("mask", T.UINT8, ["N", "H", "W"]), stored, metadata_of(PLAIN))


def test_a_lower_precision_is_counted_on_the_sample_and_judged_on_the_data(tmp_path: Path) -> None:
    def halved(folder: Path) -> None:
        save_half_mask(folder / "models/model.fp16.mask.onnx")

    artifact = open_artifact(write_artifact(tmp_path / "a", edit=halved))
    with Segmenter(artifact, precision="fp16") as segmenter:
        check = check_sample(artifact, segmenter)
        assert segmenter.precision == "fp16"
    assert (check.pixels, check.problem) == (24 * 32, "")
    assert 0 < check.differing < 0.2 * check.pixels


def foreign(dtype: int, order: str) -> Callable[[Path], Any]:
    return lambda folder: save_mask(folder / "models/model.mask.onnx", conv_weights(), dtype=dtype, order=order)


@pytest.mark.parametrize("dtype", [T.FLOAT, T.INT8, T.UINT16])
def test_any_other_mask_type_is_refused(tmp_path: Path, dtype: int) -> None:
    with pytest.raises(ArtifactError, match=r"has mask .*expected one mask of uint8, int32, int64"):
        Segmenter.load(write_artifact(tmp_path / "a", edit=foreign(dtype, "NHW")))


@pytest.mark.parametrize("dtype", [T.UINT8, T.INT32, T.INT64])
def test_ids_outside_the_class_table_are_refused(tmp_path: Path, dtype: int) -> None:
    # Six classes in a network whose manifest knows four: 4 and 5 would be painted as nothing.
    def six(folder: Path) -> None:
        save_mask(folder / "models/model.mask.onnx", conv_weights(classes=6), dtype=dtype)

    with (
        Segmenter.load(write_artifact(tmp_path / "a", edit=six)) as segmenter,
        pytest.raises(ArtifactError, match=r"class ids from 0 to 5; expected 0 … 3"),
    ):
        segmenter(IMAGE)


def test_ids_that_wrap_around_in_8_bits_are_refused() -> None:
    with pytest.raises(ArtifactError, match=r"class ids from 0 to 256; expected 0 … 3"):
        MaskLayout("int64").masks(np.array([[[0, 256]]]), 4)
    with pytest.raises(ArtifactError, match=r"class ids from -255 to 0"):
        MaskLayout("int32").masks(np.array([[[0, -255]]]), 4)


@pytest.mark.parametrize(
    ("dtype", "shape", "order"),
    [
        ("uint8", (None, None, None), "NHW"),
        ("int32", (1, 1, 512, 1024), "NCHW"),
        ("int64", (None, None, None, 1), "NHWC"),
        ("int64", (None, 3, None, None), None),
        ("uint8", (None, None, None, None), None),
        ("uint8", (None, None), None),
        ("float32", (None, None, None), None),
    ],
)
def test_layout_of_a_tensor(dtype: str, shape: tuple[int | None, ...], order: str | None) -> None:
    expected = None if order is None else MaskLayout(dtype, order)
    assert mask_layout(TensorSpec("mask", dtype, shape)) == expected


def with_variants(folder: Path) -> Path:
    """A second network as "int8", of other weights so that one sees which file ran; its sparse head a third."""

    def more(artifact: Path) -> None:
        metadata = metadata_of(PLAIN)
        save_mask(artifact / "models/model.int8.mask.onnx", conv_weights(seed=1), metadata=metadata)
        save_logits(artifact / "models/model.int8.onnx", conv_weights(seed=1), metadata=metadata)
        save_mask(artifact / "models/model.sparse.mask.onnx", conv_weights(seed=2), metadata=metadata)
        save_mask(artifact / "models/model.fp16.mask.onnx", conv_weights(seed=3), metadata=metadata)

    return write_artifact(folder, edit=more)


@pytest.mark.parametrize(
    ("head", "precision", "seed"),
    [("dense", "fp32", 0), ("dense", "int8", 1), ("sparse", "fp32", 2), ("dense", "fp16", 3)],
)
def test_the_file_of_the_head_and_precision_runs(tmp_path: Path, head: str, precision: str, seed: int) -> None:
    with Segmenter.load(with_variants(tmp_path / "a"), precision=precision, head=head) as segmenter:
        np.testing.assert_array_equal(segmenter(IMAGE).mask, dense_masks([IMAGE], conv_weights(seed))[0])


def test_logits_come_from_the_file_of_the_same_precision(tmp_path: Path) -> None:
    with Segmenter.load(with_variants(tmp_path / "a"), precision="int8") as segmenter:
        logits = segmenter.network_logits(IMAGE)
        np.testing.assert_array_equal(logits.argmax(0), dense_masks([IMAGE], conv_weights(1))[0])


def test_variants_are_those_of_the_manifest(tmp_path: Path) -> None:
    artifact = open_artifact(with_variants(tmp_path / "a"))
    assert artifact.variants() == (("dense", "fp32"), ("sparse", "fp32"), ("dense", "fp16"), ("dense", "int8"))
    assert artifact.model("logits", "int8") == tmp_path / "a/models/model.int8.onnx"
    assert artifact.model() == tmp_path / "a/models/model.mask.onnx"


def test_a_variant_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(
        ArtifactError,
        match=r"has no models/model\.int8\.sparse\.mask\.onnx .*expected one of .*model\.int8\.mask\.onnx",
    ):
        Segmenter.load(with_variants(tmp_path / "a"), precision="int8", head="sparse")


def test_an_unlisted_file_is_not_a_variant(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "a")
    save_mask(folder / "models/model.int8.mask.onnx", conv_weights(seed=1))
    assert open_artifact(folder).variants() == (("dense", "fp32"),)
    with pytest.raises(ArtifactError, match=r"has no models/model\.int8\.mask\.onnx"):
        Segmenter.load(folder, precision="int8")


def test_missing_logits_of_a_precision_are_named_when_needed(tmp_path: Path) -> None:
    with Segmenter.load(with_variants(tmp_path / "a"), precision="fp16") as segmenter:
        segmenter(IMAGE)
        with pytest.raises(ArtifactError, match=r"has no models/model\.fp16\.onnx"):
            segmenter(IMAGE, size=(48, 64))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"precision": "int4"}, "no precision 'int4'"),
        ({"head": "thin"}, "no mask head 'thin'"),
        ({"head": "logits"}, "gives no mask; expected 'dense' or 'sparse'"),
    ],
)
def test_unknown_choices(tmp_path: Path, choice: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Segmenter.load(write_artifact(tmp_path / "a"), **choice)  # type: ignore[arg-type]


def test_a_mask_of_another_size_than_the_image_is_refused(tmp_path: Path) -> None:
    def shrunk(folder: Path) -> None:
        nodes = [
            h.make_node("Slice", ["image", "starts", "ends", "axes"], ["cut"]),
            h.make_node("ArgMax", ["cut"], ["ids"], axis=3, keepdims=0),
            h.make_node("Cast", ["ids"], ["mask"], to=T.UINT8),
        ]
        image = h.make_tensor_value_info("image", T.UINT8, ["N", "H", "W", 3])
        mask = h.make_tensor_value_info("mask", T.UINT8, ["N", "h", "W"])
        bounds = {"starts": np.array([0]), "ends": np.array([5]), "axes": np.array([1])}
        save(folder / "models/model.mask.onnx", nodes, image, mask, bounds, {})

    with (
        Segmenter.load(write_artifact(tmp_path / "a", edit=shrunk)) as segmenter,
        pytest.raises(ArtifactError, match=r"a mask of \(5, 32\) for an image of \(24, 32\)"),
    ):
        segmenter(IMAGE)


def test_float_input_of_a_fixed_size(tmp_path: Path) -> None:
    sized = Preprocess(mean=PLAIN.mean, std=PLAIN.std, size=(16, 20))
    small = random_images(1, (16, 20))[0]
    folder = write_artifact(tmp_path / "a", preprocess=sized, shape=(1, 16, 20), mask_options={"baked": False})
    with Segmenter.load(folder) as segmenter:
        np.testing.assert_array_equal(segmenter(small).mask, dense_masks([small], conv_weights())[0])
