"""A window from the export's options to the masks that are served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.sliding_window import Window
from dropclass_deploy.data.images import read_image, read_mask
from dropclass_deploy.export import ExportOptions, export_artifact
from dropclass_deploy.export.reference import TorchReference
from dropclass_deploy.serving import Segmenter

WINDOW = Window(height=16, width=16, overlap=0.5, blending="gaussian")
TABLE = ClassTable(names=("sky", "road", "tree, old", "cyclist"), rare=(2, 3))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, networks: Any) -> Path:
    return export_artifact(
        networks.LowResolution("dict"),
        tmp_path_factory.mktemp("window") / "tiles",
        classes=TABLE,
        preprocess=Preprocess(),
        options=ExportOptions(shape=(1, 16, 16), window=WINDOW, data=networks.Frames()),
    )


def test_the_specification_says_the_window_everywhere(artifact: Path) -> None:
    expected = WINDOW.model_dump(mode="json")
    assert json.loads((artifact / "preprocess.json").read_text())["window"] == expected
    assert json.loads((artifact / "manifest.json").read_text())["preprocess"]["window"] == expected
    for name in ("model.onnx", "model.mask.onnx"):
        model = onnx.load(artifact / "models" / name)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        assert json.loads(metadata["preprocess"])["window"] == expected
    # A fixed shape otherwise imposes a size on every image; here it is the window's.
    assert json.loads((artifact / "preprocess.json").read_text())["size"] is None


def test_the_card_says_that_the_network_knows_nothing_of_it(artifact: Path) -> None:
    card = (artifact / "docs/README.md").read_text()
    assert "window of 16×16 slides over the image with an overlap of 0.5 and gaussian blending" in card
    assert "The windows are **not** inside the ONNX files" in card
    assert "at its own size; sizes unlike" not in card


def test_the_sample_is_one_window(artifact: Path) -> None:
    assert read_image(artifact / "sample/image.png").shape == (16, 16, 3)
    assert read_mask(artifact / "sample/mask.png").shape == (16, 16)


def test_served_masks_are_the_stored_references(artifact: Path, networks: Any) -> None:
    frames, reference = networks.Frames(), TorchReference(networks.LowResolution("dict"), Preprocess(window=WINDOW))
    index = json.loads((artifact / "reference/index.json").read_text())["masks"]
    with Segmenter.load(artifact) as segmenter:
        for position, stored in enumerate(index.values()):
            mask = segmenter(frames.image(position)).mask
            np.testing.assert_array_equal(mask, read_mask(artifact / stored["file"]))
            np.testing.assert_array_equal(mask, reference(frames.image(position)))


def test_without_a_window_nothing_is_written(tmp_path: Path, networks: Any) -> None:
    folder = export_artifact(networks.Tiny(), tmp_path / "a", classes=TABLE, preprocess=Preprocess())
    assert "window" not in json.loads((folder / "preprocess.json").read_text())
    assert "slides over" not in (folder / "docs/README.md").read_text()


def test_the_modules_own_window_stays(tmp_path: Path, networks: Any) -> None:
    folder = export_artifact(networks.Tiny(), tmp_path / "a", classes=TABLE, preprocess=Preprocess(window=WINDOW))
    assert json.loads((folder / "preprocess.json").read_text())["window"]["height"] == 16


@pytest.mark.parametrize("given", [None, WINDOW])
def test_a_shape_that_is_not_the_windows_is_refused(tmp_path: Path, networks: Any, given: Window | None) -> None:
    with pytest.raises(UserError, match=r"1x24x32 fixes 24×32 but the window is 16×16.*--shape 1x16x16"):
        export_artifact(
            networks.Tiny(),
            tmp_path / "a",
            classes=TABLE,
            preprocess=Preprocess(window=WINDOW),
            options=ExportOptions(shape=(1, 24, 32), window=given),
        )
