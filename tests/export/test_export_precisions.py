"""Lower precisions of a whole artifact: through the gate, or not there; and the fastest that passes, chosen."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn
from trained_street import DATA, Street, street_classes

from dropclass_deploy.cli.app import REFUSED, run
from dropclass_deploy.core.errors import DataError, GateRefusedError, ModelError, UserError
from dropclass_deploy.core.manifest import check_files, read_manifest
from dropclass_deploy.core.model_files import model_file
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.sliding_window import Window
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.export import ExportOptions, export_artifact
from dropclass_deploy.export.graphs.core_and_tail import copied, split_tail
from dropclass_deploy.export.graphs.rounded import rounded_like_float16
from dropclass_deploy.export.quantise import precisions as module
from dropclass_deploy.export.quantise.half import halved
from dropclass_deploy.export.quantise.precisions import mendable_class
from dropclass_deploy.export.size_check import open_graph
from dropclass_deploy.export.to_onnx import Traced
from dropclass_deploy.serving import Segmenter
from dropclass_deploy.serving.auto import Configuration
from dropclass_deploy.serving.parity.rule import NON_INFERIORITY, ClassFigures, ClassVerdict, judge
from dropclass_deploy.serving.runtimes.onnx_file.graph_precision import read_precision

VAL = "synthetic:val=60"


def export(street: Street, output: Path, **options: object) -> Path:
    given = ExportOptions(data=VAL, **options)
    return export_artifact(street, output, classes=street_classes(), preprocess=Preprocess(), options=given)


@pytest.fixture(scope="module")
def artifact(street: Street, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With float16, and with INT8 or, where that does not pass, some blocks in float32."""
    return export(street, tmp_path_factory.mktemp("lower") / "street", precisions=("fp32", "fp16", "int8"))


@pytest.mark.slow
@pytest.mark.chosen
def test_what_is_shipped_passed_the_gate_and_is_what_its_name_says(artifact: Path) -> None:
    lower = [name for name in ("fp16", "int8", "mixed") if (artifact / model_file("dense", name)).exists()]
    assert lower[0] == "fp16"
    assert len(lower) == 2
    for precision in lower:
        assert read_precision(artifact / model_file("dense", precision)) == precision
        engine = "onnxruntime" if precision == "fp16" else "openvino"
        for head in ("dense", "sparse"):
            report = json.loads((artifact / f"evidence/parity.{precision}.{head}.{engine}.json").read_text())
            assert report["verdict"] == "pass"
        assert (artifact / model_file("logits", precision)).exists()
        assert (artifact / model_file("sparse", precision)).exists()
        assert f"| {precision} | " in (artifact / "docs/README.md").read_text()
    check_files(artifact, read_manifest(artifact))


@pytest.mark.slow
def test_every_file_of_the_artifact_segments_an_image(artifact: Path) -> None:
    image = open_dataset(VAL, "val").image(3)
    with Segmenter.load(artifact, "onnxruntime") as plain:
        expected = plain(image).mask
        variants = plain.artifact.variants()
    assert len(variants) == 6
    for head, precision in variants:
        with Segmenter.load(artifact, "openvino", precision=precision, head=head) as segmenter:
            assert (segmenter(image).mask == expected).mean() > 0.97, (head, precision)
            odd = image[:71, :93]
            assert segmenter(odd).mask.shape == (71, 93)


