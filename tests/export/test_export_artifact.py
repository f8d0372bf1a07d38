"""The whole pipeline: from a module or a run to an artifact folder."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import ArtifactError, DataError, GateRefusedError, ModelError, UserError
from dropclass_deploy.core.manifest import check_files, read_manifest
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.images import array_digest, read_image, read_mask, resize_image
from dropclass_deploy.export import ExportOptions, export_artifact
from dropclass_deploy.export.sample import procedural_image

FILES = {
    "LICENSE",
    "configs/inference.json",
    "configs/metadata.json",
    "docs/README.md",
    "label_map.json",
    "labels.txt",
    "manifest.json",
    "models/model.mask.onnx",
    "models/model.onnx",
    "models/model.safetensors",
    "preprocess.json",
    "sample/image.png",
    "sample/mask.png",
    "semseg_color_map.csv",
}
STATIC = ExportOptions(shape=(1, 24, 32))


def listing(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, networks) -> Path:
    """A dynamic artifact of a network with its data."""
    table = ClassTable(names=("sky", "road", "tree, old", "cyclist"), rare=(2, 3))
    return export_artifact(
        networks.Tiny(),
        tmp_path_factory.mktemp("export") / "street",
        classes=table,
        preprocess=Preprocess(),
        name="tiny",
        provenance={"method": "ce", "seed": 3},
        options=ExportOptions(data=networks.Frames(), author="A. Author", licence="CC-BY-4.0"),
    )


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory, networks) -> Path:
    """A static artifact with a batch of 2 and no data."""
    return export_artifact(
        networks.Tiny(),
        tmp_path_factory.mktemp("export") / "fixed",
        classes=["a", "b", "c", "d"],
        preprocess=Preprocess(),
        options=ExportOptions(shape=(2, 24, 32)),
    )


def test_every_file_is_there_and_nothing_else(artifact: Path, static: Path) -> None:
    references = {name for name in listing(artifact) if name.startswith("reference/")}
    assert listing(artifact) - references == FILES
    assert len(references) == 4  # three frames and the index
    assert listing(static) == FILES


def test_manifest_knows_every_file(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    check_files(artifact, manifest)
    assert set(manifest.files) == listing(artifact) - {"manifest.json"}
    assert (manifest.name, manifest.model, manifest.deploy_head) == ("street", "tiny", "plain")
    assert (manifest.precision, manifest.shape, manifest.opset) == ("fp32", (None, None, None), 18)
    assert manifest.provenance["seed"] == 3
    assert manifest.provenance["licence"] == "CC-BY-4.0"
    assert {"torch", "onnx", "onnxruntime", "dropclass-deploy", "python"} <= set(manifest.versions)


def test_a_changed_byte_is_found(artifact: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    content = bytearray((copy / "models/model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "models/model.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"models/model.onnx has changed"):
        check_files(copy, read_manifest(copy))


@pytest.mark.parametrize("file", ["models/model.onnx", "models/model.mask.onnx"])
def test_one_onnx_file_is_enough(artifact: Path, file: str) -> None:
    metadata = {entry.key: entry.value for entry in onnx.load(artifact / file).metadata_props}
    assert json.loads(metadata["class_names"]) == ["sky", "road", "tree, old", "cyclist"]
    assert len(json.loads(metadata["palette"])) == 4
    assert Preprocess.model_validate_json(metadata["preprocess"]) == Preprocess()
    assert json.loads(metadata["ignore_index"]) == 255
    assert json.loads(metadata["rare_classes"]) == ["tree, old", "cyclist"]
    assert (metadata["model_author"], metadata["model_license"]) == ("A. Author", "CC-BY-4.0")
    assert json.loads(metadata["provenance"])["method"] == "ce"


def test_weights_load_into_the_plain_network(artifact: Path, networks) -> None:
    model = networks.Tiny(seed=9)
    model.load_state_dict(load_file(artifact / "models/model.safetensors"))
    assert torch.equal(model.classifier.weight, networks.Tiny().classifier.weight)


def test_sample_is_the_first_image_and_its_mask(artifact: Path, networks) -> None:
    np.testing.assert_array_equal(read_image(artifact / "sample/image.png"), networks.Frames().image(0))
    mask = read_mask(artifact / "sample/mask.png")
    assert mask.shape == (24, 32)
    index = json.loads((artifact / "reference/index.json").read_text())
    stored = index["masks"][array_digest(networks.Frames().image(0))]["file"]
    # ONNX Runtime against torch: on 768 pixels of random logits no near-tie flips (the gate allows 1e-4)
    np.testing.assert_array_equal(mask, read_mask(artifact / stored))


def test_sample_of_a_fixed_shape_has_that_size(static: Path) -> None:
    assert read_image(static / "sample/image.png").shape == (24, 32, 3)
    assert read_mask(static / "sample/mask.png").shape == (24, 32)


def test_fixed_shape_goes_into_the_preprocessing_and_the_card(static: Path) -> None:
    manifest = read_manifest(static)
    assert manifest.preprocess.size == (24, 32)
    assert json.loads((static / "preprocess.json").read_text())["size"] == [24, 32]
    metadata = {entry.key: entry.value for entry in onnx.load(static / "models/model.onnx").metadata_props}
    assert json.loads(metadata["preprocess"])["size"] == [24, 32]
    assert "The network takes only 24×32" in (static / "docs/README.md").read_text(encoding="utf-8")


def test_references_are_keyed_by_image_and_label(artifact: Path, networks) -> None:
    index = json.loads((artifact / "reference/index.json").read_text())
    frames = networks.Frames()
    assert (index["data"], index["split"], index["images"]) == ("memory:", "val", 3)
    for number in range(3):
        entry = index["masks"][array_digest(frames.image(number))]
        assert entry["label"] == array_digest(frames.mask(number))
        assert read_mask(artifact / entry["file"]).shape == frames.mask(number).shape


@pytest.mark.parametrize("which", ["artifact", "static"])
def test_the_code_of_the_model_card_runs(which: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    code = (folder / "docs/README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    assert len(code.strip().splitlines()) <= 15
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("pixels that differ from sample/mask.png: 0\n")


def test_metadata_of_the_bundle(artifact: Path) -> None:
    content = json.loads((artifact / "configs/metadata.json").read_text(encoding="utf-8"))
    required = ("version", "changelog", "monai_version", "pytorch_version", "numpy_version", "task", "description")
    assert all(content[key] for key in (*required, "authors", "copyright", "required_packages_version"))
    image, pred = content["network_data_format"]["inputs"]["image"], content["network_data_format"]["outputs"]["pred"]
    assert image["num_channels"] == 3
    assert image["spatial_shape"] == ["*", "*"]
    # black in red: (0 − 0.485) / 0.229; white in blue: (1 − 0.406) / 0.225; float32, so 7 digits
    np.testing.assert_allclose(image["value_range"], [-2.117904, 2.64], rtol=1e-6)
    assert pred["channel_def"] == {"0": "sky", "1": "road", "2": "tree, old", "3": "cyclist"}


def test_the_module_stays_as_it_was(networks, tmp_path: Path, preprocess: Preprocess, table: ClassTable) -> None:
    model = networks.Tiny().train()
    model.features[0].weight.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    flags = [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    export_artifact(model, tmp_path / "out", classes=table, preprocess=preprocess, options=STATIC)
    assert all(module.training for module in model.modules())
    assert [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()] == flags
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())


def test_existing_output_is_refused_and_kept(
    networks, tmp_path: Path, preprocess: Preprocess, table: ClassTable
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match=r"exists already; .*--overwrite"):
        export_artifact(networks.Tiny(), tmp_path / "out", classes=table, preprocess=preprocess, options=STATIC)
    assert listing(tmp_path) == {"out/mine.txt"}


def test_overwrite_replaces_the_whole_folder(
    networks, tmp_path: Path, preprocess: Preprocess, table: ClassTable
) -> None:
    options = ExportOptions(shape=(1, 24, 32), overwrite=True)
    export_artifact(networks.Tiny(), tmp_path / "out", classes=table, preprocess=preprocess, options=options)
    (tmp_path / "out" / "evidence").mkdir()
    (tmp_path / "out" / "evidence" / "parity.json").write_text("{}")
    export_artifact(networks.Tiny(), tmp_path / "out", classes=table, preprocess=preprocess, options=options)
    assert listing(tmp_path / "out") == FILES


def test_overwrite_does_not_replace_a_folder_of_other_things(
    networks, tmp_path: Path, preprocess: Preprocess, table: ClassTable
) -> None:
    (tmp_path / "old.txt").write_text("old")
    options = ExportOptions(shape=(1, 24, 32), overwrite=True)
    with pytest.raises(UserError, match=r"holds other things \(it has no manifest\.json\)"):
        export_artifact(networks.Tiny(), tmp_path, classes=table, preprocess=preprocess, options=options)
    assert (tmp_path / "old.txt").read_text() == "old"


def test_a_refusing_gate_leaves_nothing(networks, tmp_path: Path, preprocess: Preprocess, table: ClassTable) -> None:
    class Fickle(networks.Tiny):
        """Another network once it has been traced: what the files hold and what torch computes differ."""

        def forward(self, images):
            logits = super().forward(images)
            return logits if torch.compiler.is_exporting() else logits.flip(1)

    with pytest.raises(GateRefusedError, match=r"the export is refused: model.mask.onnx .* disagree on [0-9.]+%"):
        export_artifact(Fickle(), tmp_path / "out", classes=table, preprocess=preprocess, options=STATIC)
    assert list(tmp_path.iterdir()) == []


def test_nan_weights_are_refused(networks, tmp_path: Path, preprocess: Preprocess, table: ClassTable) -> None:
    model = networks.Tiny()
    torch.nn.init.constant_(model.classifier.bias, float("nan"))
    with pytest.raises(GateRefusedError, match="NaN or infinite logits"):
        export_artifact(model, tmp_path / "out", classes=table, preprocess=preprocess, options=STATIC)
    assert list(tmp_path.iterdir()) == []


def test_untraceable_network_leaves_nothing(
    networks, tmp_path: Path, preprocess: Preprocess, table: ClassTable
) -> None:
    with pytest.raises(ModelError, match="cannot be exported"):
        export_artifact(networks.Branching(), tmp_path / "out", classes=table, preprocess=preprocess, options=STATIC)
    assert list(tmp_path.iterdir()) == []


def test_class_count_must_agree_with_the_network(networks, tmp_path: Path, preprocess: Preprocess) -> None:
    with pytest.raises(ModelError, match="logits of 4 classes; expected 3, as the class table has"):
        export_artifact(
            networks.Tiny(), tmp_path / "out", classes=["a", "b", "c"], preprocess=preprocess, options=STATIC
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "b", "c", "d", "e"), "memory: has 5 classes and the model 4"),
        (
            ("road", "sky", "tree, old", "cyclist"),
            "class 0 is 'sky' in the model and 'road' in memory:: the same classes",
        ),
        (("sky", "road", "tree, old", "rider"), "class 3 is 'cyclist' in the model and 'rider' in memory:; expected"),
    ],
)
def test_the_classes_of_the_data_must_be_the_models(
    networks, tmp_path: Path, preprocess: Preprocess, table, names: tuple[str, ...], message: str
) -> None:
    options = ExportOptions(data=networks.Frames(names=names))
    with pytest.raises(DataError, match=message):
        export_artifact(networks.Tiny(), tmp_path / "out", classes=table, preprocess=preprocess, options=options)


def test_too_many_class_names_are_refused(networks, tmp_path: Path, preprocess: Preprocess) -> None:
    names = [f"class {index}" for index in range(256)]
    with pytest.raises(UserError, match=r"do not make a class table: .*255"):
        export_artifact(networks.Tiny(256), tmp_path / "out", classes=names, preprocess=preprocess)


@pytest.mark.parametrize(("missing", "message"), [("classes", "without its classes"), ("preprocess", "preprocessing")])
def test_module_without_what_only_the_caller_knows(networks, tmp_path: Path, table, missing: str, message: str) -> None:
    given = {"classes": table, "preprocess": Preprocess()}
    given[missing] = None
    with pytest.raises(UserError, match=message):
        export_artifact(networks.Tiny(), tmp_path / "out", **given)


def test_shape_that_contradicts_the_preprocessing(networks, tmp_path: Path, table: ClassTable) -> None:
    with pytest.raises(UserError, match=r"fixes 24×32 but the preprocessing resizes to 48×64; .*--shape 1x48x64"):
        export_artifact(
            networks.Tiny(), tmp_path / "out", classes=table, preprocess=Preprocess(size=(48, 64)), options=STATIC
        )


def test_provenance_must_be_json(networks, tmp_path: Path, table: ClassTable, preprocess: Preprocess) -> None:
    with pytest.raises(UserError, match="the provenance cannot be written as JSON"):
        export_artifact(
            networks.Tiny(), tmp_path / "out", classes=table, preprocess=preprocess, provenance={"path": Path("x")}
        )


def test_not_a_run_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        export_artifact(tmp_path, tmp_path / "out")


def test_arguments_of_a_module_beside_a_run(tmp_path: Path, table: ClassTable) -> None:
    with pytest.raises(UserError, match="classes is given beside a run folder"):
        export_artifact(tmp_path, tmp_path / "out", classes=table)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shape": (1, 0, 8)}, "holds 0"),
        ({"opset": 11}, "opset 11 is not offered"),
        ({"deploy_head": "best"}, "no deploy head 'best'"),
        ({"reference_limit": -1}, "reference_limit is -1"),
    ],
)
def test_options_refuse_nonsense(wrong: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ExportOptions(**wrong)


def test_reference_limit(networks, tmp_path: Path, table: ClassTable, preprocess: Preprocess) -> None:
    options = ExportOptions(shape=(1, 24, 32), data=networks.Frames(), reference_limit=1)
    export_artifact(networks.Tiny(), tmp_path / "out", classes=table, preprocess=preprocess, options=options)
    assert json.loads((tmp_path / "out/reference/index.json").read_text())["images"] == 1


def test_procedural_image_is_the_same_every_time() -> None:
    image = procedural_image((48, 64))
    assert image.shape == (48, 64, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, procedural_image((48, 64)))
    assert len(np.unique(image)) > 100  # a picture, not a constant
    assert resize_image(image, (48, 64)) is not None
