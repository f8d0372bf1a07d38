"""Validation on the way: figures a class, the best networks kept, lost classes named, the curves drawn."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dropclass_deploy.core.errors import MissingExtraError
from dropclass_deploy.core.files import atomic_folder, write_json
from dropclass_deploy.core.metrics import Scores, percent, to_json
from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.training.evaluate import evaluate_network
from dropclass_deploy.training.loop.session import Session, publish
from dropclass_deploy.training.methods import Method
from dropclass_deploy.training.records.collapse import newly_collapsed
from dropclass_deploy.training.records.curves import write_curves
from dropclass_deploy.training.runs.run import BEST, save_network

FIGURES = "figures.json"
_DRAW_EVERY_S = 30.0
BESTS = {"miou": "miou", "rare_miou": "rare_miou"}
"""Key of a "val" record → folder below ``best/`` of the network that has the highest."""


def validate(session: Session, reporter: Reporter) -> None:
    """Evaluate the network as it would ship now (the moving average, when there is one) and keep what follows."""
    setup = session.setup
    with averaged(session):
        result = evaluate_network(
            setup.method.model,
            setup.task.val,
            setup.preprocess,
            device=session.device,
            rare=setup.task.classes.rare,
            processes=session.processes,
        )
        record(session, result, reporter)


def record(session: Session, result: Scores, reporter: Reporter) -> None:
    """Journal a validation of the network as it stands, keep it when it is the best, name lost classes, draw curves."""
    if session.processes.rank:
        return
    line = val_record(result, session.setup.task.classes.names, session.step)
    # A run that was stopped between its last step and its end validates that step twice.
    if all(known["step"] != session.step for known in session.journal.records("val")):
        publish(session, line, reporter)
    reporter.note(f"step {session.step}: val mIoU {percent(line['miou'])}, rare mIoU {percent(line['rare_miou'])}")
    keep_best(session.folder, session.setup.method, line)
    for lost in newly_collapsed(session.journal.records("val")):
        reporter.note(lost.note())
        session.journal.write({"kind": "collapse", "step": session.step, "class": lost.name, "best": lost.best})
    draw_curves(session, reporter)


def val_record(result: Scores, names: tuple[str, ...], step: int) -> dict[str, Any]:
    """A "val" record of ``metrics.jsonl``: pooled figures of the plain network on the validation split."""
    return {
        "kind": "val",
        "step": step,
        "miou": to_json(result.miou),
        "rare_miou": to_json(result.rare_miou),
        "pixel_accuracy": to_json(result.pixel_accuracy),
        "iou": {name: to_json(float(result.iou[index])) for index, name in enumerate(names)},
    }


def keep_best(folder: Path, method: Method, line: dict[str, Any]) -> None:
    """Save the network under ``best/`` when a figure of its "val" record is higher than any before."""
    for key, name in BESTS.items():
        place = folder / BEST / name
        if line[key] is None or line[key] <= _best_so_far(place, key):
            continue
        with atomic_folder(place, overwrite=True) as temporary:
            save_network(temporary, method)
            write_json(temporary / FIGURES, line)


def draw_curves(session: Session, reporter: Reporter) -> None:
    """Bring ``curves.png`` up to date, now and then and at the end; a picture that cannot be drawn stops no training."""
    now, ended = time.monotonic(), session.step == session.train.steps
    if session.drawn_at is not None and now - session.drawn_at < _DRAW_EVERY_S and not ended:
        return
    session.drawn_at = now
    classes = session.setup.task.classes
    try:
        write_curves(session.folder, rare=[classes.names[index] for index in classes.rare])
    except (MissingExtraError, OSError) as error:
        reporter.note(f"no curves are drawn: {error}")


@contextmanager
def averaged(session: Session) -> Iterator[None]:
    """The network holds the moving average inside the block, when there is one."""
    if session.average is None:
        yield
        return
    with session.average.applied(session.setup.method.module):
        yield


def _best_so_far(place: Path, key: str) -> float:
    try:
        value = json.loads((place / FIGURES).read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, KeyError):
        return -1.0
    return -1.0 if value is None else float(value)
