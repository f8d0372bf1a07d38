"""What a fill refuses before its first process: data that cannot be opened or are not those of the stored cells."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from dropclass_deploy.core.errors import RunError, UserError
from dropclass_deploy.data import Dataset
from dropclass_deploy.training import Recipe
from dropclass_deploy.training.runs.lock import FolderLock
from evidence_grid.data_facts import of_splits, open_splits, refuse_mixed, refuse_others
from evidence_grid.job import Job
from evidence_grid.plan import Grid, Plan
from evidence_grid.store import Store


def check_device(device: str) -> None:
    """Raises UserError for a name that ``train.device`` does not know, or a GPU that is not there."""
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", device)
    if match is None:
        raise UserError(f"--device {device}", expected="auto, cpu, cuda or cuda:N")
    if device.startswith("cuda") and int(match[1] or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {device}: torch sees {torch.cuda.device_count()} CUDA devices here")


def check_runs(folder: Path) -> None:
    """Raises UserError for a folder of run folders that is, or lies below, a file, or that cannot be written."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"--runs {folder}: {there} is a file", expected="a folder")
    if not os.access(there, os.W_OK):
        raise UserError(f"--runs {folder}: {there} cannot be written")


def check_data(grid: Grid, jobs: Sequence[Job]) -> None:
    """Open every split that the jobs need, and look for the class to watch.

    Raises:
        UserError: for a split that cannot be opened, or a class that is not there.
    """
    # Settings may name other splits; most share one set of them.
    recipes = [(recipe.data, recipe.splits, recipe) for recipe in (job.recipe() for job in jobs)]
    distinct = {(data, splits.train, splits.val): recipe for data, splits, recipe in recipes}
    for recipe in distinct.values():
        for dataset in _opened(grid, recipe).values():
            names = dataset.classes.names
            if grid.watch is not None and grid.watch not in names:
                raise UserError(
                    f"the grid {grid.name}: there is no class {grid.watch!r} to watch",
                    expected=f"one of {', '.join(names)}",
                )


def _opened(grid: Grid, recipe: Recipe) -> dict[str, Dataset]:
    form, _, path = recipe.data.partition(":")
    if form != "synthetic" and path and not Path(path).exists():
        raise UserError(
            f"the data of the grid {grid.name}: {path} does not exist",
            remedy=f"say where they lie: --data {grid.name}={form}:PATH",
        )
    return open_splits(recipe, grid.splits)


def check_stored(plan: Plan, grid: Grid, job: Job, store: Store) -> None:
    """Refuse to go on with a grid whose stored cells were made of different data, or of others than the job's.

    Raises:
        UserError: naming a cell and the difference.
    """
    facts = of_splits(open_splits(job.recipe(), grid.splits))
    for name in grid.parts:
        stored = store.fresh(cell for cell in plan.cells(grid) if cell.part == name)
        where = f"{grid.name} ({name})"
        refuse_mixed(stored, where)
        refuse_others(stored, facts, where)


@contextmanager
def alone(grid: Grid, store: Store) -> Iterator[None]:
    """Keep other fills of a grid out during the block.

    Raises:
        UserError: when there is one.
    """
    folder = store.folder / grid.name
    folder.mkdir(parents=True, exist_ok=True)
    with FolderLock() as lock:
        try:
            lock.take(folder)
        except RunError as error:
            raise UserError(f"another fill of {grid.name} is at work", remedy="wait for its end") from error
        yield
