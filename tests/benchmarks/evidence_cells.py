"""A checkout with a tiny grid, and stored cells written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from evidence_grid.plan import Cell, Plan
from evidence_grid.reading import load_plan
from evidence_grid.root import Root

RECIPE: dict[str, Any] = {
    "data": "synthetic:size=32x32,train=8,val=4,unbiased=4",
    "model": {"name": "unet", "options": {"width": 4, "depth": 2}},
    "train": {"steps": 6, "batch_size": 2, "crop": [32, 32], "log_every": 1, "validate_every": 3, "lr": 1e-3},
}
PLAN: dict[str, Any] = {
    "settings": {
        "ce": {"method.name": "ce"},
        "dropclass λ1 α10": {"method.name": "dropclass", "method.lambda_max": 1, "method.alpha": 10},
    },
    "grids": {
        "tiny": {
            "recipe": "recipe.yaml",
            "set": {"train.ema": 0.5},
            "evaluate": [{"split": "val"}, {"split": "unbiased"}],
            "settings": ["ce", "dropclass λ1 α10"],
            "seeds": [0, 1, 2],
        }
    },
}


def checkout(folder: Path, plan: dict[str, Any] = PLAN, recipe: dict[str, Any] = RECIPE) -> Root:
    """A root with a plan, a recipe and documents without markers."""
    root = Root(folder)
    root.plan.parent.mkdir(parents=True, exist_ok=True)
    root.plan.write_text(yaml.safe_dump(plan, allow_unicode=True, sort_keys=False), encoding="utf-8")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    for path in root.documents:
        path.parent.mkdir(exist_ok=True)
        path.write_text("# Title\n", encoding="utf-8")
    return root


def plan_of(root: Root) -> Plan:
    return load_plan(root.plan, root.folder)


def changed(**grid: Any) -> dict[str, Any]:
    """The plan with keys of its grid changed; None takes one away."""
    content = {**PLAN["grids"]["tiny"], **grid}
    return {**PLAN, "grids": {"tiny": {key: value for key, value in content.items() if value is not None}}}


def head(miou: float, rare: float, sky: float | None, pole: float) -> dict[str, Any]:
    rows = [("sky", sky, 900, False), ("pole", pole, 100, True)]
    return {
        "miou": miou,
        "rare_miou": rare,
        "pixel_accuracy": 0.9,
        "classes": [
            {"name": name, "iou": iou, "precision": iou, "recall": iou, "pixels": pixels, "rare": is_rare}
            for name, iou, pixels, is_rare in rows
        ],
    }


def stored(
    cell: Cell, plain: dict[str, Any], folded: dict[str, Any] | None = None, wall_s: float = 60
) -> dict[str, Any]:
    """A cell's JSON with the same figures on every split."""
    heads = {"plain": plain} | ({} if folded is None else {"folded": folded})
    return {
        "grid": cell.grid.name,
        "setting": cell.setting,
        "seed": cell.seed,
        "recipe_sha256": cell.digest(),
        "data": "synthetic:",
        "code": {"version": "1", "commit": None, "dirty": None},
        "versions": {"torch": "2"},
        "device": "none such",
        "threads": 1,
        "wall_s": wall_s,
        "splits": dict.fromkeys(cell.grid.splits, heads),
        "frequency": [0.25, 0.75],
        "correlation": None if cell.setting == "ce" else {"signed": [0.5, -0.25], "absolute": [1.5, 1.25]},
        "curve": [
            {"step": 3, "miou": plain["miou"] / 2, "rare_miou": None},
            {"step": 6, "miou": plain["miou"], "rare_miou": 0},
        ],
    }


def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A shell script in the children's place."""
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!/bin/sh\n{script}\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(interpreter))
