"""The artifact as MONAI sees it: verified, initialised and run by MONAI's own functions.

MONAI downloads its schema unless a file with it is there. ``monai_metadata_schema.json`` states the same rules, in our
words and somewhat stricter; the published schema (20240725) accepts the metadata as well.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.preprocess import Preprocess, window
from dropclass_deploy.core.sliding_window import Window
from dropclass_deploy.export import ExportOptions, export_artifact
from dropclass_deploy.export.sample import procedural_image
from dropclass_deploy.serving import Segmenter
from dropclass_deploy.serving.runtimes.registry import open_runtime

# MONAI and what it imports warn about one another's versions; that is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::Warning")

SCHEMA = Path(__file__).with_name("monai_metadata_schema.json")
NAMES = ("sky", "road", "tree, old", "cyclist")
KINDS = {
    "dynamic": (Preprocess(), ExportOptions()),
    "fixed": (Preprocess(mean=(0.4, 0.5, 0.6)), ExportOptions(shape=(2, 24, 32))),
    "deep": (Preprocess(value_range=(-100.0, 400.0)), ExportOptions()),
    "windowed": (
        Preprocess(window=Window(height=24, width=32, overlap=0.3, blending="gaussian", padding="reflect")),
        ExportOptions(),
    ),
    # Windows of 4 at once; the last batch of an image has fewer.
    "windowed-fixed": (Preprocess(window=Window(height=24, width=32)), ExportOptions(shape=(4, 24, 32))),
}


@pytest.fixture(scope="module")
def bundle() -> Any:
    """The module ``monai.bundle``."""
    return pytest.importorskip("monai.bundle", reason="MONAI is not installed")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory, networks) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    table = ClassTable(names=NAMES, rare=(2, 3))
    return {
        kind: export_artifact(
            networks.Tiny(), folder / kind, classes=table, preprocess=preprocess, name="tiny", options=options
        )
        for kind, (preprocess, options) in KINDS.items()
    }


def workflow(bundle: Any, artifact: Path, **override: object) -> Any:
    config = artifact / "configs" / "inference.json"
    made = bundle.ConfigWorkflow(
        str(config), workflow_type="infer", logging_file=False, bundle_root=str(artifact), **override
    )
    made.initialize()
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_the_metadata_is_verified(bundle: Any, artifacts: dict[str, Path], kind: str) -> None:
    bundle.verify_metadata(meta_file=str(artifacts[kind] / "configs/metadata.json"), filepath=str(SCHEMA))


def test_the_verification_can_fail(bundle: Any, artifacts: dict[str, Path], tmp_path: Path) -> None:
    content = json.loads((artifacts["dynamic"] / "configs/metadata.json").read_text(encoding="utf-8"))
    del content["network_data_format"]["outputs"]["pred"]["num_channels"]
    (tmp_path / "metadata.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="'num_channels' is a required property"):
        bundle.verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=str(SCHEMA))


@pytest.mark.parametrize("kind", KINDS)
def test_no_property_is_missing(bundle: Any, artifacts: dict[str, Path], kind: str) -> None:
    made = workflow(bundle, artifacts[kind])
    assert made.check_properties() == []
    assert made.spatial_shape == (["*", "*"] if kind in ("dynamic", "deep") else [24, 32])
    assert list(made.channel_def.values()) == list(NAMES)
    assert (made.bundle_root, made.dataset_dir) == (str(artifacts[kind]), f"{artifacts[kind]}/sample")


@pytest.mark.parametrize("kind", ["dynamic", "deep"])
def test_the_network_is_as_the_metadata_say(bundle: Any, artifacts: dict[str, Path], kind: str) -> None:
    configs = artifacts[kind] / "configs"
    bundle.verify_net_in_out(
        net_id="network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        device="cpu",
        any=24,
        bundle_root=str(artifacts[kind]),
    )


def segmented(made: Any, folder: Path) -> np.ndarray:
    """The mask that MONAI's parts make of the first image, each called in turn, as the evaluator does."""
    image = made.dataset[0]["image"]
    batch = image[None].repeat(made.parser["dataloader"]["batch_size"], 1, 1, 1)
    made.postprocessing({"pred": made.inferer(batch, made.network_def)[0]})
    (file,) = folder.glob("*.png")
    return np.asarray(Image.open(file))


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_give_the_samples_mask(bundle: Any, artifacts: dict[str, Path], kind: str, tmp_path: Path) -> None:
    made = workflow(bundle, artifacts[kind], output_dir=str(tmp_path))
    expected = np.asarray(Image.open(artifacts[kind] / "sample/mask.png"))
    assert len(np.unique(expected)) > 1
    # Normalised by a division where the graph multiplies: a near-tie may fall the other way, as the gate allows (1e-4).
    assert (segmented(made, tmp_path) != expected).mean() <= 1e-4


