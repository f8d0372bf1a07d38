"""What is written when a run is complete."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

from dropclass_deploy import __version__
from dropclass_deploy.core.errors import TrainingInterruptedError
from dropclass_deploy.core.files import write_json
from dropclass_deploy.core.metrics import percent, scores_json
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.training.evaluate import EvaluationStoppedError
from dropclass_deploy.training.loop.run_setup import resume_hint
from dropclass_deploy.training.loop.session import Session
from dropclass_deploy.training.loop.validation import as_it_ships, evaluate, record
from dropclass_deploy.training.methods import Method
from dropclass_deploy.training.recipe import Recipe
from dropclass_deploy.training.runs.checkpoint import stored
from dropclass_deploy.training.runs.run import EVALUATION, save_network, write_model_json
from dropclass_deploy.training.task import Task


def conclude(session: Session, reporter: Reporter) -> None:
    """Save the networks, evaluate every deploy head, and write ``model.json`` last: it marks the run as complete.

    All processes share the evaluation; number 0 writes.

    Raises:
        TrainingInterruptedError: when a signal broke the evaluation off.
    """
    setup, main = session.setup, session.processes.rank == 0
    with as_it_ships(session):
        if main:
            with stored("the finished network", setup.folder):
                save_network(setup.folder, setup.method)
        evaluation = _evaluated(session, reporter)
    if not main:
        return
    with stored("the finished run's figures", setup.folder):
        write_json(setup.folder / EVALUATION, evaluation)
        write_model_json(
            setup.folder, _model_json(setup.recipe, setup.task, setup.method, setup.preprocess, setup.built)
        )


def _evaluated(session: Session, reporter: Reporter) -> dict[str, Any]:
    try:
        return _evaluation(session, reporter)
    except EvaluationStoppedError as error:
        raise TrainingInterruptedError(
            f"stopped by a signal while evaluating the finished training; {resume_hint(session.setup)}"
        ) from error


def _evaluation(session: Session, reporter: Reporter) -> dict[str, Any]:
    setup, task = session.setup, session.setup.task
    heads = {}
    for head, network in setup.method.deploy_heads().items():
        with reporter.phase(f"evaluating the {head} head") as advance:
            result = evaluate(session, network.to(session.device), advance)
        if head == "plain":
            record(session, result, reporter)
        heads[head] = scores_json(result, task.classes)
        rare = heads[head]["rare_miou"]
        reporter.note(f"{head} head: val mIoU {percent(heads[head]['miou'], 2)}, rare mIoU {percent(rare, 2)}")
    return {
        "data": setup.recipe.data,
        "split": task.val.split,
        "images": len(task.val),
        "selected": setup.recipe.export.deploy_head,
        "heads": heads,
    }


def _model_json(
    recipe: Recipe, task: Task, method: Method, preprocess: Preprocess, built: dict[str, Any]
) -> dict[str, Any]:
    libraries = ("torch", "torchvision", "timm", "accelerate", "numpy")
    return {
        **built,
        "num_classes": len(task.classes),
        "classes": task.classes.model_dump(mode="json"),
        "preprocess": preprocess.model_dump(mode="json"),
        "class_pixels": [int(count) for count in task.statistics.pixels],
        "class_images": [int(count) for count in task.statistics.images],
        "class_weight": None if task.class_weight is None else [float(w) for w in task.class_weight],
        "train_images": len(task.train),
        "method": recipe.method.name,
        "deploy_head": recipe.export.deploy_head,
        "deploy_heads": sorted(method.deploy_heads()),
        "seed": recipe.train.seed,
        "steps": recipe.train.steps,
        "ema": recipe.train.ema,
        "recipe_sha256": recipe.digest(),
        "versions": {
            "dropclass_deploy": __version__,
            "python": platform.python_version(),
            **{library: version(library) for library in libraries},
        },
    }