@pytest.mark.slow
def test_auto_stores_a_choice_that_a_later_load_uses(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["auto", str(artifact), "--data", VAL, "--runtimes", "onnxruntime,openvino", "--threads", "1"]
    assert run([*given, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    times = [row["latency_ms"]["p50"] for row in content["candidates"]]
    assert times == sorted(times)
    assert len(times) == 12  # six files on two engines
    passed = [row for row in content["candidates"] if row["verdict"] == "pass"]
    assert len(passed) == 1  # the search ends at the first that passes; faster ones were refused
    chosen = Configuration(**content["chosen"])
    with Segmenter.load(artifact) as segmenter:
        assert segmenter.mask_file == model_file(chosen.head, chosen.precision)
        assert segmenter.mask_runtime.name == chosen.runtime
    with Segmenter.load(artifact, "onnxruntime") as segmenter:
        assert segmenter.mask_file == "models/model.mask.onnx"


@pytest.mark.slow
def test_a_choice_made_elsewhere_or_for_another_file_is_not_used(artifact: Path) -> None:
    path = artifact / "evidence" / "auto.json"
    stored = {
        "machine": {"cpu": "another"},
        "candidate_sha256": "0" * 64,
        "chosen": {"runtime": "openvino", "precision": "fp16", "head": "sparse", "threads": 1},
    }
    for content in (json.dumps(stored), "{", json.dumps([]), ""):
        path.write_text(content)
        with Segmenter.load(artifact) as segmenter:
            assert (segmenter.mask_runtime.name, segmenter.mask_file) == ("onnxruntime", "models/model.mask.onnx")
    path.unlink()


@pytest.mark.slow
def test_mixed_precision_leaves_its_trade_curve(street: Street, tmp_path: Path) -> None:
    """Calibrated on black images, INT8 destroys the network; only blocks in float32 can save it, or nothing is shipped."""

    class Black(type(open_dataset(DATA, "train"))):  # type: ignore[misc]
        def image(self, index: int) -> np.ndarray:
            return np.zeros_like(super().image(index))

    data = open_dataset(DATA, "train")
    data.__class__ = Black
    output = tmp_path / "black"
    try:
        export(street, output, precisions=("fp32", "int8"), calibration_data=data)
        shipped = True
    except GateRefusedError as error:
        shipped = False
        refusal = str(error)
    curve = json.loads((output / "evidence" / "mixed.json").read_text())
    assert (output / "evidence" / "mixed.png").stat().st_size > 5000
    assert curve["curve"][0]["kept_in_float32"] == []
    assert set(curve["effects_points"]) <= set(curve["blocks"])
    assert all(row["latency_ms"] > 0 for row in curve["curve"])
    assert not (output / model_file("dense", "int8")).exists()
    assert (output / model_file("dense", "mixed")).exists() == shipped
    with Segmenter.load(output) as segmenter:  # the artifact stands, whatever became of INT8
        assert segmenter.precision == "fp32"
    assert shipped or "left out, verdict" in refusal


def test_precisions_that_do_not_exist_or_have_no_data_are_refused_at_once(street: Street, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"precision 'int4' is not available.*fp32, fp16, int8, mixed"):
        ExportOptions(precisions=("int4",))
    options = ExportOptions(precisions=("fp16",))
    with pytest.raises(UserError, match=r"precision fp16 is asked for without data.*--data"):
        export_artifact(street, tmp_path / "a", classes=street_classes(), preprocess=Preprocess(), options=options)
    with pytest.raises(UserError, match="without reference masks"):
        export(street, tmp_path / "a", precisions=("fp16",), reference_limit=0)
    with pytest.raises(DataError, match=r"split 'nowhere' that calibrates INT8.*--calibration-split"):
        export(street, tmp_path / "a", precisions=("int8",), calibration_split="nowhere")
    assert not (tmp_path / "a").exists()


def test_a_refused_precision_exits_3_and_the_rest_stands(
    street: Street, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Float16 of another network: the gate sees it, names a class, and the files are taken out again."""

    def spoiled(core: object) -> object:
        twin = copied(core)
        for tensor in twin.graph.initializer:
            if tensor.name.endswith("classifier.weight"):
                values = np.frombuffer(tensor.raw_data, np.float32)
                tensor.raw_data = np.roll(values, values.size // 3).tobytes()
        return real(twin)

    real = module.halved
    monkeypatch.setattr(module, "halved", spoiled)
    with pytest.raises(GateRefusedError, match=r"fp16 is left out, verdict fail: \w+: the 95 % interval"):
        export(street, tmp_path / "a", precisions=("fp32", "fp16"))
    assert not list((tmp_path / "a" / "models").glob("*fp16*"))
    assert json.loads((tmp_path / "a/evidence/parity.fp16.dense.onnxruntime.json").read_text())["verdict"] == "fail"
    assert run(["verify", str(tmp_path / "a"), "--data", VAL]) == 0
    assert run(["verify", str(tmp_path / "a"), "--data", VAL, "--precision", "fp16"]) != REFUSED


class Loud(nn.Module):
    """A function that float32 computes and float16 overflows in: features times a million, and back."""

    def __init__(self, street: Street) -> None:
        super().__init__()
        self.street = copy.deepcopy(street)
        width = self.street.classifier.in_channels
        layers: list[nn.Module] = []
        for gain in (1e3, 1e3, 1e-3, 1e-3):  # weights that float16 holds, activations that it does not
            conv = nn.Conv2d(width, width, 1, bias=False)
            conv.weight = nn.Parameter(gain * torch.eye(width)[:, :, None, None])
            layers += [conv, nn.ReLU()]
        self.loud = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        street = self.street
        features = street.body(street.stem(images))
        logits = street.classifier(self.loud(features + street.context(features)))
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)


@pytest.mark.slow
def test_float16_that_overflows_on_a_gpu_is_refused(street: Street, tmp_path: Path) -> None:
    """ONNX Runtime's CPU computes the file in float32, where nothing overflows; the imitation shows it."""
    with pytest.raises(GateRefusedError, match="fp16 is left out, verdict fail: NaN or infinity in the logits"):
        export(Loud(street), tmp_path / "a", precisions=("fp16",))
    evidence = tmp_path / "a/evidence"
    assert json.loads((evidence / "parity.fp16.imitated.json").read_text())["verdict"] == "fail"
    assert not list((tmp_path / "a/models").glob("*fp16*"))


def test_imitated_float16_rounds_like_the_reference_evaluator(street: Street, street_traced: Traced) -> None:
    """onnx's own interpreter computes every operator of the converted core in float16."""
    core, _ = split_tail(street_traced.graph)
    image = Preprocess().normalise(open_dataset(VAL, "val").image(0)[:32, :48])
    (exact,) = ReferenceEvaluator(core).run(None, {"image": image})
    (half,) = ReferenceEvaluator(halved(core)).run(None, {"image": image})
    imitated = open_graph(rounded_like_float16(core)).run(None, {"image": image})[0]
    # The interpreter also sums in float16, so it errs further than hardware; the imitation is no further off than it.
    assert 0 < np.abs(imitated - exact).max() <= 2 * np.abs(half - exact).max()
    np.testing.assert_allclose(imitated, half, atol=0.02 * float(np.abs(exact).max()))


@pytest.mark.slow
def test_int8_of_a_network_behind_a_window(street: Street, tmp_path: Path) -> None:
    window = Window(height=64, width=96, overlap=0.25)
    names = tuple(street_classes().names)
    folder = export(
        street, tmp_path / "a", precisions=("int8",), window=window, shape=(1, 64, 96), allow_insufficient=names,
        reference_limit=12,
    )  # fmt: skip
    assert [name for name in ("int8", "mixed") if (folder / model_file("dense", name)).exists()]


def test_a_precision_that_cannot_be_made_costs_only_itself(
    street: Street, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(core: object) -> object:
        raise ModelError("the network cannot be converted to float16: no reason")

    monkeypatch.setattr(module, "halved", broken)
    with pytest.raises(GateRefusedError, match="is written, but fp16 cannot be made: the network cannot be converted"):
        export(street, tmp_path / "a", precisions=("fp16",), reference_limit=2)
    with Segmenter.load(tmp_path / "a") as segmenter:
        assert segmenter.artifact.variants() == (("dense", "fp32"), ("sparse", "fp32"))


def test_only_a_class_beyond_its_margin_is_worth_another_block() -> None:
    """By hand: few images, an allowed class, a pass; then one that failed for its interval."""
    few = verdict_of("few", (-0.02, -0.01), images=3)
    allowed = verdict_of("allowed", (-0.02, 0.01))
    fine = verdict_of("fine", (-0.001, 0.001))
    failed = verdict_of("failed", (-0.02, -0.01))
    worse = verdict_of("worse", (-0.04, 0.01))
    report = SimpleNamespace(classes=(few, allowed, fine))
    assert mendable_class(report, ("allowed",)) is None
    assert mendable_class(SimpleNamespace(classes=(few, allowed, fine, failed, worse)), ("allowed",)) == "worse"


def verdict_of(name: str, interval: tuple[float, float], images: int = 50) -> ClassVerdict:
    return judge(NON_INFERIORITY, ClassFigures(name, False, 0.5, 0.5 + sum(interval) / 2, interval, images, 10_000))
