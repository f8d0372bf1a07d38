"""Engines built for GPUs that are not there: what is built, cached, rebuilt and refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from engine_artifacts import copy_with, rehash
from onnx import TensorProto, helper

from dropclass_deploy.core.errors import ArtifactError, UserError
from dropclass_deploy.core.manifest import read_manifest, write_manifest
from dropclass_deploy.core.model_files import DENSE, model_file
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.sliding_window import Window
from dropclass_deploy.export import ExportOptions, export_artifact
from dropclass_deploy.export.engines import EngineOptions, EngineResult, build_engine
from dropclass_deploy.export.engines.builder import build_config
from dropclass_deploy.export.engines.first_cast import with_cast_first
from dropclass_deploy.export.engines.network import parse_network
from dropclass_deploy.export.mask_format import MaskFormat
from dropclass_deploy.serving.runtimes.base import TensorSpec
from dropclass_deploy.serving.runtimes.onnx_file.graph_io import read_graph_io
from dropclass_deploy.serving.runtimes.tensorrt_native.engine_record import Profile, plan_name, read_record, record_path
from dropclass_deploy.serving.runtimes.tensorrt_native.tensorrt_library import Library, import_tensorrt

pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx, which builds without a GPU")

SHAPE, ONE = (2, 24, 32), (1, 24, 32)
NAMES = ("sky", "road", "tree", "cyclist")


def build(artifact: Path, evidence: Path, **options: object) -> EngineResult:
    defaults: dict[str, object] = {"library": "tensorrt-rtx", "compute_capabilities": ("8.9",), "evidence": evidence}
    return build_engine(artifact, EngineOptions(**(defaults | options)))


@pytest.fixture(scope="module")
def library() -> Library:
    return import_tensorrt("tensorrt-rtx")


@pytest.fixture(scope="module")
def built(dynamic_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> EngineResult:
    return build(dynamic_artifact, tmp_path_factory.mktemp("built"), shape=SHAPE)


def test_the_plan_is_the_librarys_own_bytes_and_the_sidecar_tells_of_them(
    built: EngineResult, dynamic_artifact: Path, library: Library
) -> None:
    plan = built.plan.read_bytes()
    network = dynamic_artifact / "models/model.mask.onnx"
    content = json.loads(built.plan.with_name(built.plan.name + ".json").read_text())
    assert built.plan.name == "fp32.tensorrt-rtx.sm89.1x24x32-2x24x32-2x24x32.plan"
    assert built.plan.parent.name == "engines"
    assert plan[:4] == b"vtrt", "TensorRT-RTX's own magic number comes first"
    assert content["plan_sha256"] == hashlib.sha256(plan).hexdigest()
    assert content["request"] == {
        "library": "tensorrt-rtx",
        "library_version": library.module.__version__,
        "compute_capabilities": ["8.9"],
        "onnx": "models/model.mask.onnx",
        "onnx_sha256": hashlib.sha256(network.read_bytes()).hexdigest(),
        "precision": "fp32",
        "tf32": False,
        "workspace_mib": None,
        "profile": {"min": [1, 24, 32], "opt": [2, 24, 32], "max": [2, 24, 32]},
    }
    assert content["inputs"] == [{"name": "image", "dtype": "uint8", "shape": [None, None, None, 3]}]
    assert content["outputs"] == [{"name": "mask", "dtype": "uint8", "shape": [None, None, None]}]
    assert json.loads(content["metadata"]["class_names"]) == ["sky", "road", "tree, old", "cyclist"]


@pytest.mark.parametrize(
    ("preprocess", "proposed"),
    [
        (Preprocess(), r"--shape 1x512x1024, or"),
        (Preprocess(size=(40, 48)), r"--shape 1x40x48, the size"),
        (Preprocess(size=(40, 48), window=Window(height=16, width=24)), r"--shape 1x16x24, the size"),
    ],
)
def test_the_shape_that_is_proposed_is_the_one_that_the_network_sees(
    dynamic_artifact: Path, tmp_path: Path, preprocess: Preprocess, proposed: str
) -> None:
    copy = shutil.copytree(dynamic_artifact, tmp_path / "a")
    write_manifest(copy, read_manifest(copy).model_copy(update={"preprocess": preprocess}))
    (copy / "preprocess.json").write_text(preprocess.model_dump_json())
    for path in (copy / "models").glob("*.onnx"):
        model = onnx.load(path)
        known = {entry.key: entry.value for entry in model.metadata_props}
        onnx.helper.set_model_props(model, {**known, "preprocess": preprocess.model_dump_json()})
        onnx.save(model, path)
    with pytest.raises(UserError, match=proposed):
        build(rehash(copy), tmp_path / "evidence")


def test_a_network_of_normalised_planes_is_refused_with_the_remedy(tmp_path: Path, networks: Any) -> None:
    options = ExportOptions(mask_format=MaskFormat(bake_preprocess=False))
    planes = export_artifact(networks.Tiny(), tmp_path / "a", classes=NAMES, preprocess=Preprocess(), options=options)
    with pytest.raises(ArtifactError, match=r"takes image float32.*; export without --no-bake-preprocess"):
        build(planes, tmp_path / "evidence", shape=SHAPE)


def test_static_network_needs_no_profile(static_artifact: Path, tmp_path: Path) -> None:
    result = build(static_artifact, tmp_path)
    assert result.record.request.profile is None
    assert [tensor.shape for tensor in result.record.inputs] == [(1, 24, 32, 3)]
    assert result.size_mib == result.plan.stat().st_size / 2**20 > 0


@pytest.mark.parametrize("fixture", ["static_artifact", "dynamic_artifact"])
def test_float16(fixture: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    artifact = request.getfixturevalue(fixture)
    result = build(artifact, tmp_path, precision="fp16", shape=(1, 24, 32))
    assert result.plan.name.startswith("fp16.")
    assert (result.record.request.precision, result.record.request.onnx) == ("fp16", "models/model.fp16.mask.onnx")


def test_the_network_is_typed_as_the_file_is(dynamic_artifact: Path, library: Library) -> None:
    """Asked of TensorRT's own layers: nothing but the file decides where float16 is used."""
    found = {}
    for precision in ("fp32", "fp16"):
        path = dynamic_artifact / model_file(DENSE, precision)
        network = parse_network(path, library, read_graph_io(path)).network
        layers = [network.get_layer(index) for index in range(network.num_layers)]
        convolutions = [layer for layer in layers if layer.type == library.module.LayerType.CONVOLUTION]
        found[precision] = {layer.get_output(0).dtype for layer in convolutions}
    kinds = library.module.DataType
    assert found == {"fp32": {kinds.FLOAT}, "fp16": {kinds.HALF}}


