"""One cell: train (or go on with) its run, evaluate both deploy heads, and gather what a table needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dropclass_deploy.analysis.correlation import off_diagonal_sums, weight_cosines
from dropclass_deploy.core.errors import ModelError, RecipeError, RunError, UserError
from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.data import Dataset
from dropclass_deploy.training import LoadedRun, Recipe, evaluate_heads, load_recipe, load_run, train
from dropclass_deploy.training.dropclass import find_classifier
from dropclass_deploy.training.methods import probe_example
from dropclass_deploy.training.records.journal import read_journal
from dropclass_deploy.training.runs.checkpoint import checkpoint_folders
from dropclass_deploy.training.runs.run import LOCK, METRICS, MODEL_JSON, RECIPE
from evidence_grid import data_facts, parts, provenance
from evidence_grid.job import Job
from evidence_grid.plan import data_identity, with_data
from evidence_grid.same_recipe import recipe_facts
from evidence_grid.store import Stored, rounded

COMMAND = "python benchmarks/evidence.py"


def run_cell(job: Job, folder: Path, reporter: Reporter) -> Stored:
    """Train a cell into a run folder, going on where it was broken off, and evaluate it.

    Args:
        job: what.
        folder: of the run; what another recipe, code or kind of device left there is replaced.

    Returns:
        What is stored of the cell, as JSON values. Figures of heads are fractions, ``wall_s`` is summed over the parts;
        code, versions, device and threads are the last part's.

    Raises:
        TrainingInterruptedError: after a signal, with the state saved: call again.
        UserError: for a recipe or data that do not fit.
    """
    # Now: a file that changes while the cell trains is not what it runs.
    recipe = job.recipe()
    made = provenance.made(recipe.train.device)
    resume = can_resume(folder, recipe, made)
    if not resume:
        # First, so that what is left of another run is never taken for a part of this one.
        (folder / RECIPE).unlink(missing_ok=True)
        parts.forget(folder)
    parts.begin(folder, made, steps_done(folder, recipe) if resume else 0)
    with parts.clocked(folder):
        _train(recipe, folder, resume, reporter)
    with parts.clocked(folder):
        run = load_run(folder)
        opened = data_facts.open_splits(recipe, job.splits)
        figures = {
            "splits": rounded({split: _heads(run, opened[split], reporter) for split in job.splits}),
            "frequency": rounded(_shares(run.model_json["class_pixels"])),
            "correlation": rounded(_correlation(run)),
            "curve": rounded(_curve(folder)),
            "data_facts": data_facts.of_run(run.model_json, opened),
        }
    return {**_head(job, recipe), **made, **parts.stored(folder, recipe.train.steps), **figures}


def _head(job: Job, recipe: Recipe) -> Stored:
    identity = with_data(recipe, data_identity)
    return {
        "grid": job.grid,
        "setting": job.setting,
        "seed": job.seed,
        "overrides": job.overrides,
        "recipe_sha256": identity.digest(),
        **recipe_facts(identity),
        "data": identity.data,
        "command": command_of(job, recipe),
        "steps": recipe.train.steps,
    }


def _train(recipe: Recipe, folder: Path, resume: bool, reporter: Reporter) -> None:
    try:
        train(recipe, folder, resume=resume, overwrite=not resume, reporter=reporter)
    except UserError as error:
        # Data and recipe are not the folder's fault, and with a lock another training is at work in it.
        if type(error) not in (UserError, RunError) or (folder / LOCK).exists() or not folder.exists():
            raise
        raise RunError(f"{folder} cannot be gone on with ({error.found})", remedy="remove it to start anew") from error


def command_of(job: Job, recipe: Recipe) -> str:
    """That repeats the cell; where the data lie is everybody's own."""
    form = data_identity(recipe.data)
    return f"{COMMAND} --cell {job.key}" + ("" if ":" in form else f" --data {job.grid}={form}:PATH")


def can_resume(folder: Path, recipe: Recipe, made: parts.Made) -> bool:
    """Whether the folder holds this very run, begun or complete, by the same code and kind of device."""
    try:
        same = (folder / RECIPE).is_file() and load_recipe(folder).digest() == recipe.digest()
        return same and parts.same_maker(folder, made)
    except RecipeError:
        return False  # of another version of the package


def share_left(folder: Path, recipe: Recipe, made: parts.Made) -> float:
    """The part of a run's steps that is still to come: 1 for one that has not begun."""
    return 1 - steps_done(folder, recipe) / recipe.train.steps if can_resume(folder, recipe, made) else 1.0


def steps_done(folder: Path, recipe: Recipe) -> int:
    """Up to the newest checkpoint of a run, or all."""
    if (folder / MODEL_JSON).is_file():
        return recipe.train.steps
    newest = next(iter(checkpoint_folders(folder)), None)
    return 0 if newest is None else int(newest.name.partition("-")[2])


def _heads(run: LoadedRun, dataset: Dataset, reporter: Reporter) -> dict[str, Any]:
    """Figures by deploy head; those of the validation split stand in the run already."""
    if run.evaluation is not None and dataset.split == run.recipe.splits.val:
        return {head: _figures(content) for head, content in run.evaluation["heads"].items()}
    target = provenance.torch_device(run.recipe.train.device)
    scores = evaluate_heads(run, dataset, reporter, device=target, where=f" on {dataset.split}")
    return {head: _figures(content) for head, content in scores.items()}


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
    signed, absolute = off_diagonal_sums(weight_cosines(weight))
    return {"signed": signed.tolist(), "absolute": absolute.tolist()}


def _shares(pixels: list[int]) -> list[float]:
    return [count / max(1, sum(pixels)) for count in pixels]


def _curve(folder: Path) -> list[dict[str, Any]]:
    lines = {line["step"]: line for line in read_journal(folder / METRICS) if line.get("kind") == "val"}
    return [{key: lines[step][key] for key in ("step", "miou", "rare_miou")} for step in sorted(lines)]
