"""Raw images of one channel through an artifact that has a value range: the range first, then everything as ever."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving_builders import (
    NAMES,
    PLAIN,
    MemoryDataset,
    conv_weights,
    dense_masks,
    metadata_of,
    save_logits,
    write_artifact,
)

from dropclass_deploy.core.errors import DataError, UserError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data import open_dataset
from dropclass_deploy.data.images import read_image, write_png
from dropclass_deploy.serving import Segmenter, verify
from dropclass_deploy.serving.benchmark import bench
from dropclass_deploy.serving.benchmark.options import BenchOptions
from dropclass_deploy.serving.evaluate import evaluate_artifact
from dropclass_deploy.serving.predict import predict_files

LOW, HIGH = 50.0, 4000.0
RANGED = PLAIN.model_copy(update={"value_range": (LOW, HIGH)})
CLASSES_YAML = f"names: [{', '.join(NAMES)}]\nsplits: {{val: '*'}}\n"


def raw_scan(seed: int) -> np.ndarray:
    """12-bit values in blocks, uint16 (24, 32), so that several classes win."""
    blocks = np.random.default_rng(seed).integers(0, 4096, (4, 4)).repeat(6, axis=0).repeat(8, axis=1)
    return np.clip(blocks + np.random.default_rng(seed + 99).integers(-200, 201, (24, 32)), 0, 4095).astype(np.uint16)


def by_hand(raw: np.ndarray) -> np.ndarray:
    """The range's 8-bit picture by Python's own floats, pixel by pixel."""
    grey = [[round(min(max((float(v) - LOW) / (HIGH - LOW) * 255, 0.0), 255.0)) for v in row] for row in raw.tolist()]
    return np.stack([np.array(grey, np.uint8)] * 3, axis=-1)


SCANS = [raw_scan(seed) for seed in range(3)]
WINDOWED = [by_hand(raw) for raw in SCANS]
MASKS = dense_masks(WINDOWED, conv_weights())


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("ranged") / "artifact", preprocess=RANGED)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A 16-bit ``folder:`` whose labels are the network's own masks."""
    for index, (raw, mask) in enumerate(zip(SCANS, MASKS, strict=True)):
        (tmp_path / "scans/images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(raw).save(tmp_path / f"scans/images/{index}.png")
        write_png(tmp_path / f"scans/masks/{index}.png", mask)
    (tmp_path / "scans/classes.yaml").write_text(CLASSES_YAML + f"value_range: [{LOW}, {HIGH}]\n")
    return tmp_path / "scans"


def test_the_scans_say_something() -> None:
    assert min(len(np.unique(mask)) for mask in MASKS) >= 2


def test_predict_on_16_bit_files_equals_predict_on_hand_windowed_8_bit_ones(
    artifact: Path, folder: Path, tmp_path: Path
) -> None:
    for index, image in enumerate(WINDOWED):
        write_png(tmp_path / f"eight/{index}.png", image)
    with Segmenter.load(artifact) as segmenter:
        deep = list(predict_files(segmenter, [folder / "images"], tmp_path / "deep", overlay=True))
        eight = list(predict_files(segmenter, [tmp_path / "eight"], tmp_path / "out"))
    for one, other, mask in zip(deep, eight, MASKS, strict=True):
        np.testing.assert_array_equal(read_image(one.mask)[..., 0], mask)
        assert one.mask.read_bytes() == other.mask.read_bytes()
        assert one.overlay is not None


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.int64, np.float32, np.float64])
def test_arrays_of_one_channel_are_raw_and_rgb_is_taken_as_it_is(artifact: Path, kind: type) -> None:
    with Segmenter.load(artifact) as segmenter:
        np.testing.assert_array_equal(segmenter(SCANS[0].astype(kind)).mask, MASKS[0])
        np.testing.assert_array_equal(segmenter(WINDOWED[0]).mask, MASKS[0])
        assert segmenter(SCANS[0], size=(12, 16)).mask.shape == (12, 16)


def test_encoded_bytes_and_the_resized_path_use_the_range(tmp_path: Path) -> None:
    sized = RANGED.model_copy(update={"size": (16, 20)})
    stream = io.BytesIO()
    Image.fromarray(SCANS[1]).save(stream, "TIFF")
    with Segmenter.load(write_artifact(tmp_path / "a", preprocess=sized)) as segmenter:
        np.testing.assert_array_equal(segmenter.segment_bytes(stream.getvalue()).mask, segmenter(WINDOWED[1]).mask)