def test_several_gpus_and_a_profile_of_three_shapes(dynamic_artifact: Path, tmp_path: Path) -> None:
    profile = Profile(min=(1, 16, 16), opt=(2, 24, 32), max=(4, 48, 64))
    result = build(dynamic_artifact, tmp_path, compute_capabilities=("12.0", "8.6"), profile=profile, workspace_mib=64)
    assert result.plan.name == "fp32.tensorrt-rtx.sm86-sm120.1x16x16-2x24x32-4x48x64.ws64.plan"
    assert read_record(result.plan).request.profile == profile


@pytest.mark.parametrize("asked", [False, True])
def test_tf32_only_when_asked(built: EngineResult, dynamic_artifact: Path, library: Library, asked: bool) -> None:
    path = dynamic_artifact / "models/model.mask.onnx"
    definition = parse_network(path, library, read_graph_io(path))
    request = built.record.request.model_copy(update={"tf32": asked})
    assert build_config(definition, request).get_flag(library.module.BuilderFlag.TF32) is asked


def test_inputs_and_outputs_come_from_the_definition(dynamic_artifact: Path, library: Library) -> None:
    path = dynamic_artifact / "models/model.mask.onnx"
    definition = parse_network(path, library, read_graph_io(path))
    assert definition.inputs == (TensorSpec("image", "uint8", (None, None, None, 3)),)
    assert definition.outputs == (TensorSpec("mask", "uint8", (None, None, None)),)


