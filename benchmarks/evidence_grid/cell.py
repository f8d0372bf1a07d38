"""One cell: train (or go on with) its run, evaluate both deploy heads, and gather what a table needs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from dropclass_deploy.core.errors import ModelError, RecipeError
from dropclass_deploy.core.files import write_json
from dropclass_deploy.core.metrics import scores_json
from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.training import LoadedRun, Recipe, evaluate_network, load_recipe, load_run, train
from dropclass_deploy.training.dropclass import find_classifier
from dropclass_deploy.training.methods import probe_example
from dropclass_deploy.training.records.journal import read_journal
from dropclass_deploy.training.runs.checkpoint import checkpoint_folders
from dropclass_deploy.training.runs.run import METRICS, MODEL_JSON, RECIPE
from evidence_grid import provenance
from evidence_grid.job import Job
from evidence_grid.plan import data_identity, digest
from evidence_grid.store import Stored, rounded

COMMAND = "python benchmarks/evidence.py"


def run_cell(job: Job, folder: Path, reporter: Reporter) -> Stored:
    """Train a cell into a run folder, going on where it was broken off, and evaluate it.

    Args:
        job: what.
        folder: of the run; what another recipe left there is replaced.

    Returns:
        What is stored of the cell, as JSON values. Figures of heads are fractions, ``wall_s`` is summed over the parts.

    Raises:
        TrainingInterruptedError: after a signal, with the state saved: call again.
        UserError: for a recipe or data that do not fit.
    """
    # Now: a file that changes while the cell trains is not what it runs.
    code = provenance.code()
    recipe = job.recipe()
    device = recipe.train.device
    resume = can_resume(folder, recipe)
    if not resume:
        wall_file(folder).unlink(missing_ok=True)
    with _clocked(folder):
        train(recipe, folder, resume=resume, overwrite=not resume, reporter=reporter)
    with _clocked(folder):
        run = load_run(folder)
        splits = {split: _heads(run, split, device, reporter) for split in job.splits}
        correlation = _correlation(run)
    pixels = run.model_json["class_pixels"]
    return {
        "grid": job.grid,
        "setting": job.setting,
        "seed": job.seed,
        "overrides": job.overrides,
        "recipe_sha256": digest(recipe),
        "data": data_identity(recipe.data),
        "code": code,
        "versions": provenance.versions(),
        "device": provenance.device_name(device),
        "threads": torch.get_num_threads(),
        "wall_s": round(spent_s(folder), 1),
        "command": command_of(job, recipe),
        "steps": recipe.train.steps,
        "splits": rounded(splits),
        "frequency": rounded([count / max(1, sum(pixels)) for count in pixels]),
        "correlation": rounded(correlation),
        "curve": rounded(_curve(folder)),
    }


def command_of(job: Job, recipe: Recipe) -> str:
    """That repeats the cell; where the data lie is everybody's own."""
    form = data_identity(recipe.data)
    return f"{COMMAND} --cell {job.key}" + ("" if ":" in form else f" --data {job.grid}={form}:PATH")


def can_resume(folder: Path, recipe: Recipe) -> bool:
    """Whether the folder holds this very run, begun or complete."""
    try:
        return (folder / RECIPE).is_file() and load_recipe(folder).digest() == recipe.digest()
    except RecipeError:
        return False  # of another version of the package


def share_left(folder: Path, recipe: Recipe) -> float:
    """The part of a run's steps that is still to come: 1 for one that has not begun."""
    if not can_resume(folder, recipe):
        return 1.0
    if (folder / MODEL_JSON).is_file():
        return 0.0
    newest = next(iter(checkpoint_folders(folder)), None)
    return 1.0 if newest is None else 1 - int(newest.name.partition("-")[2]) / recipe.train.steps


def wall_file(folder: Path) -> Path:
    """Beside a run folder: the seconds that its parts took."""
    return folder.with_name(f"{folder.name}.wall.json")


def spent_s(folder: Path) -> float:
    """Seconds that the parts of a run took so far; those of a part that was killed outright are not known."""
    path = wall_file(folder)
    return float(json.loads(path.read_text(encoding="utf-8"))["wall_s"]) if path.is_file() else 0.0


@contextmanager
def _clocked(folder: Path) -> Iterator[None]:
    """Add the time of the block to a run's wall file, however the block ends."""
    before, began = spent_s(folder), time.perf_counter()
    try:
        yield
    finally:
        write_json(wall_file(folder), {"wall_s": before + time.perf_counter() - began})


def _heads(run: LoadedRun, split: str, device: str, reporter: Reporter) -> dict[str, Any]:
    """Figures by deploy head; those of the validation split stand in the run already."""
    if run.evaluation is not None and split == run.recipe.splits.val:
        return {head: _figures(content) for head, content in run.evaluation["heads"].items()}
    dataset = open_dataset(run.data, split)
    run.classes.check_same(dataset.classes, f"the run {run.path}", dataset.spec)
    target = provenance.torch_device(device)
    heads = {}
    for head, network in {"plain": run.model, "folded": run.folded}.items():
        if network is None:
            continue
        with reporter.phase(f"evaluating the {head} head on {split}") as advance:
            result = evaluate_network(
                network.to(target), dataset, run.preprocess, device=target, rare=run.classes.rare, advance=advance
            )
        heads[head] = _figures(scores_json(result, run.classes))
    return heads


def _figures(scores: dict[str, Any]) -> dict[str, Any]:
    return {key: scores[key] for key in ("miou", "rare_miou", "pixel_accuracy", "classes")}


def _correlation(run: LoadedRun) -> dict[str, list[float]] | None:
    """How alike the classes' weight vectors are: row sums of their cosine similarities, the diagonal left out.

    Of the plain network's classifier (C, K, kh, kw), a vector of K·kh·kw a class; null when it has no linear one.
    """
    model = run.model.cpu()
    try:
        height, width = run.model_json.get("probe_size", (64, 64))
        path = run.model_json.get("classifier") if run.recipe.method.name != "ce+block" else None
        found = find_classifier(model, path, probe_example(model, (height, width)))
    except ModelError:
        return None
    if not found.linear:
        return None
    weight = model.get_submodule(found.path).weight
    assert isinstance(weight, torch.Tensor)
    return off_diagonal_sums(weight)


def off_diagonal_sums(weight: torch.Tensor) -> dict[str, list[float]]:
    """Signed and absolute row sums of the cosine similarities of weight (C, …), without each class's own 1."""
    vectors = F.normalize(weight.detach().flatten(1).double(), dim=1)  # (C, K·kh·kw)
    cosine = vectors @ vectors.T
    cosine.fill_diagonal_(0)
    return {"signed": cosine.sum(1).tolist(), "absolute": cosine.abs().sum(1).tolist()}


def _curve(folder: Path) -> list[dict[str, Any]]:
    lines = {line["step"]: line for line in read_journal(folder / METRICS) if line.get("kind") == "val"}
    return [{key: lines[step][key] for key in ("step", "miou", "rare_miou")} for step in sorted(lines)]