WRONG = {
    "two channels": (np.zeros((4, 4, 2), np.uint16), r"uint16 of shape \(4, 4, 2\); .*or raw values \(height, width\)"),
    "16-bit RGB": (np.zeros((4, 4, 3), np.uint16), r"uint16 of shape \(4, 4, 3\)"),
    "boolean": (np.zeros((4, 4), np.bool_), r"bool of shape \(4, 4\)"),
    "complex": (np.zeros((4, 4), np.complex64), "complex64"),
    "empty": (np.zeros((0, 4), np.uint16), r"shape \(0, 4\)"),
    "NaN": (np.full((4, 4), np.nan), "holds NaN at 16 of 16 pixels"),
}


@pytest.mark.parametrize("name", WRONG)
def test_other_arrays_are_refused(name: str, artifact: Path) -> None:
    array, message = WRONG[name]
    with Segmenter.load(artifact) as segmenter, pytest.raises(UserError, match=message):
        segmenter(array)


def test_one_channel_without_a_range_is_refused_with_the_reason(tmp_path: Path) -> None:
    message = r"uint16 of shape \(24, 32\); .*RGB, not empty; one channel needs an artifact whose .* value_range$"
    with Segmenter.load(write_artifact(tmp_path / "a")) as segmenter, pytest.raises(UserError, match=message):
        segmenter(SCANS[0])


def test_a_16_bit_file_for_an_artifact_without_a_range_is_named(folder: Path, tmp_path: Path) -> None:
    with (
        Segmenter.load(write_artifact(tmp_path / "a")) as segmenter,
        pytest.raises(DataError, match=r"images/0\.png has more than 8 bits a channel.*value_range"),
    ):
        list(predict_files(segmenter, [folder / "images/0.png"], tmp_path / "out"))


def test_evaluate_and_verify_on_16_bit_data(folder: Path, tmp_path: Path) -> None:
    data = open_dataset(f"folder:{folder}")
    artifact = write_artifact(tmp_path / "a", preprocess=RANGED, references=(data, MASKS))
    assert evaluate_artifact(artifact, data).pixel_accuracy == 1.0
    report = verify(artifact, data=data)
    assert (report.pixel_disagreement, report.logits_disagreement) == (0.0, 0.0)


def test_bench_takes_a_raw_image_and_the_sample(artifact: Path, folder: Path, tmp_path: Path) -> None:
    options = BenchOptions(queries=1, warmup=1)
    for number, encoded in enumerate((None, (folder / "images/0.png").read_bytes())):
        report = bench(artifact, encoded=encoded, output=tmp_path / f"{number}.json", options=options)
        assert report.results[0].resolution == (24, 32)


@pytest.mark.parametrize("line", ["", "value_range: [0, 4095]\n"])
def test_data_of_another_range_are_refused(line: str, artifact: Path, folder: Path) -> None:
    (folder / "classes.yaml").write_text(CLASSES_YAML + line)
    found = "the value range 0 … 4095" if line else "no value range"
    message = (
        rf"folder:.* has {found} and .*artifact the value range 50 … 4000; expected the value range that the network "
        rf"was trained with; write value_range: \[50\.0, 4000\.0\] in the classes\.yaml"
    )
    data = open_dataset(f"folder:{folder}")
    with pytest.raises(DataError, match=message):
        evaluate_artifact(artifact, data)
    with pytest.raises(DataError, match=message):
        verify(artifact, data=data)


def test_two_files_are_held_against_the_range_of_the_data(folder: Path, tmp_path: Path) -> None:
    ranged = save_logits(tmp_path / "ranged.onnx", conv_weights(), metadata=metadata_of(RANGED))
    plain = save_logits(tmp_path / "plain.onnx", conv_weights(), metadata=metadata_of(PLAIN))
    data = open_dataset(f"folder:{folder}")
    assert verify(reference=ranged, candidate=ranged, data=data).pixel_disagreement == 0.0
    with pytest.raises(DataError, match=r"has the value range 50 … 4000 and .*plain\.onnx no value range; .*leave"):
        verify(reference=plain, candidate=plain, data=data)
    with pytest.raises(DataError, match=r"memory: has no value range and .*ranged\.onnx the value range 50 … 4000"):
        verify(reference=ranged, candidate=ranged, data=MemoryDataset(WINDOWED, MASKS))


def test_half_the_size_inside_is_scored_at_the_full_size_of_the_labels(tmp_path: Path) -> None:
    labels = [np.zeros((24, 32), np.uint8) for _ in WINDOWED]
    half = Preprocess(mean=PLAIN.mean, std=PLAIN.std, size=(12, 16))
    result = evaluate_artifact(write_artifact(tmp_path / "a", preprocess=half), MemoryDataset(WINDOWED, labels))
    assert int(result.truth_pixels.sum()) == 3 * 24 * 32
