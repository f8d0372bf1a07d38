"""The commands on a tiny run: what they write, what they print, and with which exit code they end."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from cli_data import DATA
from PIL import Image

from dropclass_deploy.cli.app import app
from dropclass_deploy.cli.console import ConsoleReporter
from dropclass_deploy.data.registry import open_dataset

COMMANDS = (
    "demo",
    "train",
    "evaluate",
    "export",
    "verify",
    "bench",
    "predict",
    "probe",
    "analyze",
    "check-data",
    "auto",
    "engine",
    "serve",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(dropclass, command: str) -> None:
    result = dropclass(command, "--help")
    assert result.code == 0
    assert f"Example: dropclass {command}" in " ".join(result.out.split())


def test_every_registered_command_is_tested_here() -> None:
    assert {command.name or command.callback.__name__ for command in app.registered_commands} == set(COMMANDS)


def test_version_and_help_of_the_command_itself(dropclass) -> None:
    assert dropclass("--version").out.startswith("dropclass 0.")
    assert all(command in dropclass("--help").out for command in COMMANDS)


@pytest.mark.parametrize("arguments", [[], ["--debug"]])
def test_no_arguments_print_the_help_as_it_is(dropclass, arguments: list[str]) -> None:
    result = dropclass(*arguments)
    assert (result.code, result.err) == (0, "")
    assert result.out == dropclass("--help").out
    assert len(result.out.splitlines()) > 10


def test_each_phase_is_told_when_it_starts_off_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with ConsoleReporter().phase("tracing [bold] the network") as advance:
        assert capfd.readouterr().err == "tracing [bold] the network …\n"
        advance(2, 2)
    assert capfd.readouterr().err == "tracing [bold] the network: 2/2 after 0 s\n"


def test_a_silent_phase_says_that_it_is_at_work(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dropclass_deploy.cli.console._SILENCE_S", 0.05)
    with ConsoleReporter().phase("tracing the network"):
        time.sleep(0.3)
    told = capfd.readouterr().err
    assert "tracing the network: at work for 0 s" in told
    time.sleep(0.2)
    assert capfd.readouterr().err == ""  # and falls silent with the phase


@pytest.mark.parametrize("spelling", ["--licence", "--license"])
def test_author_and_licence_go_into_the_artifact(dropclass, trained: Path, tmp_path: Path, spelling: str) -> None:
    folder = tmp_path / "signed"
    shape = ["--shape", "1x32x48", "--data", DATA]
    result = dropclass("export", trained, "-o", folder, "--author", "A. Author", spelling, "CC-BY-4.0", *shape)
    assert result.code == 0, result.err
    provenance = json.loads((folder / "manifest.json").read_text())["provenance"]
    assert (provenance["author"], provenance["licence"]) == ("A. Author", "CC-BY-4.0")
    assert "CC-BY-4.0" in (folder / "LICENSE").read_text()


def test_train_prints_one_json_object(dropclass, recipe: Path, tmp_path: Path) -> None:
    result = dropclass("train", recipe, "-o", tmp_path / "run", "--set", "method.name=ce", "--json")
    assert result.code == 0
    assert set(result.json) == {"run", "evaluation"}
    assert set(result.json["evaluation"]["heads"]) == {"plain"}


def test_evaluating_run_and_artifact_gives_the_same_figures(dropclass, trained: Path, artifact: Path) -> None:
    run = dropclass("evaluate", trained, "--data", DATA, "--json").json
    exported = dropclass("evaluate", artifact, "--data", DATA, "--json").json
    assert set(run["heads"]) == {"plain", "folded"}
    stored = json.loads((trained / "evaluation.json").read_text())
    assert run["heads"]["plain"] == stored["heads"]["plain"]
    # ONNX Runtime and torch may differ on near ties of the logits; the gate allows 1e-4 of the pixels.
    assert exported["heads"]["artifact"]["miou"] == pytest.approx(run["heads"]["plain"]["miou"], abs=1e-3)


def test_evaluate_prints_a_table_with_every_class(dropclass, artifact: Path) -> None:
    result = dropclass("evaluate", artifact, "--data", DATA, "--split", "unbiased")
    assert result.code == 0
    assert all(name in result.out for name in open_dataset(DATA, "val").classes.names)
    assert "rare mIoU" in result.out


def test_evaluate_ranks_the_pixels_of_any_split(dropclass, trained: Path) -> None:
    command = ("evaluate", trained, "--data", DATA, "--split", "train", "--average-precision")
    head = dropclass(*command, "--json").json["heads"]["plain"]
    values = [row["ap"] for row in head["ap"] if row["ap"] is not None]
    assert [row["name"] for row in head["ap"]] == [row["name"] for row in head["classes"]]
    assert head["map"] == pytest.approx(sum(values) / len(values))
    assert head["wgap"] == min(values)
    printed = dropclass(*command).out
    assert f"WGAP {100 * head['wgap']:.2f} ({head['wgap_class']})" in printed


def test_verify_passes_and_writes_the_evidence(dropclass, artifact: Path) -> None:
    result = dropclass("verify", artifact, "--data", DATA, "--json")
    assert result.code == 0
    stored = json.loads((artifact / "evidence" / "parity.json").read_text())
    assert stored == result.json
    assert stored["verdict"] == "pass"
    assert stored["pixel_disagreement"] <= 1e-4
    assert [row["name"] for row in stored["classes"]] == list(open_dataset(DATA, "val").classes.names)


def test_verify_runs_the_network_for_images_without_stored_masks(dropclass, artifact: Path) -> None:
    result = dropclass("verify", artifact, "--data", DATA, "--split", "unbiased", "--json")
    assert result.code == 0
    assert "running the PyTorch network" in result.err


def test_a_sabotaged_file_is_refused_with_exit_code_3_and_names_the_class(
    dropclass, artifact: Path, tmp_path: Path
) -> None:
    rows = dropclass("evaluate", artifact, "--data", DATA, "--json").json["heads"]["artifact"]["classes"]
    killed = max(range(len(rows)), key=lambda index: rows[index]["iou"] or 0.0)
    model = onnx.load(artifact / "models" / "model.onnx")
    biases = [item for item in model.graph.initializer if item.name.endswith("classifier.bias")]
    values = onnx.numpy_helper.to_array(biases[0]).copy()
    values[killed] -= 100.0  # never predicted again
    biases[0].CopyFrom(onnx.numpy_helper.from_array(values, biases[0].name))
    onnx.save(model, tmp_path / "bad.onnx")
    result = dropclass(
        "verify",
        "--reference",
        artifact / "models" / "model.onnx",
        "--candidate",
        tmp_path / "bad.onnx",
        "--data",
        DATA,
    )
    assert result.code == 3
    assert "verdict fail" in result.err
    assert rows[killed]["name"] in result.err
    assert "Traceback" not in result.err


def test_two_equal_files_pass(dropclass, artifact: Path) -> None:
    file = artifact / "models" / "model.onnx"
    result = dropclass("verify", "--reference", file, "--candidate", file, "--data", DATA, "--json")
    assert result.code == 0
    assert result.json["pixel_disagreement"] == 0.0


def test_bench_times_three_scopes_of_three_contenders(dropclass, artifact: Path, tmp_path: Path) -> None:
    result = dropclass("bench", artifact, "--queries", 3, "--warmup", 1, "-o", tmp_path / "bench.json", "--json")
    assert result.code == 0
    assert json.loads((tmp_path / "bench.json").read_text()) == result.json
    rows = {(row["contender"], row["scope"]) for row in result.json["results"]}
    assert {scope for _, scope in rows} == {"model", "transfer", "end_to_end"}
    assert len(rows) == 9
    assert all(row["latency_ms"]["p99"] is None for row in result.json["results"])  # 3 queries support no p99
    assert {ratio["against"] for ratio in result.json["ratios"]} == {name for name, _ in rows} - {"ours"}


def test_bench_without_peers(dropclass, artifact: Path, tmp_path: Path) -> None:
    result = dropclass(
        "bench", artifact, "--queries", 2, "--warmup", 0, "--no-peers", "-o", tmp_path / "b.json", "--json"
    )
    assert {row["contender"] for row in result.json["results"]} == {"ours"}


def test_predict_writes_ids_at_source_size(dropclass, artifact: Path, tmp_path: Path) -> None:
    image = open_dataset(DATA, "val").image(0)
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(image).resize((77, 51)).save(tmp_path / "b.jpg")
    result = dropclass("predict", artifact, tmp_path / "a.png", tmp_path / "b.jpg", "-o", tmp_path / "out", "--overlay")
    assert result.code == 0
    mask = np.asarray(Image.open(tmp_path / "out" / "b.png"))
    assert mask.shape == (51, 77)
    assert mask.dtype == np.uint8
    assert mask.max() < 12
    with Image.open(tmp_path / "out" / "a.overlay.png") as overlay:
        assert overlay.size == (48, 32)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "a.overlay.png", "b.png", "b.overlay.png"}


def test_the_folded_head_can_be_exported_and_verified(dropclass, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folded"
    assert dropclass("export", trained, "-o", folder, "--head", "folded", "--shape", "1x32x48").code == 0
    assert json.loads((folder / "manifest.json").read_text())["deploy_head"] == "folded"
    shutil.rmtree(folder / "evidence", ignore_errors=True)
    assert dropclass("verify", folder, "--data", DATA, "--split", "unbiased", "--json").json["verdict"] == "pass"


@pytest.mark.slow
def test_the_demo_ends_with_verdict_pass(
    dropclass, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The whole job on a recipe of four steps; `make demo` runs the real one.
    monkeypatch.setattr("dropclass_deploy.cli.demo.RECIPE", recipe)
    result = dropclass("demo", "-o", tmp_path / "demo")
    assert result.code == 0, result.err
    assert "verdict: pass" in result.out
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "cyclist" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert (tmp_path / "demo" / "run" / "evaluation.json").is_file()
    assert (tmp_path / "demo" / "artifact" / "evidence" / "bench.json").is_file()
    again = dropclass("demo", "-o", tmp_path / "demo")
    assert "exists already" in again.mistake()
