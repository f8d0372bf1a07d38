"""Lower precisions of a whole artifact: through the gate, or not there; and the fastest that passes, chosen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from trained_street import DATA, Street, street_classes

from dropclass_deploy.cli.app import REFUSED, run
from dropclass_deploy.core.errors import DataError, GateRefusedError, UserError
from dropclass_deploy.core.manifest import check_files, read_manifest
from dropclass_deploy.core.model_files import model_file
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.export import ExportOptions, export_artifact
from dropclass_deploy.export.quantise import precisions as module
from dropclass_deploy.serving import Segmenter
from dropclass_deploy.serving.auto import Configuration
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
def test_what_is_shipped_passed_the_gate_and_is_what_its_name_says(artifact: Path) -> None:
    lower = [name for name in ("fp16", "int8", "mixed") if (artifact / model_file("dense", name)).exists()]
    assert lower[0] == "fp16"
    assert len(lower) == 2
    for precision in lower:
        assert read_precision(artifact / model_file("dense", precision)) == precision
        reports = list((artifact / "evidence").glob(f"parity.{precision}.dense.*.json"))
        assert [json.loads(path.read_text())["verdict"] for path in reports] == ["pass"]
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
    assert shipped or "mixed is left out, verdict" in refusal


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
        twin = module.copied(core)
        for tensor in twin.graph.initializer:
            if tensor.name.endswith("classifier.weight"):
                values = np.frombuffer(tensor.raw_data, np.float32)
                tensor.raw_data = np.roll(values, values.size // 3).tobytes()
        return real(twin)

    real = module.halved
    monkeypatch.setattr(module, "copied", __import__("copy").deepcopy, raising=False)
    monkeypatch.setattr(module, "halved", spoiled)
    with pytest.raises(GateRefusedError, match=r"fp16 is left out, verdict fail: \w+: the 95 % interval"):
        export(street, tmp_path / "a", precisions=("fp32", "fp16"))
    assert not list((tmp_path / "a" / "models").glob("*fp16*"))
    assert json.loads((tmp_path / "a/evidence/parity.fp16.dense.onnxruntime.json").read_text())["verdict"] == "fail"
    assert run(["verify", str(tmp_path / "a"), "--data", VAL]) == 0
    assert run(["verify", str(tmp_path / "a"), "--data", VAL, "--precision", "fp16"]) != REFUSED
