"""The run folder: what a training leaves, and how it is read again.

``recipe.yaml`` · ``model.safetensors`` (the plain network) · ``branch.safetensors`` (what only training and the folded
head need) · ``model.json`` · ``metrics.jsonl`` · ``curves.png`` · ``evaluation.json`` · ``checkpoints/`` (the last ones,
to go on from) · ``best/miou/`` and ``best/rare_miou/`` (the networks that validated best) · ``tensorboard/`` when asked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import ModelError, RunError
from dropclass_deploy.core.files import atomic_path, write_json
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.models import build_model
from dropclass_deploy.training.dropclass import fold
from dropclass_deploy.training.methods import DropClassMethod, Method, build_method
from dropclass_deploy.training.recipe import Recipe, load_recipe

RECIPE = "recipe.yaml"
MODEL = "model.safetensors"
BRANCH = "branch.safetensors"
MODEL_JSON = "model.json"
METRICS = "metrics.jsonl"
EVALUATION = "evaluation.json"
CURVES = "curves.png"
CHECKPOINTS = "checkpoints"
BEST = "best"
TENSORBOARD = "tensorboard"
LOCK = ".lock"
NAMES = (RECIPE, MODEL, BRANCH, MODEL_JSON, METRICS, EVALUATION, CURVES, CHECKPOINTS, BEST, TENSORBOARD, LOCK)
LAST = "last"
WEIGHTS = {LAST: "", "best-miou": f"{BEST}/miou", "best-rare-miou": f"{BEST}/rare_miou"}
"""Which of a run's networks → its folder in the run."""
USER_MODEL = "python"
"""``model.json``'s name for a network that the caller built and gave to ``train``."""


@dataclass(frozen=True)
class LoadedRun:
    """A finished run.

    Attributes:
        path: of the folder.
        model: the plain network, eval mode, on the CPU.
        folded: the network with the folded deploy head, or None when the method has none.
        classes: with the rare classes of the training pixels.
        preprocess: between decoded image and network.
        recipe: as it ran.
        model_json: ``model.json``.
        recipe_text: ``recipe.yaml``.
        weights: which of its networks: "last", "best-miou" or "best-rare-miou".
        evaluation: ``evaluation.json``, which is of the last network, or None.
    """

    path: Path
    model: nn.Module
    folded: nn.Module | None
    classes: ClassTable
    preprocess: Preprocess
    recipe: Recipe
    model_json: dict[str, Any]
    recipe_text: str
    weights: str
    evaluation: dict[str, Any] | None

    @property
    def deploy_head(self) -> str:
        """The head that the recipe deploys."""
        return self.recipe.export.deploy_head

    @property
    def data(self) -> str:
        """The data it was trained on, FORMAT:PATH."""
        return self.recipe.data

    def network(self, head: str | None = None) -> nn.Module:
        """The network of a deploy head; default the recipe's.

        Raises:
            RunError: when the run has no such head.
        """
        head = head or self.deploy_head
        if head == "plain":
            return self.model
        if head != "folded":
            raise RunError(f"there is no deploy head {head!r}", expected="plain or folded")
        if self.folded is None:
            raise RunError(
                f"the run {self.path} has no folded head (method {self.recipe.method.name})", expected="plain"
            )
        return self.folded


def save_network(folder: Path, method: Method) -> None:
    """Write ``model.safetensors`` and, when there is one, ``branch.safetensors``; each atomically."""
    save_module(folder / MODEL, method.model)
    branch = method.branch()
    if branch is not None:
        save_module(folder / BRANCH, branch)


def load_network(folder: Path, method: Method) -> None:
    """Load what ``save_network`` wrote, in place.

    Raises:
        RunError: when a file is missing, broken or of another network.
    """
    load_module(folder / MODEL, method.model)
    branch = method.branch()
    if branch is not None:
        load_module(folder / BRANCH, branch)


def save_module(path: Path, module: nn.Module) -> None:
    """Write a module's state dict as safetensors, atomically; shared tensors are written once a name."""
    state = {key: value.detach().cpu().contiguous().clone() for key, value in module.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary)


def load_module(path: Path, module: nn.Module) -> None:
    """Load a state dict written by ``save_module``.

    Raises:
        RunError: when the file is missing, broken or of another network.
    """
    try:
        state = load_file(path)
        module.load_state_dict(state, strict=True)
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing", remedy="train again, or copy the whole run folder") from error
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"{path} does not fit: {reason}", expected="the weights this run wrote") from error