def test_deep_images_are_windowed(bundle: Any, artifacts: dict[str, Path], tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:40, 0:60]
    raw = (20 * rows - 9 * columns).astype(np.int32)
    Image.fromarray(raw).save(tmp_path / "raw.tif")
    (tmp_path / "out").mkdir()
    made = workflow(bundle, artifacts["deep"], images=[str(tmp_path / "raw.tif")], output_dir=str(tmp_path / "out"))
    with open_runtime(artifacts["deep"] / "models/model.mask.onnx") as runtime:
        expected = runtime.run({"image": window(raw, (-100.0, 400.0))[None]})["mask"][0]
    assert len(np.unique(expected)) > 1
    assert (segmented(made, tmp_path / "out") != expected).mean() <= 1e-4


@pytest.mark.skipif(importlib.util.find_spec("ignite") is None, reason="pytorch-ignite is not installed")
@pytest.mark.parametrize("kind", KINDS)
def test_the_workflow_runs(bundle: Any, artifacts: dict[str, Path], kind: str, tmp_path: Path) -> None:
    made = workflow(bundle, artifacts[kind], output_dir=str(tmp_path))
    made.run()
    made.finalize()
    mask = np.asarray(Image.open(tmp_path / "image_mask.png"))
    expected = np.asarray(Image.open(artifacts[kind] / "sample/mask.png"))
    assert (mask != expected).mean() <= 1e-4


@pytest.mark.skipif(importlib.util.find_spec("ignite") is None, reason="pytorch-ignite is not installed")
@pytest.mark.parametrize("size", [(100, 131), (17, 40)], ids=["larger", "lower"])
@pytest.mark.parametrize("kind", ["windowed", "windowed-fixed"])
def test_windows_slide_as_the_segmenters(
    bundle: Any, artifacts: dict[str, Path], tmp_path: Path, kind: str, size: tuple[int, int]
) -> None:
    pixels = procedural_image(size)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    workflow(bundle, artifacts[kind], output_dir=str(tmp_path), images=[str(tmp_path / "large.png")] * 2).run()
    with Segmenter.load(artifacts[kind]) as segmenter:
        expected = segmenter(pixels).mask
    mask = np.asarray(Image.open(tmp_path / "large_mask.png"))
    assert len(np.unique(expected)) > 1
    assert mask.shape == size
    assert (mask != expected).mean() <= 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_only_windows_are_patches(artifacts: dict[str, Path], kind: str) -> None:
    content = json.loads((artifacts[kind] / "configs/metadata.json").read_text(encoding="utf-8"))
    data = content["network_data_format"]
    patches = [data["inputs"]["image"]["is_patch_data"], data["outputs"]["pred"]["is_patch_data"]]
    assert patches == [kind.startswith("windowed")] * 2


@pytest.mark.skipif(importlib.util.find_spec("ignite") is not None, reason="pytorch-ignite is installed")
def test_without_ignite_the_missing_module_is_named(bundle: Any, artifacts: dict[str, Path]) -> None:
    with pytest.raises(RuntimeError, match="ignite") as caught:
        workflow(bundle, artifacts["dynamic"]).run()
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
