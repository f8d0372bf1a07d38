"""The ONNX files against torch, run by ONNX Runtime, and what stands in them."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.export import graphs
from dropclass_deploy.export.mask_head import MaskModel
from dropclass_deploy.export.networks import ResizedLogits
from dropclass_deploy.export.shapes import DYNAMIC
from dropclass_deploy.export.to_onnx import export_logits, export_mask, save_logits, save_mask, trace
from dropclass_deploy.training.dropclass import DropClass, strip

SIZES = [(1, 24, 32), (3, 24, 32), (1, 21, 27), (3, 33, 40)]


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def noise(shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, networks) -> dict[str, Path]:
    """One dynamic export of a low-resolution network, so that the resize is in the graph."""
    folder = tmp_path_factory.mktemp("onnx")
    traced = trace(networks.LowResolution("dict"), DYNAMIC)
    paths = {"logits": folder / "model.onnx", "mask": folder / "model.mask.onnx"}
    save_logits(traced, paths["logits"], {"class_names": json.dumps(["a", "b"])})
    save_mask(traced, Preprocess(), paths["mask"], {})
    return paths


@pytest.mark.parametrize("shape", SIZES)
def test_logits_equal_torch_at_every_size(files, networks, preprocess: Preprocess, shape) -> None:
    pixels = preprocess.normalise(noise(shape))
    got = session(files["logits"]).run(None, {"image": pixels})[0]
    with torch.inference_mode():
        want = ResizedLogits(networks.LowResolution("dict")).eval()(torch.from_numpy(pixels)).numpy()
    assert got.shape == want.shape == (shape[0], 4, *shape[1:])
    # The same float32 sums of 75 products of order 1 in another order: a few units of 1e-7 each.
    np.testing.assert_allclose(got, want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SIZES)
def test_mask_equals_torch_at_every_size(files, networks, preprocess: Preprocess, shape) -> None:
    images = noise(shape)
    got = session(files["mask"]).run(None, {"image": images})[0]
    model = MaskModel(networks.LowResolution("dict"), preprocess).eval()
    with torch.inference_mode():
        want = model(torch.from_numpy(images)).numpy()
        logits = model.network(torch.from_numpy(preprocess.normalise(images))).numpy()
    top = np.sort(logits, axis=1)
    clear = top[:, -1] - top[:, -2] > 1e-4  # ten times the bound on a logit's difference above
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(got[clear], want[clear])


def test_names_types_and_dimensions(files) -> None:
    logits, mask = session(files["logits"]), session(files["mask"])
    described = [(value.name, value.type, value.shape) for run in (logits, mask) for value in run.get_inputs()]
    assert described == [
        ("image", "tensor(float)", ["batch", 3, "height", "width"]),
        ("image", "tensor(uint8)", ["batch", "height", "width", 3]),
    ]
    described = [(value.name, value.type, value.shape) for run in (logits, mask) for value in run.get_outputs()]
    assert described == [
        ("logits", "tensor(float)", ["batch", 4, "height", "width"]),
        ("mask", "tensor(uint8)", ["batch", "height", "width"]),
    ]


def test_metadata_round_trip(files) -> None:
    metadata = session(files["logits"]).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == ["a", "b"]


def test_one_file_without_external_data(files) -> None:
    assert sorted(path.name for path in files["mask"].parent.iterdir()) == ["model.mask.onnx", "model.onnx"]
    tensors = onnx.load(files["mask"]).graph.initializer
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in tensors)


def test_nothing_of_the_exporting_machine_is_in_the_file(files) -> None:
    for path in files.values():
        content = path.read_bytes()
        for trace_of in (b"site-packages", b".py", b"forward", str(Path.cwd()).encode()):
            assert trace_of not in content


@pytest.mark.parametrize("opset", [18, 20])
def test_opset_and_static_shape_are_as_asked(networks, preprocess: Preprocess, tmp_path: Path, opset: int) -> None:
    path = tmp_path / "static.onnx"
    export_mask(networks.Tiny(), preprocess, path, (2, 8, 12), opset)
    assert {entry.domain: entry.version for entry in onnx.load(path).opset_import}[""] == opset
    run = session(path)
    assert run.get_inputs()[0].shape == [2, 8, 12, 3]
    images = noise((2, 8, 12))
    with torch.inference_mode():
        want = MaskModel(networks.Tiny().eval(), preprocess).eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_array_equal(run.run(None, {"image": images})[0], want)


def test_training_mode_does_not_reach_the_file(networks, tmp_path: Path) -> None:
    model = networks.Tiny().train()
    export_logits(model, tmp_path / "model.onnx", (1, 8, 8))
    counts = graphs.operator_counts(onnx.load(tmp_path / "model.onnx"))
    assert counts["Dropout"] == 0
    assert model.training
    assert model.features[1].num_batches_tracked == 0


def test_ties_go_to_the_lowest_id(networks, preprocess: Preprocess, tmp_path: Path) -> None:
    export_mask(networks.ConstantLogits([0.0, 2.0, 2.0, 1.0]), preprocess, tmp_path / "tie.onnx", (1, 6, 7))
    assert (session(tmp_path / "tie.onnx").run(None, {"image": noise((1, 6, 7))})[0] == 1).all()


def test_no_trace_of_the_training_branch(networks) -> None:
    never = trace(networks.Tiny(), (1, 16, 16))
    method = DropClass(networks.Tiny())
    method(torch.randn(2, 3, 16, 16), dropped=1)
    met = trace(strip(method), (1, 16, 16))
    assert graphs.operator_counts(met.graph) == graphs.operator_counts(never.graph)
    names = [sorted(tensor.name for tensor in item.graph.graph.initializer) for item in (never, met)]
    assert names[0] == names[1]


def test_mask_file_is_the_logits_graph_between_six_nodes(files) -> None:
    counts = [graphs.operator_counts(onnx.load(files[kind])) for kind in ("mask", "logits")]
    assert counts[0] - counts[1] == {"Transpose": 1, "Cast": 2, "Mul": 1, "Add": 1, "ArgMax": 1}


def test_control_flow_becomes_one_clear_line(networks, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match=r"cannot be exported .* branches on the values of a tensor") as caught:
        export_logits(networks.Branching(), tmp_path / "model.onnx", DYNAMIC)
    assert "\n" not in str(caught.value)
    assert "torch.where" in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_fixed_position_embedding_is_told_to_fix_the_shape(networks, tmp_path: Path) -> None:
    class Embedded(networks.Tiny):
        def forward(self, images):
            return super().forward(images) + torch.zeros(1, 1, 137, 171)

    with pytest.raises(ModelError, match=r"shape dynamic: .*--shape 1xHxW"):
        export_logits(Embedded(), tmp_path / "model.onnx", DYNAMIC)


def test_export_is_silent(networks, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export_logits(networks.Tiny(), tmp_path / "model.onnx", DYNAMIC)
    assert capfd.readouterr() == ("", "")


def test_more_than_255_classes_are_refused(networks, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="logits of 256 classes; expected 2 … 255"):
        export_logits(networks.Tiny(num_classes=256), tmp_path / "model.onnx", (1, 8, 8))


def test_unknown_opset_is_refused(networks, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="opset 11 is not offered; expected one of 18, 19, 20"):
        export_logits(networks.Tiny(), tmp_path / "model.onnx", (1, 8, 8), opset=11)


def test_graph_that_the_checker_refuses_is_not_written(networks, tmp_path: Path) -> None:
    traced = trace(networks.Tiny(), (1, 8, 8))
    traced.graph.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match=r"the ONNX checker refuses the exported graph: .*NoSuchOperator"):
        save_logits(traced, tmp_path / "model.onnx", {})
    assert list(tmp_path.iterdir()) == []


def test_network_that_halves_and_doubles_keeps_odd_sizes(tmp_path: Path, preprocess: Preprocess) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.ConvTranspose2d(8, 4, 2, 2))
    export_mask(model, preprocess, tmp_path / "model.onnx", DYNAMIC)
    assert session(tmp_path / "model.onnx").run(None, {"image": noise((1, 21, 27))})[0].shape == (1, 21, 27)


class TurnsOddSizes(torch.nn.Module):
    """Does something else where the height is odd, as networks with patches do where they must pad."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = torch.nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.flip(3) if images.shape[-2] % 2 else images)


def test_a_network_whose_way_depends_on_the_size_is_refused_unless_the_size_is_fixed(tmp_path):
    with pytest.raises(ModelError, match=r"goes another way at 192×96 pixels .* logits are \d+% off.*--shape 1xHxW"):
        export_logits(TurnsOddSizes(), tmp_path / "dynamic.onnx", (None, None, None))
    assert not (tmp_path / "dynamic.onnx").exists()
    export_logits(TurnsOddSizes(), tmp_path / "fixed.onnx", (1, 64, 96))
