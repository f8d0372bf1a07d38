"""One optimisation step: a batch, perhaps spread over processes and cut into parts, and the loss of the whole of it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dropclass_deploy.core.errors import RecipeError, first_line
from dropclass_deploy.training.batches.augment import normalise
from dropclass_deploy.training.batches.draws import key_for
from dropclass_deploy.training.loop.failures import lost_step
from dropclass_deploy.training.loop.feed import class_mix
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
        DropclassError: when the loss or the gradient is not finite, or the loss has exploded; the weights are then those
            of before.
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
        _backward(session, *part, context, share, last=number == len(parts) - 1)
        for number, (part, share) in enumerate(zip(parts, shares, strict=True))
    ]
    _refuse_lost_step(session, losses, _gradient_norm(session))
    session.optimiser.step()
    # A step that the gradient scaler of fp16 left out moved nothing.
    if session.average is not None and not session.accelerator.optimizer_step_was_skipped:
        session.average.update(method.module)
    return _sum(losses)


def _context(session: Session) -> StepContext:
    return StepContext(
        step=session.step,
        progress=session.step / session.train.steps,
        seed=session.train.seed,
        ignore_index=session.setup.task.classes.ignore_index,
        class_weight=session.class_weight,
        class_log_frequency=session.class_log_frequency,
    )


def _shares(session: Session, parts: Sequence[Tensor], context: StepContext) -> Sequence[Tensor | None]:
    """Each part's shares of the loss terms, times the number of processes: gradients are averaged over them."""
    if len(parts) == session.processes.count == 1:
        return [None]
    weights = torch.stack([session.setup.method.loss_weights(part, context) for part in parts])
    total = session.processes.total(weights.sum(0))
    return list(session.processes.count * torch.where(total > 0, weights / total, 0.0))


def _backward(
    session: Session, images: Tensor, labels: Tensor, context: StepContext, shares: Tensor | None, *, last: bool
) -> StepLoss:
    """Loss and gradients of one part; processes exchange gradients at the last one only."""
    inputs = normalise(images, session.scale, session.shift, channels_last=session.in_channels_last)
    with contextlib.nullcontext() if last else session.accelerator.no_sync(session.module):
        loss = _loss(session, inputs, labels, context, shares)
        session.accelerator.backward(loss.total)
    return loss


def _gradient_norm(session: Session) -> Tensor:
    """The norm of all gradients, before they are clipped to ``train.clip_norm``."""
    parameters = [p for p in session.setup.method.module.parameters() if p.grad is not None]
    if session.train.clip_norm:
        norm = session.accelerator.clip_grad_norm_(parameters, session.train.clip_norm)
        return torch.as_tensor(norm, device=session.device)
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def _refuse_lost_step(session: Session, losses: Sequence[StepLoss], norm: Tensor) -> None:
    """Stop before the weights are touched: all processes together, each with the images of whoever lost it.

    One look at the device a step, at all that has to be known.
    """
    totals = torch.stack([loss.total.detach().float() for loss in losses])
    # The gradients of fp16 may overflow: its scaler leaves such a step out and goes on with a smaller scale.
    usable = norm.float() if session.accelerator.scaler is None else torch.zeros_like(totals[0])
    count = session.processes.count
    loss, gradient = (session.processes.total(torch.stack([totals.sum(), usable])) / count).tolist()
    problem = session.watch.problem(loss)
    suspects = _guilty
    if problem is None and not math.isfinite(gradient):
        problem, suspects = "the gradient is not finite, though the loss is,", _all
    if problem is not None:
        files = _files_of(session, suspects(totals.tolist()))
        raise lost_step(problem, _sum(losses), session.train, session.step + 1, files, last_checkpoint(session.folder))


def _guilty(totals: list[float]) -> list[tuple[int, float]]:
    """(number, total) of this process's parts under suspicion: those that are not finite, else the one with the largest."""
    lost = [(number, math.inf) for number, total in enumerate(totals) if not math.isfinite(total)]
    return lost or [max(enumerate(totals), key=lambda part: part[1])]


def _all(totals: list[float]) -> list[tuple[int, float]]:
    """Every part: a gradient does not say whose it was."""
    return [(number, math.inf) for number in range(len(totals))]


def _files_of(session: Session, parts: list[tuple[int, float]]) -> list[str]:
    """The images of the worst parts of all processes."""
    mine = [(total, _files(session, number)) for number, total in parts]
    everyones = [part for process in session.processes.gathered(mine) for part in process]
    worst = max(total for total, _ in everyones)
    return [name for total, names in everyones if total == worst for name in names]


def _loss(session: Session, inputs: Tensor, labels: Tensor, context: StepContext, shares: Tensor | None) -> StepLoss:
    try:
        with session.accelerator.autocast():
            loss: StepLoss = session.module(inputs, labels, context, shares)
            return loss
    except RuntimeError as error:
        # torch's words when a network calls view() on features that lie in channels_last.
        if "view size is not compatible" not in str(error) or not session.in_channels_last:
            raise
        raise RecipeError(
            f"the network cannot be trained in channels_last ({first_line(error, 100)})",
            expected="a network that calls reshape() or flatten() where it calls view()",
            remedy="set train.channels_last: false",
        ) from error
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
    shown = [
        index
        for item in session.batches.items(session.step)[first : first + size]
        for index in _sources(session, *item)
    ]
    return [str(data.image_path(index) or data.key(index)) for index in shown]


def _sources(session: Session, index: int, number: int) -> list[int]:
    """The images that one sample shows: itself, and the one that a class which left made room for."""
    mix = class_mix(session.setup)
    if mix is None:
        return [index]
    donor = mix.donor(index, len(session.setup.task.train), mix.generator(session.train.seed, number))
    return [index] if donor is None else [index, donor]


def _sum(losses: Sequence[StepLoss]) -> StepLoss:
    if len(losses) == 1:
        return losses[0]
    terms: dict[str, Any] = {name: torch.stack([loss.terms[name] for loss in losses]).sum() for name in losses[0].terms}
    total = torch.stack([loss.total.detach() for loss in losses]).sum()
    return StepLoss(total, terms, losses[0].dropped)