def transposed_first(model: onnx.ModelProto) -> None:
    """The order of the files that version 0.1 exported: uint8 is transposed, then cast."""
    cast, transpose = model.graph.node[:2]
    assert (cast.op_type, transpose.op_type) == ("Cast", "Transpose")
    between = cast.output[0]
    transpose.input[0], cast.output[0] = "image", transpose.output[0]
    cast.input[0] = transpose.output[0] = between
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in (transpose, cast, *model.graph.node[2:])]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for value in [value for value in model.graph.value_info if value.name == between]:
        model.graph.value_info.remove(value)


def test_a_file_that_transposes_first_builds_and_no_pixel_changes(dynamic_artifact: Path, tmp_path: Path) -> None:
    old = copy_with(dynamic_artifact, tmp_path / "old", transposed_first)
    content = (old / "models/model.mask.onnx").read_bytes()
    swapped = with_cast_first(content)
    for model in (content, swapped):
        onnx.checker.check_model(onnx.load_model_from_string(model), full_check=True)
    images = np.random.default_rng(3).integers(0, 256, (2, 21, 27, 3), dtype=np.uint8)
    before, after = (
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"image": images})[0]
        for model in (content, swapped)
    )
    np.testing.assert_array_equal(before, after)
    assert [node.op_type for node in onnx.load_model_from_string(swapped).graph.node][:2] == ["Cast", "Transpose"]
    assert not build(old, tmp_path / "out", shape=SHAPE).reused


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_file_that_casts_first_is_handed_on_as_it_is(dynamic_artifact: Path, precision: str) -> None:
    content = (dynamic_artifact / model_file(DENSE, precision)).read_bytes()
    assert with_cast_first(content) == content


@pytest.mark.parametrize(
    ("dtype", "layout", "shape"),
    [("int32", "NHW", (1, 24, 32)), ("int64", "NCHW", (1, 1, 24, 32)), ("uint8", "NHWC", (1, 24, 32, 1))],
)
def test_every_type_and_layout_of_the_mask(
    networks, tmp_path: Path, dtype: str, layout: str, shape: tuple[int, ...]
) -> None:
    options = ExportOptions(shape=(1, 24, 32), mask_format=MaskFormat(dtype=dtype, layout=layout))
    artifact = export_artifact(
        networks.Tiny(), tmp_path / "mask", classes=NAMES, preprocess=Preprocess(), options=options
    )
    (mask,) = build(artifact, tmp_path / "out").record.outputs
    assert (mask.dtype, mask.shape) == (dtype, shape)


