"""The states from which an interrupted run goes on: ``checkpoints/step-000184/``, each written whole or not at all.

``model.safetensors`` and ``branch.safetensors`` are the network as it stands in training (they can be another run's
``model.weights``); ``state.pt`` is the rest; ``files.json``, written last, has the hash of each. Nothing random is stored:
every draw is keyed by (seed, step).
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dropclass_deploy.core.errors import DropclassError, RunError, first_line
from dropclass_deploy.core.files import atomic_folder, sha256_of, write_json
from dropclass_deploy.training.methods import Method
from dropclass_deploy.training.recipe import Recipe
from dropclass_deploy.training.runs.run import CHECKPOINTS, load_network, save_network

_STATE, _FILES = "state.pt", "files.json"
_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """What is needed beside the network.

    Attributes:
        folder: where it lies, with the network's files.
        step: steps done.
        recipe: the recipe that runs, as JSON.
        optimiser: its state dict.
        scaler: gradient scaler's state, or None.
        average: moving average's state, or None.
        loop: where the loop stands, plain values: see ``training.loop.saving``.
    """

    folder: Path
    step: int
    recipe: dict[str, Any]
    optimiser: dict[str, Any]
    scaler: dict[str, Any] | None
    average: dict[str, Any] | None
    loop: dict[str, Any]


def checkpoint_folder(run: Path, step: int) -> Path:
    """Where the state after ``step`` steps lies."""
    return run / CHECKPOINTS / f"step-{step:06d}"


def checkpoint_folders(run: Path) -> list[Path]:
    """The checkpoints of a run, the newest first."""
    found = [path for path in (run / CHECKPOINTS).glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=_step_of, reverse=True)


@contextmanager
def stored(what: str, run: Path) -> Iterator[None]:
    """A write into the run folder inside the block that the disk refuses becomes one line that says how to go on.

    Raises:
        DropclassError: naming the last good checkpoint.
    """
    try:
        yield
    except (DropclassError, MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # torch and safetensors raise what they like when a write fails
        reason = first_line(error, 200)
        raise DropclassError(
            f"{what} could not be written ({reason}); {last_checkpoint(run)}; make room on the disk and resume"
        ) from error


def save_checkpoint(run: Path, step: int, recipe: Recipe, method: Method, state: dict[str, Any], keep: int) -> Path:
    """Write the state after ``step`` steps, then remove all but the ``keep`` newest.

    Args:
        state: ``optimiser``, ``scaler``, ``average`` and ``loop`` of a ``Checkpoint``.

    Raises:
        DropclassError: when the disk refuses it; the checkpoints before are untouched.
    """
    folder = checkpoint_folder(run, step)
    content = {"step": step, "recipe": recipe.model_dump(mode="json", by_alias=True), **state}
    with stored(f"the checkpoint of step {step}", run), atomic_folder(folder, overwrite=True) as temporary:
        save_network(temporary, method)
        with (temporary / _STATE).open("wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        write_json(temporary / _FILES, {path.name: sha256_of(path) for path in sorted(temporary.iterdir())})
    _remove_older(run, folder, keep)
    return folder


def newest_checkpoint(run: Path, note: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that can be read, or None when a run has none yet.

    Args:
        note: told about those that cannot.

    Raises:
        RunError: when there are checkpoints and none can be read.
    """
    problems = []
    for folder in checkpoint_folders(run):
        try:
            return read_checkpoint(folder)
        except RunError as error:
            problems.append(str(error))
            note(f"{error}: going back to the checkpoint before it")
    if problems:
        raise RunError(problems[0], remedy="no older one is readable either: start again with --overwrite")
    return None


def read_checkpoint(folder: Path) -> Checkpoint:
    """A checkpoint whose every file is as it was written.

    Raises:
        RunError: naming the file that is not.
    """
    path = folder / _FILES
    try:
        for name, digest in json.loads(path.read_bytes()).items():
            path = folder / name
            if sha256_of(path) != digest:
                raise RunError(f"{path} is damaged (its hash is not the one in {_FILES})")
        path = folder / _STATE
        return Checkpoint(folder=folder, **torch.load(path, map_location="cpu", weights_only=True))
    except (pickle.UnpicklingError, ValueError, AttributeError, RuntimeError, EOFError, TypeError, OSError) as error:
        raise RunError(f"{path} cannot be read ({first_line(error, 200)})") from error


def restore(checkpoint: Checkpoint, method: Method, optimiser: torch.optim.Optimizer, scaler: Any) -> None:
    """Put a checkpoint's network, optimiser and scaler back.

    Raises:
        RunError: when it belongs to another network.
    """
    load_network(checkpoint.folder, method)
    try:
        optimiser.load_state_dict(checkpoint.optimiser)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"the checkpoint belongs to another network: {reason}", remedy="resume with the same model"
        ) from error
    if scaler is not None and checkpoint.scaler is not None:
        scaler.load_state_dict(checkpoint.scaler)


def last_checkpoint(run: Path) -> str:
    """Words for an error message."""
    folders = checkpoint_folders(run)
    return f"the last good checkpoint is {folders[0]}" if folders else "no checkpoint had been written yet"


def _remove_older(run: Path, newest: Path, keep: int) -> None:
    """Remove older checkpoints and those of a longer earlier attempt."""
    folders = checkpoint_folders(run)
    ahead = [folder for folder in folders if _step_of(folder) > _step_of(newest)]
    behind = [folder for folder in folders if folder not in ahead]
    for folder in [*ahead, *behind[keep:]]:
        shutil.rmtree(folder, ignore_errors=True)


def _step_of(folder: Path) -> int:
    match = _NAME.fullmatch(folder.name)
    return int(match[1]) if match else -1
