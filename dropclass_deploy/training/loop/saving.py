"""Saving where a run stands, and going on from there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch

from dropclass_deploy.core.errors import DropclassError, RunError
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.training.loop.session import Session
from dropclass_deploy.training.runs.checkpoint import Checkpoint, last_checkpoint, save_checkpoint
from dropclass_deploy.training.task import Task


def save(session: Session) -> None:
    """Write a checkpoint of the step at hand, once; never of a network that is lost. All processes call it.

    Raises:
        DropclassError: when the network is lost, or the disk refuses.
    """
    if session.saved == session.step:
        return
    check_finite(session)
    meter = session.meter.state_dict(session.processes)
    if session.processes.rank == 0:
        session.journal.sync()
        setup, state = session.setup, _state(session, meter)
        save_checkpoint(setup.folder, session.step, setup.recipe, setup.method, state, session.train.keep_last)
    session.saved = session.step


def _state(session: Session, meter: dict[str, Any]) -> dict[str, Any]:
    scaler, average = session.accelerator.scaler, session.average
    return {
        "optimiser": session.optimiser.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "average": None if average is None else average.state_dict(),
        "loop": {
            "data": data_facts(session.setup.task),
            "meter": meter,
            "watch": session.watch.state_dict(),
            "validation_due": session.validation_due,
        },
    }


def go_on_from(session: Session, checkpoint: Checkpoint) -> None:
    """Put the loop's own state back (the network's and the optimiser's are already)."""
    state = checkpoint.loop
    session.meter.load_state_dict(state["meter"], session.processes)
    session.watch.load_state_dict(state["watch"])
    session.validation_due = state["validation_due"]
    session.saved = checkpoint.step


def check_finite(session: Session) -> None:
    """A step may end with a finite loss and weights that are not: such a state must not replace a good one.

    Raises:
        DropclassError: naming the first tensor that is not finite.
    """
    for name, tensor in session.setup.method.module.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            train = session.train
            raise DropclassError(
                f"{name} is not finite after step {session.step}: the training has diverged; "
                f"{last_checkpoint(session.folder)}; "
                f"lower train.lr (now {train.lr:g}) or set train.clip_norm (now {train.clip_norm:g})"
            )


def data_facts(task: Task) -> dict[str, Any]:
    """What must be the same of the data for a run to go on as if it had never stopped."""
    return {
        "the classes": list(task.classes.names),
        "the id that is ignored": task.classes.ignore_index,
        "the number of training images": len(task.train),
        "the number of validation images": len(task.val),
        "the training images' names (hash)": _digest(_keys(task.train)),
        "the validation images' names (hash)": _digest(_keys(task.val)),
        "the training pixels of each class": [int(count) for count in task.statistics.pixels],
    }


def refuse_other_data(checkpoint: Checkpoint, task: Task) -> None:
    """Refuse to go on with data that changed since the checkpoint.

    Raises:
        RunError: naming the first difference.
    """
    before, now = checkpoint.loop["data"], data_facts(task)
    for what, value in now.items():
        if before.get(what) != value:
            raise RunError(
                f"the data changed since {checkpoint.folder}: {what}: {before.get(what)!r} then, {value!r} now",
                remedy="bring the data back as they were, or start anew in another folder",
            )


def _keys(dataset: Dataset) -> Iterable[str]:
    return (dataset.key(index) for index in range(len(dataset)))


def _digest(names: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:16]