def test_everything_equal_is_reused(built: EngineResult, dynamic_artifact: Path) -> None:
    before = built.plan.stat()
    again = build(dynamic_artifact, built.plan.parent.parent, shape=SHAPE)
    assert again.reused
    assert not built.reused
    assert (again.plan, again.record) == (built.plan, built.record)
    assert (built.plan.stat().st_mtime_ns, built.plan.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_an_engine_of_another_kind_takes_no_others_place(built: EngineResult) -> None:
    """Names by hand; the kinds differ in one thing each."""
    kinds = {
        "fp32.tensorrt-rtx.sm89.1x24x32-2x24x32-2x24x32.plan": {},
        "fp32-tf32.tensorrt-rtx.sm89.1x24x32-2x24x32-2x24x32.plan": {"tf32": True},
        "fp32.tensorrt-rtx.sm89.1x24x32-2x24x32-2x24x32.ws8.plan": {"workspace_mib": 8},
        "fp32.tensorrt-rtx.sm89.1x24x32-1x24x32-2x24x32.plan": {"profile": Profile(min=ONE, opt=ONE, max=SHAPE)},
        "fp32.tensorrt-rtx.sm89.1x24x32.plan": {"profile": Profile(min=ONE, opt=ONE, max=ONE)},
        "fp32.tensorrt-rtx.any.1x24x32-2x24x32-2x24x32.plan": {"compute_capabilities": ()},
        "fp32.tensorrt-rtx.sm89.plan": {"profile": None},
    }
    for name, changes in kinds.items():
        assert plan_name("fp32", built.record.request.model_copy(update=changes)) == name


def flip_byte(plan: Path) -> None:
    content = bytearray(plan.read_bytes())
    content[len(content) // 2] ^= 1
    plan.write_bytes(content)


def cut_short(plan: Path) -> None:
    plan.write_bytes(plan.read_bytes()[:-1])


def edit_request(plan: Path, **changes: object) -> None:
    path = record_path(plan)
    content = json.loads(path.read_text())
    content["request"] |= changes
    path.write_text(json.dumps(content))


def forge_both(plan: Path) -> None:
    """Another plan under a sidecar that vouches for it."""
    flip_byte(plan)
    content = json.loads(record_path(plan).read_text())
    record_path(plan).write_text(json.dumps(content | {"plan_sha256": hashlib.sha256(plan.read_bytes()).hexdigest()}))


@pytest.mark.parametrize(
    "spoil",
    [
        flip_byte,
        cut_short,
        lambda plan: plan.unlink(),
        lambda plan: record_path(plan).unlink(),
        lambda plan: record_path(plan).write_text("{}"),
        lambda plan: edit_request(plan, library_version="1.6.0"),
        lambda plan: edit_request(plan, onnx_sha256="0" * 64),
        lambda plan: edit_request(plan, tf32=True),
        lambda plan: edit_request(plan, profile=None),
        lambda plan: edit_request(plan, forged="yes"),
        lambda plan: record_path(plan).unlink() or os.mkfifo(record_path(plan)),
        lambda plan: plan.unlink() or os.mkfifo(plan),
        lambda plan: plan.unlink() or plan.symlink_to("/dev/zero"),
        lambda plan: forge_both(plan),
    ],
)
def test_anything_else_is_rebuilt(built: EngineResult, dynamic_artifact: Path, tmp_path: Path, spoil) -> None:
    shutil.copytree(built.plan.parent, tmp_path / "engines")
    plan = tmp_path / "engines" / built.plan.name
    spoil(plan)
    result = build(dynamic_artifact, tmp_path, shape=SHAPE)
    assert not result.reused
    assert result.plan == plan
    assert hashlib.sha256(plan.read_bytes()).hexdigest() == read_record(plan).plan_sha256
    assert read_record(plan).request == built.record.request


def test_the_artifact_is_left_alone_with_an_evidence_folder(built: EngineResult, dynamic_artifact: Path) -> None:
    assert not (dynamic_artifact / "evidence").exists()


def test_default_place_is_the_artifacts_evidence(static_artifact: Path, tmp_path: Path) -> None:
    artifact = shutil.copytree(static_artifact, tmp_path / "own")
    result = build_engine(artifact, EngineOptions(compute_capabilities=("8.9",)))
    assert result.plan == artifact / "evidence/engines/fp32.tensorrt-rtx.sm89.plan"
    assert build_engine(artifact, EngineOptions(compute_capabilities=("8.9",))).reused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"any size \(dynamic\).*--shape 1x512x1024.*--profile"),
        (
            {"shape": SHAPE, "compute_capabilities": ("9.0",)},
            r"capability '9\.0'.*7\.5, 8\.0, 8\.6, 8\.9, 12\.0, 12\.1",
        ),
        ({"shape": SHAPE, "compute_capabilities": ("8.9", "8.9")}, "named twice"),
        ({"shape": SHAPE, "library": "tensorrt"}, "for the GPU of this machine only"),
        ({"shape": SHAPE, "library": "tensorflow"}, "no TensorRT library 'tensorflow'"),
        ({"shape": SHAPE, "precision": "int4"}, "no precision 'int4'"),
        (
            {"shape": SHAPE, "precision": "int8"},
            r"has no models/model\.int8\.mask\.onnx.*one of .*models/model\.mask\.onnx",
        ),
        ({"shape": SHAPE, "workspace_mib": 0}, "workspace limit is 0 MiB"),
        ({"shape": SHAPE, "profile": Profile(min=SHAPE, opt=SHAPE, max=SHAPE)}, "both a shape and a profile"),
    ],
)
def test_mistakes_are_one_line(
    dynamic_artifact: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(dynamic_artifact, tmp_path, **options)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_another_size_than_the_static_one_is_refused(static_artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"1x48x64 is asked for; expected 1x24x32, as exported"):
        build(static_artifact, tmp_path, shape=(1, 48, 64))


def before_argmax(node_type: str, domain: str) -> Callable[[onnx.ModelProto], None]:
    """An edit that puts an operator between the logits and the mask."""

    def edit(model: onnx.ModelProto) -> None:
        head = next(node for node in model.graph.node if node.op_type == "ArgMax")
        added = helper.make_node(node_type, [head.input[0]], ["odd"], domain=domain, name="own.node")
        head.input[0] = "odd"
        model.graph.node.insert(list(model.graph.node).index(head), added)
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, 1))

    return edit


