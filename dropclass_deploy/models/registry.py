"""Networks by name: the package's own, ``timm:NAME`` and ``python:package.module:factory``."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from dropclass_deploy.core.classes import MAX_CLASSES
from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.models.deeplabv3 import deeplabv3_mobilenet_v3_large
from dropclass_deploy.models.encoders import preprocess_of
from dropclass_deploy.models.hourglass import hourglass
from dropclass_deploy.models.hrnet import hrnetv1_w18_small, hrnetv2_w18_small
from dropclass_deploy.models.lite import lite0, timm_lite
from dropclass_deploy.models.unet import unet
from dropclass_deploy.models.user_factory import user_model
from dropclass_deploy.models.vgg_resnet import vgg_resnet

TIMM = "timm:"
PYTHON = "python:"


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
    "hrnetv1_w18_small": Entry(hrnetv1_w18_small, _IMAGENET),
    "hrnetv2_w18_small": Entry(hrnetv2_w18_small, _IMAGENET),
    "unet": Entry(unet, _IMAGENET),
    "hourglass": Entry(hourglass, _IMAGENET),
    "vgg_resnet": Entry(vgg_resnet, _IMAGENET),
}


def model_names() -> tuple[str, ...]:
    """The names of the package's own networks; ``build_model`` takes ``timm:NAME`` and ``python:…`` besides."""
    return tuple(_MODELS)


def rebuildable(name: str) -> bool:
    """Whether a network can be rebuilt from its name and options without running code from outside the libraries."""
    return name in _MODELS or name.startswith(TIMM)


def build_model(name: str, num_classes: int, weights: str | None = None, **options: Any) -> nn.Module:
    """Build a network by name.

    Args:
        name: one of ``model_names()``; ``timm:NAME``, any timm backbone with the small decoder; or
            ``python:package.module:factory``, called as ``factory(num_classes=C, **options)``.
        num_classes: C, 2–255.
        weights: None for random initialisation, else what the network's factory documents: a torchvision or timm weight
            name, a local checkpoint file, or ``package:NAME`` for a checkpoint that an installed package carries. What
            the weights leave at its random start is a warning of the logger ``dropclass_deploy``.
        options: the factory's own options.

    Returns:
        A network that maps images (N, 3, H, W) to logits (N, C, H, W); a ``python:`` one whatever ``logits_of`` reads.

    Raises:
        ModelError: for an unknown name, option or weight, or a class count out of range.
    """
    if type(num_classes) is not int or not 2 <= num_classes <= MAX_CLASSES:
        raise ModelError(
            f"num_classes is {num_classes!r}", expected=f"2 … {MAX_CLASSES} (masks are uint8, 255 is ignore)"
        )
    if name.startswith(PYTHON):
        return user_model(name.removeprefix(PYTHON), num_classes, weights, options)
    factory: Callable[..., nn.Module] = (
        partial(timm_lite, name.removeprefix(TIMM)) if name.startswith(TIMM) else _entry(name).factory
    )
    known = [key for key in inspect.signature(factory).parameters if key not in {"num_classes", "weights"}]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ModelError(f"model {name} has no option {unknown[0]!r}", expected=f"one of {', '.join(known) or 'none'}")
    return factory(num_classes=num_classes, weights=weights, **options)


def default_preprocess(name: str, encoder: str | None = None) -> Preprocess:
    """The normalisation that the pretrained weights of network ``name`` expect; ImageNet's for ``python:`` networks.

    Args:
        name: as for ``build_model``.
        encoder: the option of that name, of a network that has it.

    Raises:
        ModelError: for an unknown name.
    """
    if name.startswith(PYTHON):
        return _IMAGENET
    backbone = name if name.startswith(TIMM) else encoder
    own = _IMAGENET if name.startswith(TIMM) else _entry(name).preprocess
    return own if backbone is None else preprocess_of(backbone.removeprefix(TIMM))


def _entry(name: str) -> Entry:
    if name not in _MODELS:
        near = difflib.get_close_matches(name, _MODELS, n=1)
        raise ModelError(
            f"there is no model {name!r}",
            expected=f"one of {', '.join(_MODELS)}, timm:NAME, python:package.module:factory",
            remedy=f"did you mean {near[0]}?" if near else "",
        )
    return _MODELS[name]
