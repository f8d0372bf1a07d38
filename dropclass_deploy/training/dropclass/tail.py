"""Whether a network may be stopped at its classifier in training: nothing but a bilinear resize comes after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dropclass_deploy.core.errors import first_line
from dropclass_deploy.models.outputs import logits_of
from dropclass_deploy.training.dropclass.probe_match import Match, resize_errors
from dropclass_deploy.training.dropclass.probe_run import set_mode, untouched
from dropclass_deploy.training.dropclass.tap import ClassifierTap


def after_classifier(model: nn.Module, match: Match, images: Tensor) -> str | None:
    """What stands between the classifier and the logits beside a bilinear resize, or None for nothing.

    Looked for in eval and in training mode, with two images: a network may do more in training, and what it does then is
    what the loss would miss. The network is left as it was.

    Args:
        model: the network.
        match: the classifier.
        images: (N, channels, H, W) that the network takes.
    """
    if not match.align_corners:
        return "something else than a bilinear resize follows the classifier"
    pair = torch.cat([images, 0.5 * images])
    with untouched(model), torch.no_grad():
        for training in (False, True):
            set_mode(model, training)
            reason = _in_this_mode(model, match, pair)
            if reason is not None:
                return f"{reason}, in training" if training else reason
    return None


def _in_this_mode(model: nn.Module, match: Match, images: Tensor) -> str | None:
    tap = ClassifierTap(model, match.call.path, in_place=True)
    given: list[Tensor] = []
    # A copy, before anybody changes it in place.
    hook = match.call.module.register_forward_hook(lambda _m, _i, output: given.append(logits_of(output).clone()))
    try:
        logits = logits_of(tap.run(images).output)
    except Exception as error:
        return f"the network does not run on two images of {_size(images)} ({first_line(error)})"
    finally:
        hook.remove()
    try:
        with _touching_empty_batches(model) as touched:
            size = tap.run_short(images).size
    except Exception as error:
        return f"the network does not run on with an empty batch after its classifier ({first_line(error)})"
    if not set(match.align_corners) & set(resize_errors(given[0], logits)):
        return "the logits are not the classifier's output, as it is or resized bilinearly"
    if touched:
        return f"{touched[0]!r} works on the classifier's output"
    return None if size == logits.shape[-2:] else "the logits' size depends on the batch"


def _size(images: Tensor) -> str:
    return "×".join(str(side) for side in images.shape[-2:])


@contextmanager
def _touching_empty_batches(model: nn.Module) -> Iterator[list[str]]:
    """Names of the modules with parameters or statistics that are given an empty batch inside the block."""
    touched: list[str] = []

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            if own and any(isinstance(value, Tensor) and value.ndim and not len(value) for value in inputs):
                touched.append(name)

        return look

    hooks = [module.register_forward_pre_hook(note(name)) for name, module in model.named_modules()]
    try:
        yield touched
    finally:
        for hook in hooks:
            hook.remove()
