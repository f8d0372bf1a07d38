"""Experiment trackers beside ``metrics.jsonl``: TensorBoard when asked, others through Accelerate's own trackers.

A tracker only watches: one that cannot be started is the user's mistake, told before the first step; one that fails later
(a server gone, a quota) is let go with a note, and the training goes on.

Accelerate needs nothing at construction (no ``log_with``): its trackers start themselves and stand in
``accelerator.trackers``, where ``accelerator.get_tracker`` finds them. ``accelerator.end_training`` is not used, because it
also ends the process group.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from dropclass_deploy.core.errors import MissingExtraError, UserError, first_line

TENSORBOARD = "tensorboard"
"""Name of the tracker, of its extra, and of its folder in the run."""

SUPPORTED = tuple(sorted(LOGGER_TYPE_TO_CLASS))
"""What ``train.trackers`` may list: all that the installed Accelerate has."""

# Where the package has another name than Accelerate's tracker, or not every version works.
_PIP_NAMES = {"comet_ml": "comet-ml", "aim": "'aim<4'"}
# Not quantities: what kind of line it is, its place on the axis, and the id of a class.
_NOT_LOGGED = {"kind", "step", "progress", "dropped", "epoch"}


def check_trackers(names: Sequence[str]) -> None:
    """Refuse what cannot be started, before any work.

    Raises:
        UserError: for a name that Accelerate does not have, one given twice, or a package that is not installed
            (``MissingExtraError`` for TensorBoard).
    """
    installed = {str(name) for name in get_available_trackers()}
    for name in names:
        if name not in SUPPORTED:
            raise UserError(
                f"train.trackers lists {name!r}", expected=f"any of {', '.join(SUPPORTED)}", remedy="correct the name"
            )
        if list(names).count(name) > 1:
            raise UserError(f"train.trackers lists {name!r} twice", remedy="list it once")
        if name == TENSORBOARD and name not in installed:
            raise MissingExtraError(TENSORBOARD, TENSORBOARD)
        if name not in installed:
            raise UserError(
                f"the package that the tracker {name!r} needs is not installed",
                remedy=f"install it with: pip install {_PIP_NAMES.get(name, name)}",
            )


def start_trackers(
    accelerator: Accelerator,
    names: Sequence[str],
    folder: Path,
    run_name: str,
    config: Mapping[str, Any],
    *,
    start: int = 0,
) -> None:
    """Start the trackers on the main process; on others nothing happens.

    Args:
        accelerator: takes them into its ``trackers``.
        names: out of ``SUPPORTED``.
        folder: the run folder; TensorBoard writes into ``folder/tensorboard``.
        run_name: what Accelerate calls the project: the name under which services like wandb file the run.
        config: the recipe, nested or flat.
        start: steps done before, on resuming: TensorBoard hides the points after it, which are drawn anew. Services file
            the rest of a resumed run as a run of its own.

    Raises:
        UserError: as ``check_trackers``, and when a tracker cannot be started; those started before it are finished then.
    """
    check_trackers(names)
    if not accelerator.is_main_process:
        return
    for name in names:
        try:
            accelerator.trackers.append(_started(name, folder, run_name, config, start))
        except Exception as error:  # each of nine libraries has its own
            finish(accelerator)
            raise UserError(
                f"the tracker {name!r} cannot be started: {first_line(error, limit=None)}",
                remedy=f"set it up as its own documentation says, or take it out of train.trackers ({', '.join(names)})",
            ) from error


def _started(name: str, folder: Path, run_name: str, config: Mapping[str, Any], start: int) -> Any:
    if name == TENSORBOARD:
        return _tensorboard(folder, config, start)
    kind = LOGGER_TYPE_TO_CLASS[name]
    tracker = kind(run_name, str(folder)) if kind.requires_logging_directory else kind(run_name)
    tracker.start()
    tracker.store_init_configuration(_flat(config))
    return tracker


def _tensorboard(folder: Path, config: Mapping[str, Any], start: int) -> Any:
    # The empty name: Accelerate writes into FOLDER/NAME, and the run folder has its name already.
    # The steps up to `start` stand; everything from the next one on is hidden as soon as this file is read. At step 0
    # too: a run killed before its first checkpoint has written points already.
    tracker = LOGGER_TYPE_TO_CLASS[TENSORBOARD]("", str(folder / TENSORBOARD), purge_step=start + 1)
    tracker.start()
    # As text: store_init_configuration would write a second run into a subfolder, one more at each resume.
    text = json.dumps(config, indent=2, ensure_ascii=False, default=str)
    tracker.tracker.add_text("recipe", f"```json\n{text}\n```", global_step=start)
    return tracker


def log(accelerator: Accelerator, record: Mapping[str, Any], step: int) -> tuple[str, ...]:
    """Send a record of ``metrics.jsonl`` to every tracker.

    Returns:
        One line for each tracker that failed; it is not used again.
    """
    values = scalars(record)
    notes = []
    for tracker in list(accelerator.trackers):
        try:
            tracker.log(values, step=step)
        except Exception as error:  # each of nine libraries has its own; none may end a training
            accelerator.trackers.remove(tracker)
            reason = first_line(error, limit=None)
            notes.append(f"the tracker {tracker.name!r} failed at step {step} and is left out from here: {reason}")
    return tuple(notes)


def finish(accelerator: Accelerator) -> tuple[str, ...]:
    """Close every tracker; a second call does nothing.

    Returns:
        One line for each tracker that could not be closed.
    """
    notes = []
    while accelerator.trackers:
        tracker = accelerator.trackers.pop()
        try:
            tracker.finish()
        except Exception as error:  # as in `log`
            notes.append(f"the tracker {tracker.name!r} could not be closed: {first_line(error, limit=None)}")
    return tuple(notes)


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a record: ``train/ce``, ``val/miou``, and the IoU of a class as ``iou/NAME``."""
    kind = record.get("kind", "train")
    flat = {f"{kind}/{name}": value for name, value in record.items() if name not in _NOT_LOGGED}
    flat |= {f"iou/{name}": value for name, value in record.get("iou", {}).items()}
    return {name: value for name, value in flat.items() if _is_finite(value)}


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """``{"train": {"lr": 0.1}}`` → ``{"train.lr": 0.1}``; what is no plain value as text."""
    flat: dict[str, bool | int | float | str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat
