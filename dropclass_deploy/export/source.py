"""What is exported: a network with its classes, its preprocessing and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import ModelError, UserError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.export.networks import deployable

HEADS = ("plain", "folded")
_RUN_FACTS = ("method", "seed", "steps", "ema", "options", "weights", "classifier")


@dataclass(frozen=True)
class Source:
    """A network that is ready to be traced.

    Attributes:
        network: (N, 3, H, W) → logits; a float32 copy on the CPU in eval mode.
        classes: in id order, with the rare ones.
        preprocess: between decoded image and network.
        model: registry name or class name of the network.
        deploy_head: "plain" or "folded".
        provenance: where the weights come from.
        evaluation: ``evaluation.json`` of the run, or None.
        data: the data it was trained on, or None.
    """

    network: nn.Module
    classes: ClassTable
    preprocess: Preprocess
    model: str
    deploy_head: str = "plain"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] | None = None
    data: str | None = None


def source_from_run(path: Path, deploy_head: str | None, weights: str) -> Source:
    """The network of a run folder; ``deploy_head`` None takes the one that the recipe chose.

    Raises:
        RunError: when the folder is no finished run, or has no such head.
    """
    from dropclass_deploy.training.runs.run import load_run

    run = load_run(path, weights=weights)
    head = deploy_head or run.deploy_head
    facts = {key: run.model_json[key] for key in _RUN_FACTS if key in run.model_json}
    return Source(
        network=deployable(run.network(head)),
        classes=run.classes,
        preprocess=run.preprocess,
        model=str(run.model_json["name"]),
        deploy_head=head,
        provenance={
            "run": path.resolve().name,
            **facts,
            "checkpoint": weights,
            "data": run.data,
            "recipe_sha256": run.model_json.get("recipe_sha256"),
        },
        evaluation=run.evaluation,
        data=run.data,
    )


def source_from_module(
    model: nn.Module,
    classes: ClassTable | Sequence[str] | None,
    preprocess: Preprocess | None,
    name: str | None,
    provenance: Mapping[str, Any] | None,
    deploy_head: str | None,
) -> Source:
    """A trained module of the caller's own, with what only the caller knows.

    Raises:
        UserError: when classes or preprocessing are missing or do not make sense.
        ModelError: when another head than the plain one is asked for, or the module cannot be copied.
    """
    if classes is None or preprocess is None:
        raise UserError(
            f"a model is given without its {'classes' if classes is None else 'preprocessing'}",
            expected="export_artifact(model, output, classes=ClassTable(names=…), preprocess=Preprocess(…))",
        )
    if deploy_head not in (None, "plain"):
        raise ModelError(
            f"the deploy head {deploy_head!r} is asked of a plain module",
            expected="plain",
            remedy="export the run folder, which holds the branch, or give the folded network itself",
        )
    plain = _plain(model)
    return Source(
        network=deployable(plain),
        classes=_table(classes),
        preprocess=preprocess,
        model=name or type(plain).__name__,
        provenance={"source": "a module given in Python", **(provenance or {})},
    )


def _plain(model: nn.Module) -> nn.Module:
    """The network inside what training puts around it: ``DropClass``, DistributedDataParallel, torch.compile."""
    from dropclass_deploy.training.dropclass import DropClass, strip

    module: nn.Module | None = model
    while module is not None and not isinstance(module, DropClass):
        module = _wrapped(module)
    return _unwrapped(model if module is None else strip(module))


def _unwrapped(model: nn.Module) -> nn.Module:
    """The network inside torch's own wrappers; a module of the user's that happens to hold a ``.module`` stays whole."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    inner = _wrapped(model) if isinstance(model, parallel) or hasattr(model, "_orig_mod") else None
    return model if inner is None else _unwrapped(inner)


def _wrapped(module: nn.Module) -> nn.Module | None:
    """What a wrapper holds under the names that torch's wrappers use, or None."""
    held = (getattr(module, name, None) for name in ("_orig_mod", "module"))
    return next((inner for inner in held if isinstance(inner, nn.Module)), None)


def _table(classes: ClassTable | Sequence[str]) -> ClassTable:
    if isinstance(classes, ClassTable):
        return classes
    try:
        return ClassTable(names=tuple(classes))
    except ValidationError as error:
        raise UserError(
            f"the class names do not make a class table: {error.errors()[0]['msg']}",
            expected="2 … 255 different names in id order",
        ) from error
