"""Run folders with random weights, for the built-in street, as a training leaves them."""

from __future__ import annotations

from pathlib import Path

import torch

from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.models import build_model
from dropclass_deploy.training import load_recipe
from dropclass_deploy.training.methods import build_method
from dropclass_deploy.training.runs.run import save_network, write_model_json

DATA = "synthetic:size=32x48,train=4,val=5,unbiased=2"
CLASSES = open_dataset(DATA, "val").classes.with_rare_from([900, 800, 700, 600, 500, 400, 90, 80, 70, 60, 50, 40])
RECIPE = """\
data: "{data}"
model: {{name: {model}, options: {options}}}
method: {{name: {method}, with: []}}
train: {{steps: 7, seed: {seed}}}
export: {{deploy_head: {head}}}
"""


def write_run(
    folder: Path,
    *,
    method: str = "ce",
    head: str = "plain",
    seed: int = 0,
    preprocess: Preprocess | None = None,
    model: str = "unet",
    width: int = 4,
) -> Path:
    """A small network for images of the street whose weights are random: what it says is noise, and repeatable."""
    folder.mkdir(parents=True)
    options = {"unet": {"width": width, "depth": 2}, "lite0": {"width": width}}.get(model, {})
    text = RECIPE.format(data=DATA, model=model, options=options, method=method, seed=seed, head=head)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    recipe = load_recipe(folder / "recipe.yaml")
    torch.manual_seed(seed)
    network = build_model(model, len(CLASSES), **options)
    save_network(folder, build_method(network, recipe.method, None, (32, 48)))
    facts = {"method": method, "seed": seed, "steps": 7, "recipe_sha256": recipe.digest()}
    content = {"name": model, "options": options, "num_classes": len(CLASSES), **facts}
    content |= {"class_pixels": [900, 800, 700, 600, 500, 400, 90, 80, 70, 60, 50, 40], "probe_size": [32, 48]}
    content |= {"classes": CLASSES.model_dump(mode="json")}
    content |= {"preprocess": (preprocess or Preprocess()).model_dump(mode="json")}
    write_model_json(folder, content)
    return folder
