"""How much leaves with a class: the channel gate of a trained network with class z dropped, against the gate of all classes.

DropClass (arXiv 2111.00531) drops z by taking its part out of a mean over classes: for features that are never negative,
A ⊙ mean over the kept c of ReLU(W_c). Where that gate hardly changes, the branch still sees z, whatever its loss says.

    python benchmarks/gate_change.py runs/camvid-dropclass --output benchmarks/results/camvid_gate_change.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from dropclass_deploy.training import load_run
from dropclass_deploy.training.dropclass import find_classifier
from dropclass_deploy.training.dropclass.gate import channel_gates


def changes(weight: torch.Tensor, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """A row a class, of the classifier's weight (C, K, 1, 1): ‖g − g_z‖ ÷ ‖g‖, and the cosine between g and g_z."""
    whole, _ = channel_gates(weight, None, "kept")
    rows = []
    for z, name in enumerate(names):
        gate, _ = channel_gates(weight, z, "kept")
        change = (gate - whole).norm() / whole.norm()
        cosine = F.cosine_similarity(gate.flatten(), whole.flatten(), dim=0)
        rows.append({"class": name, "relative_change": round(change.item(), 4), "cosine": round(cosine.item(), 4)})
    return rows


def main() -> None:
    """Measure, store, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    run = load_run(arguments.run)
    weight = run.model.get_submodule(find_classifier(run.model).path).weight
    assert isinstance(weight, torch.Tensor)
    rows = changes(weight.detach().double(), run.classes.names)
    facts = {key: run.model_json[key] for key in ("method", "seed", "steps", "recipe_sha256", "versions")}
    arguments.output.write_text(json.dumps({**facts, "classes": rows}, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(f"{row['class']:12s} {100 * row['relative_change']:5.1f} %  cosine {row['cosine']:.3f}")


if __name__ == "__main__":
    main()
