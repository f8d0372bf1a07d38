"""Exports that went wrong in ways that keep the mean IoU respectable: each is refused, and the class is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from trained_street import DATA, street_classes

from dropclass_deploy.cli.app import REFUSED, run
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.export.graphs.core_and_tail import copied, join_tail, split_tail
from dropclass_deploy.export.quantise.static import quantised
from dropclass_deploy.export.to_onnx import Traced, save_mask

TABLE = street_classes()
METADATA = {
    "class_names": json.dumps(list(TABLE.names)),
    "preprocess": json.dumps(Preprocess().model_dump(mode="json")),
    "rare_classes": json.dumps([TABLE.names[index] for index in TABLE.rare]),
}
Model = onnx.ModelProto


def weight(model: Model, name: str) -> tuple[onnx.TensorProto, np.ndarray]:
    tensor = next(item for item in model.graph.initializer if item.name == name)
    return tensor, numpy_helper.to_array(tensor).copy()


def swapped_channels(model: Model) -> None:
    """The first convolution reads BGR."""
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    tensor, values = weight(model, first.input[1])
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[:, ::-1]), tensor.name))


def scaled_row(model: Model) -> None:
    """The classifier's row of class car, weights only, times 0.9."""
    last = [node for node in model.graph.node if node.op_type == "Conv"][-1]
    tensor, values = weight(model, last.input[1])
    values[TABLE.names.index("car")] *= np.float32(0.9)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def resize_attribute(name: str, value: str) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        node = model.graph.node[-1]
        assert node.op_type == "Resize"
        kept = [item for item in node.attribute if item.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return change


@pytest.fixture(scope="module")
def good(street_traced: Traced, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sabotage") / "good.onnx"
    save_mask(street_traced, Preprocess(), path, METADATA)
    return path


def verdict(good: Path, candidate: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = run(["verify", "--reference", str(good), "--candidate", str(candidate), "--data", DATA])
    return code, capsys.readouterr().err


SABOTAGED = {
    "channels": swapped_channels,
    "row": scaled_row,
    "align_corners": resize_attribute("coordinate_transformation_mode", "align_corners"),
    "nearest": resize_attribute("mode", "nearest"),
}


@pytest.mark.parametrize("kind", SABOTAGED)
def test_a_sabotaged_graph_is_refused_and_a_class_named(
    good: Path, street_traced: Traced, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    model = copied(street_traced.graph)
    SABOTAGED[kind](model)
    save_mask(replace(street_traced, graph=model), Preprocess(), tmp_path / "bad.onnx", METADATA)
    code, told = verdict(good, tmp_path / "bad.onnx", capsys)
    assert code == REFUSED
    assert "verdict fail" in told
    named = [name for name in TABLE.names if f"{name}: IoU moved by" in told]
    assert named
    if kind == "row":
        assert "car" in named


def test_a_network_without_its_normalisation_is_refused(
    good: Path, street_traced: Traced, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Mean 0 and standard deviation 1 in the graph, the true ones in its metadata: only the masks can tell."""
    nothing = Preprocess(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    save_mask(street_traced, nothing, tmp_path / "bad.onnx", METADATA)
    code, told = verdict(good, tmp_path / "bad.onnx", capsys)
    assert code == REFUSED
    assert "road: IoU moved by" in told


def test_int8_calibrated_on_black_images_is_refused(
    good: Path, street_traced: Traced, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    core, tail = split_tail(street_traced.graph)
    black = [Preprocess().normalise(np.zeros((96, 128, 3), np.uint8))] * 4
    network = join_tail(quantised(core, black, "onnxruntime minmax, per channel"), tail)
    save_mask(replace(street_traced, graph=network), Preprocess(), tmp_path / "bad.onnx", METADATA)
    code, told = verdict(good, tmp_path / "bad.onnx", capsys)
    assert code == REFUSED
    assert "verdict fail" in told
    assert "lies below the margin" in told
    assert any(f"{name}: the 95 % interval" in told for name in TABLE.names)


def test_the_same_network_passes(
    good: Path, street_traced: Traced, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = replace(street_traced, graph=copied(street_traced.graph))
    save_mask(same, Preprocess(), tmp_path / "same.onnx", METADATA)
    assert verdict(good, tmp_path / "same.onnx", capsys)[0] == 0
