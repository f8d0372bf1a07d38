"""One optimisation step: a batch, perhaps spread over processes and cut into parts, and the loss of the whole of it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dropclass_deploy.core.errors import RecipeError
from dropclass_deploy.training.batches.augment import normalise
from dropclass_deploy.training.batches.loader import key_for
from dropclass_deploy.training.loop.failures import lost_loss
from dropclass_deploy.training.loop.optimiser import learning_rate, set_learning_rate
from dropclass_deploy.training.loop.session import Session
from dropclass_deploy.training.methods import StepContext, StepLoss
from dropclass_deploy.training.runs.checkpoint import last_checkpoint


def run_step(session: Session, images: Tensor, labels: Tensor) -> StepLoss:
    """Forward, backward and optimiser step.

    Args:
        session: whose ``step`` is the number of this step, from 0.
        images: uint8 (n, 3, h, w), this process's share of the step.
        labels: uint8 (n, h, w).

    Returns:
        The loss terms over this process's images, scaled so that their mean over the processes is that of the step.

    Raises:
        DropclassError: when the loss is not finite or has exploded; nothing was changed by this step then.
    """
    train, method = session.train, session.setup.method
    # Dropout and whatever else draws inside the network: the same in a resumed run, without a state to keep.
    torch.manual_seed(key_for(train.seed, 4, session.step * session.processes.count + session.processes.rank))
    set_learning_rate(session.optimiser, learning_rate(train, session.step))
    context = _context(session)
    context = replace(context, dropped=method.draw(labels, context))
    parts = list(zip(images.chunk(train.accumulate), labels.chunk(train.accumulate), strict=True))
    shares = _shares(session, [part for _, part in parts], context)
    session.optimiser.zero_grad(set_to_none=True)
    losses = [
        _backward(session, *part, context, share, number)
        for number, (part, share) in enumerate(zip(parts, shares, strict=True))
    ]
    if train.clip_norm:
        session.accelerator.clip_grad_norm_(method.module.parameters(), train.clip_norm)
    session.optimiser.step()
    if session.average is not None:
        session.average.update(method.module)
    return _sum(losses)


def _context(session: Session) -> StepContext:
    return StepContext(
        step=session.step,
        progress=session.step / session.train.steps,
        seed=session.train.seed,
        ignore_index=session.setup.task.classes.ignore_index,
        class_weight=session.class_weight,
    )


def _shares(session: Session, parts: Sequence[Tensor], context: StepContext) -> Sequence[Tensor | None]:
    """Each part's shares of the loss terms, times the number of processes: gradients are averaged over them."""
    if len(parts) == session.processes.count == 1:
        return [None]
    weights = torch.stack([session.setup.method.loss_weights(part, context) for part in parts])
    total = session.processes.total(weights.sum(0))
    return list(session.processes.count * torch.where(total > 0, weights / total, 0.0))


def _backward(
    session: Session, images: Tensor, labels: Tensor, context: StepContext, shares: Tensor | None, number: int
) -> StepLoss:
    """Loss and gradients of one part; processes exchange gradients at the last one only."""
    inputs = normalise(images, session.scale, session.shift)
    last = number == session.train.accumulate - 1
    with contextlib.nullcontext() if last else session.accelerator.no_sync(session.module):
        loss = _loss(session, inputs, labels, context, shares)
        problem = session.watch.problem(float(loss.total.detach()))
        if problem is not None:
            raise lost_loss(problem, loss, session.train, context.step, _files(session, number), _last(session))
        session.accelerator.backward(loss.total)
    return loss


def _loss(session: Session, inputs: Tensor, labels: Tensor, context: StepContext, shares: Tensor | None) -> StepLoss:
    try:
        with session.accelerator.autocast():
            loss: StepLoss = session.module(inputs, labels, context, shares)
            return loss
    except ValueError as error:
        # torch's BatchNorm says it so when a layer sees one value a channel (a pooled map of a single image).
        if "more than 1 value per channel" not in str(error):
            raise
        raise RecipeError(
            f"train.batch_size {session.train.batch_size} gives a BatchNorm of this model a single value a channel",
            expected="at least 2 images a step, process and part",
            remedy="raise train.batch_size, or train.crop",
        ) from error


def _files(session: Session, number: int) -> list[str]:
    """Image files (or keys) of one part of this step on this process."""
    train, data = session.train, session.setup.task.train
    mine = train.batch_size // session.processes.count
    size = mine // train.accumulate
    first = session.processes.rank * mine + number * size
    indices = [index for index, _ in session.batches.items(session.step)[first : first + size]]
    return [str(data.image_path(index) or data.key(index)) for index in indices]


def _last(session: Session) -> str:
    return last_checkpoint(session.folder)


def _sum(losses: Sequence[StepLoss]) -> StepLoss:
    if len(losses) == 1:
        return losses[0]
    terms: dict[str, Any] = {name: torch.stack([loss.terms[name] for loss in losses]).sum() for name in losses[0].terms}
    total = torch.stack([loss.total.detach() for loss in losses]).sum()
    return StepLoss(total, terms, losses[0].dropped)
