"""The model repository, read by Triton's own schema of its configuration."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from serving_builders import CLASSES, conv_weights, dense_masks, save_mask, write_artifact

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import ArtifactError, UserError
from dropclass_deploy.core.manifest import hash_files, read_manifest, write_manifest
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.sliding_window import Window
from dropclass_deploy.data.images import read_image
from dropclass_deploy.serving.emit import TritonOptions, emit_triton
from dropclass_deploy.serving.emit.triton_config import quoted
from dropclass_deploy.serving.runtimes import open_runtime

grpc = pytest.importorskip("tritonclient.grpc", reason="needs tritonclient[grpc], which has Triton's schema")
config_pb2 = grpc.model_config_pb2


def config_of(repository: Path, name: str):
    text = (repository / name / "config.pbtxt").read_text(encoding="utf-8")
    assert text.isascii()
    return text_format.Parse(text, config_pb2.ModelConfig())


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("triton") / "street")


@pytest.fixture(scope="module")
def repository(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return emit_triton(artifact, tmp_path_factory.mktemp("triton") / "repository")


def test_the_files_of_a_repository(repository: Path, artifact: Path) -> None:
    files = {path.relative_to(repository).as_posix() for path in repository.rglob("*") if path.is_file()}
    assert files == {
        "README.md",
        "emitted.json",
        "street/config.pbtxt",
        "street/labels.txt",
        "street/1/model.onnx",
        "street/warmup/image.raw",
    }
    assert (repository / "street/1/model.onnx").read_bytes() == (artifact / "models/model.mask.onnx").read_bytes()
    assert (repository / "street/labels.txt").read_text().splitlines() == list(CLASSES.names)


def test_a_network_of_any_batch_is_batched_and_its_shapes_leave_the_batch_out(repository: Path) -> None:
    config = config_of(repository, "street")
    assert (config.name, config.backend, config.max_batch_size) == ("street", "onnxruntime", 8)
    (image,), (mask,) = config.input, config.output
    assert (image.name, image.data_type, list(image.dims)) == ("image", config_pb2.TYPE_UINT8, [-1, -1, 3])
    assert (mask.name, mask.data_type, list(mask.dims)) == ("mask", config_pb2.TYPE_UINT8, [-1, -1])
    assert config.HasField("dynamic_batching")
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000
    (group,) = config.instance_group
    assert (group.kind, group.count, list(group.gpus)) == (config_pb2.ModelInstanceGroup.KIND_CPU, 1, [])


def test_a_static_network_is_not_batched(tmp_path: Path) -> None:
    source = write_artifact(tmp_path / "fixed", shape=(2, 24, 32))
    config = config_of(emit_triton(source, tmp_path / "out"), "fixed")
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert [list(tensor.dims) for tensor in (*config.input, *config.output)] == [[2, 24, 32, 3], [2, 24, 32]]
    assert list(config.model_warmup[0].inputs["image"].dims) == [2, 24, 32, 3]
    assert (tmp_path / "out/fixed/warmup/image.raw").stat().st_size == 2 * 24 * 32 * 3


def test_fixed_height_and_width_with_any_batch(tmp_path: Path) -> None:
    source = write_artifact(tmp_path / "fixed", shape=(None, 24, 32))
    config = config_of(emit_triton(source, tmp_path / "out"), "fixed")
    assert config.max_batch_size == 8
    assert [list(tensor.dims) for tensor in (*config.input, *config.output)] == [[24, 32, 3], [24, 32]]


def test_the_warm_up_is_the_sample_and_the_network_takes_it(repository: Path, artifact: Path) -> None:
    """Done by hand what Triton does: the raw file, at the stated shape, through the emitted network."""
    (warm_up,) = config_of(repository, "street").model_warmup
    sent = warm_up.inputs["image"]
    assert (warm_up.batch_size, warm_up.count, sent.data_type) == (1, 1, config_pb2.TYPE_UINT8)
    raw = np.fromfile(repository / "street/warmup" / sent.input_data_file, np.uint8).reshape(tuple(sent.dims))
    np.testing.assert_array_equal(raw, read_image(artifact / "sample/image.png"))
    with open_runtime(repository / "street/1/model.onnx") as runtime:
        mask = runtime.run({"image": raw[None]})["mask"]
    np.testing.assert_array_equal(mask[0], dense_masks([raw], conv_weights())[0])


def test_the_warm_up_has_the_size_of_the_preprocessing(tmp_path: Path) -> None:
    source = write_artifact(tmp_path / "sized", preprocess=Preprocess(size=(16, 20)))
    (source / "sample/image.png").unlink()
    rehash(source)
    config = config_of(emit_triton(source, tmp_path / "out"), "sized")
    assert list(config.model_warmup[0].inputs["image"].dims) == [16, 20, 3]
    assert "16×20" in (tmp_path / "out/README.md").read_text(encoding="utf-8")


def test_options(artifact: Path, tmp_path: Path) -> None:
    options = TritonOptions(
        name="cam-1.v2",
        max_batch_size=16,
        preferred_batch_sizes=(16, 8),
        max_queue_delay_us=0,
        gpus=(0, 2),
        instances=2,
    )
    config = config_of(emit_triton(artifact, tmp_path / "out", options), "cam-1.v2")
    assert (config.name, config.max_batch_size) == ("cam-1.v2", 16)
    assert list(config.dynamic_batching.preferred_batch_size) == [8, 16]
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    (group,) = config.instance_group
    assert (group.kind, group.count, list(group.gpus)) == (config_pb2.ModelInstanceGroup.KIND_GPU, 2, [0, 2])
    assert "--gpus all" in (tmp_path / "out/README.md").read_text(encoding="utf-8")


def rehash(folder: Path, **changes: object) -> Path:
    manifest = read_manifest(folder)
    write_manifest(folder, manifest.model_copy(update={"files": hash_files(folder), **changes}))
    return folder


def test_no_class_name_can_break_the_configuration(artifact: Path, tmp_path: Path) -> None:
    names = ('a "b" } } name: "other', "back\\slash", "Fußgänger 行人", "\\n'#")
    hostile = shutil.copytree(artifact, tmp_path / "street")
    save_mask(hostile / "models/model.mask.onnx", conv_weights())  # one that says nothing of its classes
    rehash(hostile, classes=ClassTable(names=names))
    repository = emit_triton(hostile, tmp_path / "out")
    config = config_of(repository, "street")
    assert config.name == "street"
    assert json.loads(config.parameters["class_names"].string_value) == list(names)
    assert len((repository / "street/labels.txt").read_text(encoding="utf-8").splitlines()) == 4


@pytest.mark.parametrize(
    "text", ["", "line\nbreak\r\t", "\x00\x7f\x1b", '"\\"', "\\1234", "\u2028 é 行 🚲", "?? %s {x}"]
)
def test_strings_come_back_as_they_were(text: str) -> None:
    assert text_format.Parse(f"name: {quoted(text)}", config_pb2.ModelConfig()).name == text


def test_the_configuration_tells_where_the_file_comes_from(repository: Path, artifact: Path) -> None:
    parameters = config_of(repository, "street").parameters
    manifest = read_manifest(artifact)
    assert parameters["onnx_sha256"].string_value == manifest.files["models/model.mask.onnx"]
    assert Preprocess.model_validate_json(parameters["preprocess"].string_value) == manifest.preprocess
    assert parameters["precision"].string_value == "fp32"


@pytest.mark.parametrize("name", ["a b", "../up", "x/y", "", ".hidden", 'q"', "line\n", "ü", "x" * 65])
def test_names_that_are_refused(artifact: Path, tmp_path: Path, name: str) -> None:
    source = shutil.copytree(artifact, tmp_path / "odd name") if name == "" else artifact
    with pytest.raises(UserError, match=r"cannot stand in an address.*--name"):
        emit_triton(source, tmp_path / "out", TritonOptions(name=name))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp16"}, r"has no models/model\.fp16\.mask\.onnx.*one of .*models/model\.mask\.onnx"),
        ({"precision": "fp8"}, "no precision 'fp8'"),
        ({"preferred_batch_sizes": (4, 9)}, r"preferred batch size 9.*1 to 8"),
        ({"max_batch_size": 0}, "a batch of 0"),
        ({"gpus": (1, 1)}, r"GPUs \(1, 1\)"),
    ],
)
def test_mistakes(artifact: Path, tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        emit_triton(artifact, tmp_path / "out", TritonOptions(**options))
    assert not (tmp_path / "out").exists()


def test_a_changed_artifact_emits_nothing(artifact: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(artifact, tmp_path / "street")
    with (changed / "models/model.mask.onnx").open("ab") as stream:
        stream.write(b"\x00")
    with pytest.raises(ArtifactError, match="has changed"):
        emit_triton(changed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_precision_is_served_when_it_is_there(artifact: Path, tmp_path: Path) -> None:
    both = shutil.copytree(artifact, tmp_path / "street")
    half = save_mask(both / "models/model.fp16.mask.onnx", conv_weights(seed=5))
    emit_triton(rehash(both), tmp_path / "out", TritonOptions(precision="fp16"))
    assert (tmp_path / "out/street/1/model.onnx").read_bytes() == half.read_bytes()


def test_an_emission_is_replaced_only_when_asked(artifact: Path, tmp_path: Path) -> None:
    output = emit_triton(artifact, tmp_path / "out")
    with pytest.raises(UserError, match=r"exists already.*--overwrite"):
        emit_triton(artifact, output)
    emit_triton(artifact, output, TritonOptions(name="second", overwrite=True))
    assert (output / "second/config.pbtxt").is_file()
    assert not (output / "street").exists()


@pytest.mark.parametrize("place", ["notes.txt", "street/1/other.onnx", "street/2/model.onnx"])
def test_what_somebody_put_there_is_not_lost(artifact: Path, tmp_path: Path, place: str) -> None:
    output = emit_triton(artifact, tmp_path / "out")
    (output / place).parent.mkdir(exist_ok=True)
    (output / place).write_text("mine")
    with pytest.raises(UserError, match="which was not emitted"):
        emit_triton(artifact, output, TritonOptions(overwrite=True))
    assert (output / place).read_text() == "mine"


def test_a_foreign_folder_and_a_broken_marker_are_not_replaced(artifact: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"no emitted\.json"):
        emit_triton(artifact, foreign, TritonOptions(overwrite=True))
    (foreign / "emitted.json").write_text("[]")
    with pytest.raises(UserError, match="cannot be read as the list"):
        emit_triton(artifact, foreign, TritonOptions(overwrite=True))
    assert sorted(path.name for path in foreign.iterdir()) == ["emitted.json", "thesis.tex"]


CASES = {
    "dynamic": {},
    "any batch": {"shape": (None, 24, 32)},
    "static": {"shape": (2, 24, 32)},
    "sized": {"preprocess": Preprocess(size=(16, 20))},
    "windowed": {"preprocess": Preprocess(size=(40, 60), window=Window(height=16, width=20, overlap=0.3))},
}


@pytest.mark.parametrize("case", CASES)
def test_the_network_takes_what_the_readmes_client_sends(tmp_path: Path, case: str) -> None:
    output = emit_triton(write_artifact(tmp_path / "street", **CASES[case]), tmp_path / "out")
    text = (output / "README.md").read_text(encoding="utf-8")
    code = [line.strip() for line in text.rpartition("tritonclient[http]`:")[2].splitlines()]
    compile("\n".join(code), "README.md", "exec")
    (made,) = (line for line in code if line.startswith("image = "))
    image = eval(made.removeprefix("image = "), {"np": np})
    with open_runtime(output / "street/1/model.onnx") as runtime:
        assert runtime.run({"image": image})["mask"].shape == image.shape[:3]
    config = config_of(output, "street")
    if config.max_batch_size:
        assert 1 <= image.shape[0] <= config.max_batch_size
    else:
        assert list(image.shape) == list(config.input[0].dims)
    expected = {"sized": (16, 20), "windowed": (16, 20), "dynamic": (512, 1024)}.get(case, (24, 32))
    assert image.shape[1:3] == expected
    assert "v2/models/street/ready" in text


def test_the_readme_says_what_a_client_does_itself(repository: Path, tmp_path: Path) -> None:
    everything = Preprocess(
        size=(40, 60), value_range=(-100.0, 400.0), window=Window(height=16, width=20, overlap=0.3, padding="reflect")
    )
    output = emit_triton(write_artifact(tmp_path / "all", preprocess=everything), tmp_path / "out")
    plain, full = (" ".join((folder / "README.md").read_text("utf-8").split()) for folder in (repository, output))
    # int(16 * 0.7) = 11 rows and int(20 * 0.7) = 14 columns (20 * (1 - 0.3) is 14.0 in floating point)
    for told in (
        "`round(clip((v - -100) / 500 * 255, 0, 255))`",
        "Resize the image to 40×60",
        "windows of 16×20 (height × width), one every 11 rows and 14 columns",
        "its own pixels (reflect)",
        "cannot blend the logits",
    ):
        assert told in full
        assert told not in plain
    assert "Send 1 to 8 images of one size" in plain
    fixed = emit_triton(write_artifact(tmp_path / "fixed", shape=(2, 24, 32)), tmp_path / "second")
    assert "Send exactly 2 images a request" in (fixed / "README.md").read_text("utf-8")


def test_class_names_keep_their_spaces(tmp_path: Path) -> None:
    names = ("sky", "road  marking", " car", "pole")
    source = write_artifact(tmp_path / "street")
    for path in (source / "models").glob("*.onnx"):
        model = onnx.load(path)
        known = {entry.key: entry.value for entry in model.metadata_props}
        onnx.helper.set_model_props(model, {**known, "class_names": json.dumps(list(names))})
        onnx.save(model, path)
    update = {"classes": ClassTable(names=names), "files": hash_files(source)}
    write_manifest(source, read_manifest(source).model_copy(update=update))
    output = emit_triton(source, tmp_path / "out")
    assert (output / "street/labels.txt").read_text(encoding="utf-8") == "sky\nroad  marking\n car\npole\n"


def test_a_network_of_normalised_planes_is_refused_with_the_remedy(tmp_path: Path) -> None:
    source = write_artifact(tmp_path / "planes", mask_options={"baked": False})
    with pytest.raises(ArtifactError, match=r"has image float32.*; export without --no-bake-preprocess"):
        emit_triton(source, tmp_path / "out")
