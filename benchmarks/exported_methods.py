"""Every method's network exported and held against its reference, class by class.

    python benchmarks/evidence.py methods --data methods=camvid:PATH --keep-runs --runs RUNS
    python benchmarks/exported_methods.py RUNS --data camvid:PATH --output benchmarks/results/exported_methods.json

For each finished run below RUNS: ``dropclass export``, then ``dropclass verify`` on the split, in processes of their own.
What is trained beside a network must have left no trace in what ships: the logits' classes are the data's.
Exit codes: 0 all pass, 3 a verdict that is not "pass", 1 a command that failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx
from code_version import code

FAILED, REFUSED = 1, 3
COMMAND = [sys.executable, "-m", "dropclass_deploy"]


def runs_below(folder: Path) -> list[Path]:
    """Finished runs, by name."""
    return sorted(path.parent for path in folder.rglob("model.json") if (path.parent / "recipe.yaml").is_file())


def exported(run: Path, data: str, split: str) -> dict[str, Any]:
    """What became of one run.

    Raises:
        subprocess.CalledProcessError: when a command fails otherwise than by its verdict.
    """
    recipe = json.loads((run / "model.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder) / "artifact"
        _json_of(["export", str(run), "-o", str(artifact), "--json"])
        parity = _json_of(["verify", str(artifact), "--data", data, "--split", split, "--json"])
        graph = onnx.load(artifact / "models" / "model.onnx").graph
        outputs = graph.output[0].type.tensor_type.shape.dim[1].dim_value
    deltas = [abs(row["delta"]) for row in parity["classes"] if row["delta"] is not None]
    return {
        "setting": run.parent.name,
        "method": recipe["method"],
        "verdict": parity["verdict"],
        "pixel_disagreement": parity["pixel_disagreement"],
        "largest_class_delta": max(deltas),
        "outputs": outputs,
        "classes": recipe["num_classes"],
    }


def _json_of(arguments: list[str]) -> dict[str, Any]:
    done = subprocess.run([*COMMAND, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, REFUSED):
        raise subprocess.CalledProcessError(done.returncode, arguments)
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def main() -> int:
    """Export all, print and write; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--data", required=True, metavar="FORMAT:PATH")
    parser.add_argument("--split", default="val")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    rows = []
    for run in runs_below(given.runs):
        rows.append(exported(run, given.data, given.split))
        print(json.dumps(rows[-1]), flush=True)
    report = {"command": "python benchmarks/exported_methods.py", "code": code(), "runs": rows}
    if given.output:
        given.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    good = all(row["verdict"] == "pass" and row["outputs"] == row["classes"] for row in rows)
    return 0 if rows and good else REFUSED


if __name__ == "__main__":
    sys.exit(main())
