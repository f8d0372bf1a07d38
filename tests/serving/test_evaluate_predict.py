from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving_builders import NAMES, MemoryDataset, conv_weights, dense_masks, noisy, random_images, write_artifact

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import DataError, UserError
from dropclass_deploy.data.images import write_png
from dropclass_deploy.serving import Segmenter
from dropclass_deploy.serving.evaluate import evaluate_artifact
from dropclass_deploy.serving.predict import expand_inputs, predict_files

IMAGES = random_images(5, (24, 32))
MASKS = dense_masks(IMAGES, conv_weights())


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return write_artifact(tmp_path / "artifact")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, image in enumerate(IMAGES):
        write_png(tmp_path / f"in/image{index}.png", image)
    return tmp_path / "in"


def test_scores_are_pooled_over_the_split(artifact: Path) -> None:
    labels = noisy(MASKS)
    labels[0][:4] = 255
    told: list[int] = []
    scores = evaluate_artifact(
        artifact, MemoryDataset(IMAGES, labels), lambda done, total, status="": told.append(done)
    )
    truth, found = np.concatenate(labels), np.concatenate(MASKS)
    for index in range(4):
        valid = truth != 255
        inside = np.count_nonzero(valid & (truth == index) & (found == index))
        union = np.count_nonzero(valid & ((truth == index) | (found == index)))
        assert scores.iou[index] == inside / union
    # A mean of two numbers in float64.
    assert scores.rare_miou == pytest.approx((scores.iou[2] + scores.iou[3]) / 2, abs=1e-15)
    assert told == [1, 2, 3, 4, 5]


def test_labels_of_another_size_are_compared_at_their_own(artifact: Path) -> None:
    labels = [np.zeros((48, 64), np.uint8) for _ in IMAGES]
    assert evaluate_artifact(artifact, MemoryDataset(IMAGES, labels)).truth_pixels[0] == 5 * 48 * 64


def test_other_number_of_classes(artifact: Path) -> None:
    data = MemoryDataset(IMAGES, MASKS, ClassTable(names=(*NAMES, "fifth")))
    with pytest.raises(DataError, match=r"memory: has 5 classes and .*artifact 4"):
        evaluate_artifact(artifact, data)


def test_the_same_classes_in_another_order(artifact: Path) -> None:
    data = MemoryDataset(IMAGES, MASKS, ClassTable(names=NAMES[::-1]))
    with pytest.raises(DataError, match=r"class 0 is 'sky' in .*artifact and 'pole' in memory:: the same classes in"):
        evaluate_artifact(artifact, data)


def test_other_spelling_of_the_same_classes(artifact: Path) -> None:
    data = MemoryDataset(IMAGES, MASKS, ClassTable(names=[name.upper() for name in NAMES]))
    assert evaluate_artifact(artifact, data).miou == 1.0


def test_empty_split(artifact: Path) -> None:
    with pytest.raises(DataError, match="split 'val' of memory: is empty"):
        evaluate_artifact(artifact, MemoryDataset([], []))


def test_masks_and_overlays_at_source_size(artifact: Path, folder: Path, tmp_path: Path) -> None:
    with Segmenter.load(artifact) as segmenter:
        written = list(predict_files(segmenter, [folder], tmp_path / "out", overlay=True))
    assert [item.image.name for item in written] == [f"image{index}.png" for index in range(5)]
    for item, image, mask in zip(written, IMAGES, MASKS, strict=True):
        stored = Image.open(item.mask)
        assert stored.mode == "L"
        np.testing.assert_array_equal(np.array(stored), mask)
        assert item.overlay == tmp_path / "out" / f"{item.image.stem}.overlay.png"
        assert np.array(Image.open(item.overlay)).shape == image.shape
        assert str(item) == str(item.mask)


def test_no_overlay_unless_asked(artifact: Path, folder: Path, tmp_path: Path) -> None:
    with Segmenter.load(artifact) as segmenter:
        list(predict_files(segmenter, [folder / "image0.png"], tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["image0.png"]


def test_equal_stems_are_refused_before_anything_is_read(artifact: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "image0.jpg").write_bytes(b"never read")
    with (
        Segmenter.load(artifact) as segmenter,
        pytest.raises(DataError, match=r"image0\.jpg and .*image0\.png would both"),
    ):
        predict_files(segmenter, [folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_mask_that_is_an_overlay_of_another_is_refused(artifact: Path, folder: Path, tmp_path: Path) -> None:
    write_png(folder / "image0.overlay.png", IMAGES[0])
    with Segmenter.load(artifact) as segmenter, pytest.raises(DataError, match="would both be written"):
        predict_files(segmenter, [folder], tmp_path / "out", overlay=True)


def test_inputs_are_never_overwritten(artifact: Path, folder: Path) -> None:
    with Segmenter.load(artifact) as segmenter, pytest.raises(DataError, match="is an input and would be overwritten"):
        predict_files(segmenter, [folder], folder)
    np.testing.assert_array_equal(np.array(Image.open(folder / "image0.png")), IMAGES[0])


def test_broken_image_is_named_after_the_others_were_written(artifact: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "image2.png").write_text("no image at all")
    with Segmenter.load(artifact) as segmenter, pytest.raises(DataError, match=r"image2\.png cannot be read"):
        list(predict_files(segmenter, [folder], tmp_path / "out"))
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == ["image0", "image1", "image3", "image4"]


def test_two_broken_images_are_both_named(artifact: Path, folder: Path, tmp_path: Path) -> None:
    for index in (1, 2):
        (folder / f"image{index}.png").write_text("no image")
    with Segmenter.load(artifact) as segmenter, pytest.raises(DataError, match=r"2 of 5 images.*image1.*image2"):
        list(predict_files(segmenter, [folder], tmp_path / "out"))


def test_unwritable_output(artifact: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with Segmenter.load(artifact) as segmenter, pytest.raises(UserError, match=r"cannot be written.*-o"):
        predict_files(segmenter, [folder], tmp_path / "out")


def test_folder_stands_for_its_images_only(folder: Path) -> None:
    (folder / "notes.txt").write_text("hello")
    (folder / "deeper").mkdir()
    assert expand_inputs([folder, folder / "image0.png"])[-1].name == "image0.png"
    assert [path.name for path in expand_inputs([folder])] == [f"image{index}.png" for index in range(5)]


@pytest.mark.parametrize(("name", "message"), [("none.png", "does not exist"), ("empty", "holds no image")])
def test_missing_inputs(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        expand_inputs([tmp_path / name])


def test_no_input_at_all() -> None:
    with pytest.raises(DataError, match="no image was named"):
        expand_inputs([])
