"""The benchmark around the engines: what is recorded of one that fails, and how the table reads."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from portability_engines.isolation import ERROR, _run, ask
from portability_engines.outcome import compare, one_line

COMMAND = Path(__file__).parents[2] / "benchmarks" / "portability.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(COMMAND), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_file_that_is_no_network_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no network")
    answer = ask("onnxruntime", tmp_path / "model.onnx", np.zeros((1, 8, 8, 3), np.uint8))
    assert (answer.kind, answer.mask) == (ERROR, None)
    assert "INVALID_PROTOBUF" in answer.text
    assert str(tmp_path) not in answer.text


def test_a_hang_ends_at_the_limit(small: SimpleNamespace) -> None:
    answer = ask("onnxruntime", small.dynamic / "models/model.mask.onnx", small.images, timeout_s=0.01)
    assert (answer.kind, answer.text) == (ERROR, "no answer within 0.01 s")


def test_a_crash_and_a_hunger_for_memory_stay_inside() -> None:
    assert _run([sys.executable, "-c", "import os; os.kill(os.getpid(), 11)"], 20) == (-11, "")
    # 64 GiB, written to, would bring a small machine down
    code, _ = _run([sys.executable, "-c", "bytearray(64 * 2**30)"], 20)
    assert code == 1


def test_an_error_is_told_without_the_machines_folders() -> None:
    assert one_line(ValueError("cannot\n read /home/me/a b.onnx")) == "ValueError: cannot read a b.onnx"
    assert one_line("see https://example.org/x for more") == "see  for more"
    assert len(one_line("x" * 999)) == 240


def test_masks_are_compared_as_ids() -> None:
    ids = np.array([[[0, 1], [2, 3]]], np.uint8)
    assert compare(ids, np.array([[[0.0, 1.0], [2.0, 2.0]]], np.float32)) == 1
    with pytest.raises(ValueError, match=r"the mask has shape \(2, 2\), expected \(1, 2, 2\)"):
        compare(ids, ids[0])


def test_the_command_writes_json_and_prints_the_table(small: SimpleNamespace, tmp_path: Path) -> None:
    output = tmp_path / "portability.json"
    done = run(small.dynamic, "--engine", "onnxruntime", "--engine", "opencv", "--output", output)
    assert done.returncode == 0, done.stderr
    report = json.loads(output.read_text(encoding="utf-8"))
    rows = {row["engine"]: row for row in report["artifacts"][0]["results"]}
    assert (rows["onnxruntime"]["status"], rows["onnxruntime"]["works"]) == ("same", True)
    assert rows["onnxruntime"]["pixels"] == 192 * 256  # the drawn sample
    assert (rows["opencv"]["status"], rows["opencv"]["works"]) == ("error", False)
    assert all(re.fullmatch(r"[\d.]+", row["version"]) for row in rows.values())
    table = run("--markdown", output).stdout
    assert table == done.stdout
    assert "| onnxruntime | " in table
    assert "| no: stops at `" in table


def test_a_folder_that_is_no_artifact_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 2
    assert "is not an artifact: it has no manifest.json" in done.stderr
