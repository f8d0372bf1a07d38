"""Gather finished runs into one JSON and print it as a Markdown table.

    python benchmarks/collect_runs.py runs/camvid-ce runs/camvid-ce+block runs/camvid-dropclass \
        --output benchmarks/results/camvid_methods.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml


def collect(run: Path) -> dict[str, Any]:
    """What a run measured, and what repeats it."""
    model = json.loads((run / "model.json").read_text(encoding="utf-8"))
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    return {
        "run": run.name,
        "method": model["method"],
        "seed": model["seed"],
        "steps": model["steps"],
        "data": recipe["data"].partition(":")[0],
        "recipe_sha256": model["recipe_sha256"],
        "recipe": {key: recipe[key] for key in ("model", "method", "train")},
        "versions": model["versions"],
        "split": evaluation["split"],
        "images": evaluation["images"],
        "heads": evaluation["heads"],
    }


def table(cells: list[dict[str, Any]]) -> str:
    """Method by head: mIoU, rare mIoU and the rare classes' IoU."""
    rare = [row["name"] for row in cells[0]["heads"]["plain"]["classes"] if row["rare"]]
    lines = [
        "| method | head | mIoU | rare mIoU | " + " | ".join(rare) + " |",
        "|---|---|---|---|" + "---|" * len(rare),
    ]
    for cell in cells:
        for head, figures in cell["heads"].items():
            iou = {row["name"]: row["iou"] for row in figures["classes"]}
            values = [figures["miou"], figures["rare_miou"], *(iou[name] for name in rare)]
            shown = " | ".join("–" if value is None else f"{100 * value:.1f}" for value in values)
            lines.append(f"| {cell['method']} | {head} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    """Collect, store, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    cells = [collect(run) for run in arguments.runs]
    arguments.output.write_text(json.dumps({"cells": cells}, indent=1) + "\n", encoding="utf-8")
    print(table(cells))


if __name__ == "__main__":
    main()