def write_model_json(folder: Path, content: dict[str, Any]) -> None:
    """Write ``model.json``."""
    write_json(folder / MODEL_JSON, content)


def load_run(path: Path | str, model: nn.Module | None = None, weights: str = LAST) -> LoadedRun:
    """Read a finished run.

    Args:
        path: the run folder.
        weights: "last" (default: what a fair comparison of methods takes), "best-miou" or "best-rare-miou": the network
            that validated best on the way.
        model: the network, for a run whose network was given to ``train`` as a Python object; it is loaded in place, put
            into eval mode and frozen.

    Raises:
        RunError: when the folder is no run, is unfinished, or its parts do not fit together.
    """
    path = Path(path)
    content = read_model_json(path)
    facts = _facts(content, path)
    recipe = load_recipe(path / RECIPE)
    network = _rebuild(facts, model, path)
    method = build_method(network, recipe.method, facts.classifier, facts.probe_size, facts.classes)
    load_network(weights_folder(path, weights), method)
    method.model.eval().requires_grad_(False)
    folded = _folded(method)
    return LoadedRun(
        path=path,
        model=method.model,
        folded=folded,
        classes=facts.classes,
        preprocess=facts.preprocess,
        recipe=recipe,
        model_json=content,
        recipe_text=(path / RECIPE).read_text(encoding="utf-8"),
        weights=weights,
        evaluation=_read_object(path / EVALUATION) if weights == LAST and (path / EVALUATION).is_file() else None,
    )


def weights_folder(path: Path, weights: str) -> Path:
    """The folder of one of a run's networks.

    Raises:
        RunError: for an unknown name, or one that the run has not.
    """
    if weights not in WEIGHTS:
        raise RunError(f"there are no weights {weights!r}", expected=f"one of {', '.join(WEIGHTS)}")
    folder = path / WEIGHTS[weights]
    if not folder.is_dir():
        raise RunError(f"the run {path} has no {WEIGHTS[weights]}/", remedy="use its last weights")
    return folder


def read_model_json(path: Path) -> dict[str, Any]:
    """``model.json`` of a finished run.

    Raises:
        RunError: when the folder is no run, or is one that has not finished.
    """
    if not path.is_dir() or not (path / RECIPE).is_file():
        raise RunError(
            f"{path} is not a run folder: it has no {RECIPE}",
            expected="a folder that 'dropclass train' wrote",
            remedy="train first: dropclass train RECIPE.yaml -o RUN",
        )
    if not (path / MODEL_JSON).is_file():
        raise RunError(
            f"the run {path} has not finished: it has no {MODEL_JSON}",
            remedy=f"finish it: dropclass train {path} --resume",
        )
    return _read_object(path / MODEL_JSON)


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise RunError(f"{path} cannot be read: {error}", remedy="train again, or copy the whole run folder") from error
    if not isinstance(content, dict):
        raise RunError(f"{path} holds {type(content).__name__}", expected="a JSON object", remedy="train again")
    return content


class _Facts(BaseModel):
    """What ``model.json`` must hold for the network to be rebuilt."""

    name: str
    options: dict[str, Any]
    classes: ClassTable
    preprocess: Preprocess
    classifier: str | None = None
    probe_size: tuple[int, int] = (64, 64)


def _facts(content: dict[str, Any], path: Path) -> _Facts:
    try:
        return _Facts.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunError(
            f"{path / MODEL_JSON} does not fit at {where}: {first['msg']}",
            remedy="train again, or copy the whole run folder",
        ) from error


def _rebuild(facts: _Facts, model: nn.Module | None, path: Path) -> nn.Module:
    if model is not None:
        return model
    if facts.name == USER_MODEL:
        raise RunError(
            f"the run {path} trained a network given as a Python object",
            remedy="load it in Python: load_run(path, model=…), then export_artifact(model, …)",
        )
    try:
        return build_model(facts.name, len(facts.classes), weights=None, **facts.options)
    except ModelError as error:
        raise RunError(f"the network of {path} cannot be built: {error}") from error


def _folded(method: Method) -> nn.Module | None:
    if not isinstance(method, DropClassMethod) or not method.wrapper.classifier.linear:
        return None
    return fold(method.wrapper).eval().requires_grad_(False)
