from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper
from serving_builders import conv_weights, save_logits, save_mask

from dropclass_deploy.core.errors import ArtifactError
from dropclass_deploy.serving.runtimes.onnx_file.graph_precision import read_precision
from dropclass_deploy.serving.runtimes.onnx_file.protobuf_wire import WireError, fields, integer, messages, text


class OneImage:
    """Calibration data of one random image."""

    def __init__(self) -> None:
        self.items = [{"image": np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)}]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.items.pop() if self.items else None


def graph_file(path: Path, nodes: list[Any], stored: dict[str, np.ndarray], dtype: int = T.FLOAT) -> Path:
    tensors = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    inputs = [h.make_tensor_value_info("x", dtype, [1, 4])]
    outputs = [h.make_tensor_value_info("y", dtype, None)]
    onnx.save(h.make_model(h.make_graph(nodes, "g", inputs, outputs, tensors)), path)
    return path


@pytest.mark.parametrize(("dtype", "name"), [(T.FLOAT, "fp32"), (T.FLOAT16, "fp16")])
def test_float_precision_of_the_weights(tmp_path: Path, dtype: int, name: str) -> None:
    assert read_precision(save_logits(tmp_path / "m.onnx", conv_weights(), dtype=dtype)) == name


@pytest.mark.parametrize(("dtype", "name"), [(T.BFLOAT16, "bf16"), (T.FLOAT16, "fp16"), (T.DOUBLE, "mixed")])
def test_precision_of_a_matrix_product(tmp_path: Path, dtype: int, name: str) -> None:
    stored = {"w": np.ones((4, 2), h.tensor_dtype_to_np_dtype(dtype))}
    path = graph_file(tmp_path / "m.onnx", [h.make_node("MatMul", ["x", "w"], ["y"])], stored, dtype)
    assert read_precision(path) == name


def test_mask_head_does_not_change_the_precision(tmp_path: Path) -> None:
    assert read_precision(save_mask(tmp_path / "m.onnx", conv_weights())) == "fp32"


def test_static_quantisation_is_int8(tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantFormat, quantize_static

    source = save_logits(tmp_path / "m.onnx", conv_weights())
    quantize_static(source, tmp_path / "q.onnx", OneImage(), quant_format=QuantFormat.QDQ)
    assert read_precision(tmp_path / "q.onnx") == "int8"


def test_dynamic_quantisation_is_int8(tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(save_logits(tmp_path / "m.onnx", conv_weights()), tmp_path / "q.onnx")
    assert read_precision(tmp_path / "q.onnx") == "int8"


def test_quantised_weights_alone_are_not_int8(tmp_path: Path) -> None:
    dequantise = h.make_node("DequantizeLinear", ["w", "scale"], ["wf"])
    stored = {"w": np.ones((4, 2), np.int8), "scale": np.float32(0.1)}
    path = graph_file(tmp_path / "m.onnx", [dequantise, h.make_node("MatMul", ["x", "wf"], ["y"])], stored)
    assert read_precision(path) == "mixed"


def test_half_weights_cast_to_float_are_mixed(tmp_path: Path) -> None:
    cast = h.make_node("Cast", ["w"], ["wf"], to=T.FLOAT)
    path = graph_file(
        tmp_path / "m.onnx", [cast, h.make_node("MatMul", ["x", "wf"], ["y"])], {"w": np.ones((4, 2), np.float16)}
    )
    assert read_precision(path) == "mixed"


def test_float_network_that_rounds_on_the_way_is_mixed(tmp_path: Path) -> None:
    nodes = [
        h.make_node("MatMul", ["x", "w"], ["a"]),
        h.make_node("Cast", ["a"], ["b"], to=T.FLOAT16),
        h.make_node("Cast", ["b"], ["y"], to=T.FLOAT),
    ]
    assert read_precision(graph_file(tmp_path / "m.onnx", nodes, {"w": np.ones((4, 2), np.float32)})) == "mixed"


def test_one_layer_in_half_is_mixed(tmp_path: Path) -> None:
    nodes = [
        h.make_node("MatMul", ["x", "w"], ["a"]),
        h.make_node("Cast", ["a"], ["b"], to=T.FLOAT16),
        h.make_node("MatMul", ["b", "v"], ["c"]),
        h.make_node("Cast", ["c"], ["y"], to=T.FLOAT),
    ]
    stored = {"w": np.ones((4, 4), np.float32), "v": np.ones((4, 4), np.float16)}
    assert read_precision(graph_file(tmp_path / "m.onnx", nodes, stored)) == "mixed"


def test_weights_behind_reshapes_constants_and_subgraphs_are_found(tmp_path: Path) -> None:
    constant = h.make_node("Constant", [], ["w"], value=numpy_helper.from_array(np.ones((8,), np.float16), "v"))
    inner = h.make_graph(
        [h.make_node("Reshape", ["w", "shape"], ["r"]), h.make_node("MatMul", ["x", "r"], ["o"])],
        "branch", [], [h.make_tensor_value_info("o", T.FLOAT16, None)],
    )  # fmt: skip
    branch = h.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    stored = {"shape": np.array([4, 2]), "c": np.array(True)}
    assert read_precision(graph_file(tmp_path / "m.onnx", [constant, branch], stored, T.FLOAT16)) == "fp16"


@pytest.mark.parametrize(("dtype", "name"), [(T.FLOAT, "fp32"), (T.FLOAT16, "fp16"), (T.UINT8, "fp32")])
def test_network_without_weights_follows_its_input(tmp_path: Path, dtype: int, name: str) -> None:
    assert read_precision(graph_file(tmp_path / "m.onnx", [h.make_node("Identity", ["x"], ["y"])], {}, dtype)) == name


def test_torch_export_is_fp32(tmp_path: Path) -> None:
    import torch

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()).eval()
    program = torch.onnx.export(model, (torch.zeros(1, 3, 8, 8),), dynamo=True, verbose=False)
    assert program is not None
    program.save(tmp_path / "m.onnx", external_data=False)
    assert read_precision(tmp_path / "m.onnx") == "fp32"


def test_garbage_is_an_artifact_error(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(ArtifactError, match="cannot be read as an ONNX model"):
        read_precision(path)


def test_endless_nesting_is_an_artifact_error(tmp_path: Path) -> None:
    def delimited(number: int, content: bytes) -> bytes:
        length, encoded = len(content), b""
        while length >= 0x80:
            encoded, length = encoded + bytes([length & 0x7F | 0x80]), length >> 7
        return bytes([number << 3 | 2]) + encoded + bytes([length]) + content

    graph = b""
    for _ in range(200):
        graph = delimited(1, delimited(5, delimited(6, graph)))  # graph.node.attribute.g
    path = tmp_path / "m.onnx"
    path.write_bytes(delimited(7, graph))
    with pytest.raises(ArtifactError, match="nested deeper"):
        read_precision(path)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_fields_or_a_wire_error(content: bytes) -> None:
    try:
        found = list(fields(memoryview(content)))
    except WireError:
        return
    assert all(isinstance(value, int | memoryview) for _, value in found)


def test_fields_equal_what_protobuf_wrote() -> None:
    tensor = numpy_helper.from_array(np.arange(300, dtype=np.int64), "a name with umläuts")
    view = memoryview(tensor.SerializeToString())
    assert (integer(view, 2), text(view, 8)) == (T.INT64, "a name with umläuts")
    assert bytes(next(messages(view, 9))) == tensor.raw_data
