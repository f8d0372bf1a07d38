"""Losses that stand beside the cross-entropy of the plain network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.models.outputs import logits_of
from dropclass_deploy.training.losses import dice_loss, lovasz_softmax, push_loss, template_loss, uncertainty_loss
from dropclass_deploy.training.losses.template import Similarity
from dropclass_deploy.training.methods.dropout import dropout
from dropclass_deploy.training.methods.view import View
from dropclass_deploy.training.recipe.components import ComponentOptions
from dropclass_deploy.training.recipe.loss_options import UncertaintyOptions

TermLoss = Callable[[View, int], Tensor]
"""From a view and ``ignore_index`` to a scalar."""


@dataclass(frozen=True)
class Term:
    """A loss, and its weight in the total.

    Attributes:
        name: in ``metrics.jsonl``.
        weight: factor in the total.
        loss: a scalar, before the factor.
    """

    name: str
    weight: float
    loss: TermLoss


def terms_of(options: ComponentOptions, background: int | None) -> tuple[Term, ...]:
    """The terms that a recipe lists.

    Args:
        options: of its components.
        background: the output (a class's id, or C for that of pixels without a label) that ``uncertainty`` lets off.
    """
    made = []
    if options.dice is not None:
        made.append(Term("dice", options.dice.weight, _dice))
    if options.lovasz is not None:
        made.append(Term("lovasz", options.lovasz.weight, partial(_lovasz, stride=options.lovasz.stride)))
    if options.template is not None:
        similarity = options.template.similarity
        if options.template.weight:
            made.append(Term("template", options.template.weight, partial(_template, similarity=similarity)))
        if options.template.push:
            made.append(Term("push", options.template.push, partial(_push, similarity=similarity)))
    if options.uncertainty is not None:
        loss = partial(_uncertainty, options=options.uncertainty, background=background)
        made.append(Term("uncertainty", options.uncertainty.weight, loss))
    return tuple(made)


def _dice(view: View, ignore_index: int) -> Tensor:
    return dice_loss(view.logits, view.labels, ignore_index=ignore_index)


def _lovasz(view: View, ignore_index: int, *, stride: int) -> Tensor:
    return lovasz_softmax(
        view.logits[..., ::stride, ::stride], view.labels[:, ::stride, ::stride], ignore_index=ignore_index
    )


def _template(view: View, ignore_index: int, *, similarity: Similarity) -> Tensor:
    return template_loss(view.logits, view.labels, similarity=similarity, ignore_index=ignore_index)


def _push(view: View, ignore_index: int, *, similarity: Similarity) -> Tensor:
    return push_loss(view.logits, view.labels, similarity=similarity, ignore_index=ignore_index)


def _uncertainty(view: View, ignore_index: int, *, options: UncertaintyOptions, background: int | None) -> Tensor:
    """The variance of the logits over passes of dropout on A alone: the network in front of it runs once.

    What the source leaves open is ours: the passes are the only ones with dropout (the cross-entropy has none), the mean is
    over the pixels of the classifier's resolution, and the background's probability comes from the pass without dropout,
    detached: a pixel must not be let off for calling itself background.
    """
    del ignore_index
    if view.features is None or view.classify is None:
        raise ModelError("uncertainty needs the classifier's input, which training cannot see in this network")
    features, classify = view.features, view.classify
    maps = torch.stack([logits_of(classify(dropout(features, options.rate))) for _ in range(options.passes)])
    if background is None:
        return uncertainty_loss(maps)
    let_off = view.outputs.detach().float().softmax(dim=1)[:, background]
    if let_off.shape[-2:] != maps.shape[-2:]:  # of a network that resizes its logits before the labels' size
        let_off = F.interpolate(let_off[:, None], size=maps.shape[-2:], mode="bilinear")[:, 0]
    return uncertainty_loss(maps, let_off)