@pytest.mark.parametrize(
    ("operator", "domain", "wanted"),
    [
        ("Fancy", "my.house", "needs the operator 'Fancy' of 'my.house', which is no part of it"),
        ("Det", "", r"tensorrt-rtx 1\.\S+: the operator Det \(node own\.node\) is not supported"),
    ],
)
def test_an_unsupported_operator_is_named(
    static_artifact: Path, tmp_path: Path, operator: str, domain: str, wanted: str
) -> None:
    artifact = copy_with(static_artifact, tmp_path / "odd", before_argmax(operator, domain))
    with pytest.raises(ArtifactError, match=wanted) as caught:
        build(artifact, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert "driver" not in str(caught.value)


def float_mask(model: onnx.ModelProto) -> None:
    model.graph.node[-1].attribute[0].i = TensorProto.FLOAT
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT


def second_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("normalised", TensorProto.FLOAT, [1, 3, 24, 32]))


@pytest.mark.parametrize(("edit", "found"), [(float_mask, "gives mask float32"), (second_output, "normalised float32")])
def test_what_is_no_mask_file_is_refused(static_artifact: Path, tmp_path: Path, edit, found: str) -> None:
    artifact = copy_with(static_artifact, tmp_path / "odd", edit)
    with pytest.raises(ArtifactError, match=rf"{found}.*expected image uint8 \(N, H, W, 3\)"):
        build(artifact, tmp_path / "out")


def test_a_float32_file_under_another_name_is_refused(static_artifact: Path, tmp_path: Path) -> None:
    artifact = shutil.copytree(static_artifact, tmp_path / "odd")
    shutil.copy(artifact / "models/model.mask.onnx", artifact / "models/model.fp16.mask.onnx")
    with pytest.raises(ArtifactError, match="computes in fp32; expected fp16"):
        build(rehash(artifact), tmp_path / "out", precision="fp16")


def weights_elsewhere(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret.bin")


def test_nothing_is_built_from_a_network_that_serving_refuses(static_artifact: Path, tmp_path: Path) -> None:
    artifact = shutil.copytree(static_artifact, tmp_path / "odd")
    path = artifact / "models/model.mask.onnx"
    model = onnx.load(path)
    weights_elsewhere(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="outside of itself"):
        build(rehash(artifact), tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"this is no network"])
def test_no_network_at_all_is_refused(static_artifact: Path, tmp_path: Path, content: bytes) -> None:
    artifact = shutil.copytree(static_artifact, tmp_path / "odd")
    (artifact / "models/model.mask.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"is no ONNX model|cannot be read as an ONNX model"):
        build(rehash(artifact), tmp_path / "out")


def test_a_changed_file_is_refused_before_anything(static_artifact: Path, tmp_path: Path) -> None:
    artifact = shutil.copytree(static_artifact, tmp_path / "odd")
    flip_byte(artifact / "models/model.mask.onnx")
    with pytest.raises(ArtifactError, match=r"models/model\.mask\.onnx has changed"):
        build(artifact, tmp_path / "out")


def test_a_place_that_cannot_be_written_names_the_option(static_artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot be written.*name another with --evidence"):
        build(static_artifact, tmp_path / "file")


def test_the_libraries_own_words_come_through(dynamic_artifact: Path, library: Library) -> None:
    """Without a profile TensorRT itself refuses: what it logged is kept, on one line, without its source file."""
    path = dynamic_artifact / "models/model.mask.onnx"
    definition = parse_network(path, library, read_graph_io(path))
    builder = definition.builder
    assert builder.build_serialized_network(definition.network, builder.create_builder_config()) is None
    said = definition.messages.one_line("nothing")
    assert "no optimization profile has been defined" in said
    assert ".cpp" not in said
    assert definition.messages.one_line("nothing") == "nothing"
