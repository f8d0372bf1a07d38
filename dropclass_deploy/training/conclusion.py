"""Validation on the way, and what is written when a run is complete."""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dropclass_deploy import __version__
from dropclass_deploy.core.files import write_json
from dropclass_deploy.core.metrics import percent, scores_json, to_json
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.training.evaluate import evaluate_network
from dropclass_deploy.training.methods import Method
from dropclass_deploy.training.recipe import Recipe
from dropclass_deploy.training.run import CHECKPOINT, EVALUATION, save_network, write_model_json
from dropclass_deploy.training.task import Task


def validate(model: nn.Module, task: Task, preprocess: Preprocess, device: torch.device, step: int) -> dict[str, Any]:
    """A "val" record: pooled figures of the plain network on the validation split."""
    result = evaluate_network(model, task.val, preprocess, device=device, rare=task.classes.rare)
    return {
        "kind": "val",
        "step": step,
        "miou": to_json(result.miou),
        "rare_miou": to_json(result.rare_miou),
        "pixel_accuracy": to_json(result.pixel_accuracy),
        "iou": {name: to_json(float(result.iou[index])) for index, name in enumerate(task.classes.names)},
    }


def conclude(
    folder: Path,
    recipe: Recipe,
    task: Task,
    method: Method,
    preprocess: Preprocess,
    built: dict[str, Any],
    device: torch.device,
    reporter: Reporter,
) -> None:
    """Save the networks, evaluate every deploy head, and write ``model.json`` last: it marks the run as complete.

    ``built`` says how the network was made: name, options, weights, classifier, probe_size.
    """
    save_network(folder, method)
    write_json(folder / EVALUATION, _evaluation(recipe, task, method, preprocess, device, reporter))
    write_model_json(folder, _model_json(recipe, task, method, preprocess, built))
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)


def _evaluation(
    recipe: Recipe, task: Task, method: Method, preprocess: Preprocess, device: torch.device, reporter: Reporter
) -> dict[str, Any]:
    heads = {}
    for head, network in method.deploy_heads().items():
        with reporter.phase(f"evaluating the {head} head") as advance:
            result = evaluate_network(
                network.to(device), task.val, preprocess, device=device, rare=task.classes.rare, advance=advance
            )
        heads[head] = scores_json(result, task.classes)
        rare = heads[head]["rare_miou"]
        reporter.note(f"{head} head: val mIoU {percent(heads[head]['miou'], 2)}, rare mIoU {percent(rare, 2)}")
    return {
        "data": recipe.data,
        "split": task.val.split,
        "images": len(task.val),
        "selected": recipe.export.deploy_head,
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
        "recipe_sha256": recipe.digest(),
        "versions": {
            "dropclass_deploy": __version__,
            "python": platform.python_version(),
            **{library: version(library) for library in libraries},
        },
    }
