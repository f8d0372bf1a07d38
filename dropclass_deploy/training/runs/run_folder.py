"""The run folder before the first step: refused, resumed or made anew."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from dropclass_deploy.core.errors import RecipeError, RunError
from dropclass_deploy.core.files import is_scrap, recover, refuse_existing, write_text
from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.training.recipe import Recipe, load_recipe, parse_recipe
from dropclass_deploy.training.runs.checkpoint import Checkpoint, newest_checkpoint
from dropclass_deploy.training.runs.lock import FolderLock
from dropclass_deploy.training.runs.run import BEST, CHECKPOINTS, LOCK, METRICS, MODEL_JSON, NAMES, RECIPE


def check_folder(folder: Path, recipe: Recipe, lock: FolderLock, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that cannot be written or resumed; lock one that is there and may be.

    Raises:
        RunError, RecipeError: saying what is there.
    """
    if resume and overwrite:
        raise RunError("both --resume and --overwrite were given", expected="one of the two")
    if resume:
        _check_resumable(folder, recipe)
        lock.take(folder)
        for place in (folder, folder / CHECKPOINTS, folder / BEST):
            recover(place)
        return
    _refuse_other(folder, overwrite=overwrite)
    if folder.is_dir() and overwrite:
        lock.take(folder)


def new_folder(folder: Path, recipe: Recipe, lock: FolderLock, *, overwrite: bool) -> None:
    """Make the folder, or replace an earlier run: only now, when recipe, data and network have been found good.

    Only what a run writes is removed, in an order that leaves a folder which ``--overwrite`` takes whenever it is cut
    short: without the mark of a complete run first, with the journal that marks it as a run last.

    Raises:
        RunError, UserError: when another training began there meanwhile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock.take(folder)
    _refuse_other(folder, overwrite=overwrite)
    for name in (MODEL_JSON, RECIPE):
        (folder / name).unlink(missing_ok=True)
    for old in [path for path in folder.iterdir() if _is_ours(path) and path.name not in {METRICS, LOCK}]:
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink()
    write_text(folder / METRICS, "")
    write_text(folder / RECIPE, recipe.to_yaml())


def _refuse_other(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder with a run, unless it may be replaced, or with anything else."""
    if not folder.is_dir():
        refuse_existing(folder, overwrite=overwrite)
        return
    if all(path.name == LOCK or is_scrap(path) for path in folder.iterdir()):
        return  # a start that was cut short
    refuse_existing(folder, overwrite=overwrite, marker=METRICS)
    foreign = sorted(path.name for path in folder.iterdir() if not _is_ours(path))
    if foreign:
        raise RunError(
            f"the output {folder} holds {foreign[0]!r}, which no run writes, and --overwrite replaces runs only",
            remedy="choose another folder with -o, or move it away",
        )


def _is_ours(path: Path) -> bool:
    """Whether a run writes an entry of this name (unfinished atomic writes included)."""
    return path.name in NAMES or is_scrap(path)


def _check_resumable(folder: Path, recipe: Recipe) -> None:
    if not (folder / RECIPE).is_file():
        raise RunError(f"{folder} is not a run folder: it has no {RECIPE}", remedy="start without --resume")
    before = load_recipe(folder / RECIPE)
    if before.digest() != recipe.digest():
        raise RecipeError(
            f"{folder} was started with another recipe: {_first_difference(before, recipe)}",
            remedy=f"dropclass train {folder} --resume, or start anew in another folder",
        )


def resume_point(folder: Path, recipe: Recipe, reporter: Reporter) -> Checkpoint | None:
    """The checkpoint to go on from, or None when the run has none yet.

    Raises:
        RunError: when none can be read. RecipeError: when it belongs to another recipe.
    """
    checkpoint = newest_checkpoint(folder, reporter.note)
    if checkpoint is None:
        reporter.note(f"{folder} has no checkpoint yet: starting at its first step")
        return None
    before = parse_recipe(checkpoint.recipe, f"the recipe in {checkpoint.folder}")
    if before.digest() != recipe.digest():
        raise RecipeError(
            f"{checkpoint.folder} belongs to another recipe: {_first_difference(before, recipe)}",
            remedy="start anew in another folder",
        )
    return checkpoint


def _first_difference(before: Recipe, now: Recipe) -> str:
    """The first key that differs, with both values."""
    left, right = (_flatten(recipe.model_dump(mode="json", by_alias=True)) for recipe in (before, now))
    for key in sorted(set(left) | set(right)):
        if left.get(key) != right.get(key):
            return f"{key} was {left.get(key)!r} and is now {right.get(key)!r}"
    return "the recipes differ"


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    items = [_flatten(inner, f"{prefix}.{key}" if prefix else str(key)) for key, inner in value.items()]
    return {key: inner for item in items for key, inner in item.items()}
