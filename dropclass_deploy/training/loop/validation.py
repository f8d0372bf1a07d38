"""Validation on the way: figures a class, the best networks kept, lost classes named, the curves drawn."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from torch import nn

from dropclass_deploy.core.errors import MissingExtraError
from dropclass_deploy.core.files import atomic_folder, write_json
from dropclass_deploy.core.metrics import Scores, percent, to_json
from dropclass_deploy.core.progress import Advance, Reporter
from dropclass_deploy.training.evaluate import EvaluationStoppedError, evaluate_network
from dropclass_deploy.training.loop.failures import explained_evaluation_memory
from dropclass_deploy.training.loop.saving import check_finite
from dropclass_deploy.training.loop.session import Session, publish
from dropclass_deploy.training.methods import Method
from dropclass_deploy.training.records.collapse import newly_collapsed
from dropclass_deploy.training.records.curves import write_curves
from dropclass_deploy.training.runs.checkpoint import stored
from dropclass_deploy.training.runs.run import BEST, METRICS, save_network

FIGURES = "figures.json"
_DRAW_EVERY_S = 30.0
BESTS = {"miou": "miou", "rare_miou": "rare_miou"}
"""Key of a "val" record → folder below ``best/`` of the network that has the highest."""


def validate(session: Session, reporter: Reporter) -> None:
    """Evaluate the network as it would ship now (the moving average, when there is one) and keep what follows.

    A signal breaks it off: the run then saves where it stands, and the resumed one validates first.
    """
    # A lost network must not become a best one.
    check_finite(session)
    session.validation_due = True
    with as_it_ships(session), suppress(EvaluationStoppedError):
        record(session, evaluate(session, session.setup.method.model), reporter)
        session.validation_due = False


def evaluate(session: Session, network: nn.Module, advance: Advance | None = None) -> Scores:
    """Scores of a network on the validation split, shared by all processes.

    Raises:
        EvaluationStoppedError: when a signal asks the run to stop.
        RecipeError: out of memory.
    """
    setup = session.setup
    with explained_evaluation_memory():
        return evaluate_network(
            network,
            setup.task.val,
            setup.preprocess,
            device=session.device,
            rare=setup.task.classes.rare,
            advance=advance,
            processes=session.processes,
            stop=lambda: session.signals.requested,
        )


def record(session: Session, result: Scores, reporter: Reporter) -> None:
    """Journal a validation of the network as it stands, keep it when it is the best, name lost classes, draw curves."""
    if session.processes.rank:
        return
    line = val_record(result, session.setup.task.classes.names, session.step)
    # A run that was stopped between its last step and its end validates that step twice.
    if all(known["step"] != session.step for known in session.journal.records("val")):
        publish(session, line, reporter)
    reporter.note(f"step {session.step}: val mIoU {percent(line['miou'])}, rare mIoU {percent(line['rare_miou'])}")
    with stored(BEST, session.folder):
        keep_best(session.folder, session.setup.method, line)
    _name_collapsed(session, reporter)
    draw_curves(session, reporter)


def _name_collapsed(session: Session, reporter: Reporter) -> None:
    """A line in the log and a record in the journal for each class that was lost just now."""
    known = {(line["step"], line["class"]) for line in session.journal.records("collapse")}
    for lost in newly_collapsed(session.journal.records("val")):
        reporter.note(lost.note())
        if (session.step, lost.name) not in known:
            line = {"kind": "collapse", "step": session.step, "class": lost.name, "best": lost.best}
            with stored(METRICS, session.folder):
                session.journal.write(line)


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
def as_it_ships(session: Session) -> Iterator[None]:
    """Inside the block the network is what number 0 would save: the moving average, if any, and number 0's buffers."""
    module = session.setup.method.module
    with nullcontext() if session.average is None else session.average.applied(module):
        session.processes.share_buffers(module)
        yield


def _best_so_far(place: Path, key: str) -> float:
    try:
        value = json.loads((place / FIGURES).read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, KeyError):
        return -1.0
    return -1.0 if value is None else float(value)
