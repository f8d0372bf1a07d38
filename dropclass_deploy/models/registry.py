"""Networks by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from dropclass_deploy.core.classes import MAX_CLASSES
from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.models.deeplabv3 import deeplabv3_mobilenet_v3_large
from dropclass_deploy.models.lite import lite0


@dataclass(frozen=True)
class Entry:
    """How a network is made, and the normalisation its pretrained weights expect."""

    factory: Callable[..., nn.Module]
    preprocess: Preprocess


_IMAGENET = Preprocess()
_HALF = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

_MODELS = {
    "lite0": Entry(lite0, _HALF),
    "deeplabv3_mobilenet_v3_large": Entry(deeplabv3_mobilenet_v3_large, _IMAGENET),
}


def model_names() -> tuple[str, ...]:
    """Names that ``build_model`` takes."""
    return tuple(_MODELS)


def build_model(name: str, num_classes: int, weights: str | None = None, **options: Any) -> nn.Module:
    """Build a network by name.

    Args:
        name: one of ``model_names()``.
        num_classes: C, 2–255.
        weights: None for random initialisation, else what the network's factory documents: a torchvision or timm weight
            name, a local checkpoint file, or ``package:NAME`` for a checkpoint that an installed package carries.
        options: the factory's own options.

    Returns:
        A network that maps images (N, 3, H, W) to logits (N, C, H, W).

    Raises:
        ModelError: for an unknown name, option or weight, or a class count out of range.
    """
    entry = _entry(name)
    if type(num_classes) is not int or not 2 <= num_classes <= MAX_CLASSES:
        raise ModelError(
            f"num_classes is {num_classes!r}", expected=f"2 … {MAX_CLASSES} (masks are uint8, 255 is ignore)"
        )
    known = [key for key in inspect.signature(entry.factory).parameters if key not in {"num_classes", "weights"}]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ModelError(f"model {name} has no option {unknown[0]!r}", expected=f"one of {', '.join(known) or 'none'}")
    return entry.factory(num_classes=num_classes, weights=weights, **options)


def default_preprocess(name: str) -> Preprocess:
    """The normalisation that the pretrained weights of network ``name`` expect."""
    return _entry(name).preprocess


def _entry(name: str) -> Entry:
    if name not in _MODELS:
        raise ModelError(f"there is no model {name!r}", expected=f"one of {', '.join(_MODELS)}")
    return _MODELS[name]
