"""The audit finds the link that is planted in the built-in street."""

from __future__ import annotations

from pathlib import Path

import pytest

from dropclass_deploy.analysis.co_location import CoLocationAudit, co_location_section, plan_audit
from dropclass_deploy.analysis.subject import open_subjects, sweep
from dropclass_deploy.core.progress import Silent
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.data.synthetic import CONTEXT_CLASS, PLANTED_CLASS
from dropclass_deploy.training import load_recipe, train

DATA = "synthetic:train=120,val=30"
RECIPE = f"""
data: "{DATA}"
model: {{name: "python:audit_cases:shallow"}}
method: {{name: ce, with: [median_frequency]}}
train: {{steps: 150, batch_size: 8, crop: [96, 128], scale: [1.0, 1.0], lr: 8.0e-3, seed: 0, validate_every: 150}}
"""


@pytest.mark.slow
@pytest.mark.chosen
def test_a_planted_rare_class_falls_most_without_its_context(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    train(load_recipe(recipe), tmp_path / "run", reporter=Silent())
    data = open_dataset(DATA, "val")
    (subject,) = open_subjects([tmp_path / "run"], data)
    plan = plan_audit(data, range(len(data)))
    audit = CoLocationAudit(subject, plan)
    sweep(subject, data, range(len(data)), [audit])
    content = co_location_section(plan, [audit.result()], data.classes).content

    planted, context = data.classes.names[PLANTED_CLASS], data.classes.names[CONTEXT_CLASS]
    assert content["baseline_iou"][PLANTED_CLASS] >= 0.3
    assert content["top3"][planted][0] == context
    first, second = sorted((drop for drop in content["drop"][PLANTED_CLASS] if drop is not None), reverse=True)[:2]
    assert first == content["drop"][PLANTED_CLASS][CONTEXT_CLASS]
    # Not by a hair: what comes next is the strangeness of any patch.
    assert first > 2 * second
    assert content["largest_drops"][0]["class"] == planted
