"""A network seen at its classifier: the features that enter it, and its logits before anything makes them larger.

The network itself is not changed. Hooks watch the classifier during a pass; in a short pass they also put an empty batch in
the place of its output, so that whatever follows (the resize to the image's size) costs nothing and still says what size it
would have given.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dropclass_deploy.core.errors import ModelError, first_line
from dropclass_deploy.models.outputs import logits_of
from dropclass_deploy.training.dropclass.probe_run import set_mode, untouched

log = logging.getLogger("dropclass_deploy")


@dataclass(frozen=True)
class Tapped:
    """What one pass showed.

    Attributes:
        features: A (N, K, h, w), the classifier's input.
        logits: those that the model returns, (N, C, H, W); of a short pass the classifier's own, (N, C, h, w).
        size: (H, W) of the logits that the model returns.
        output: all that the model returned; None of a short pass.
        short: whether the pass stopped at the classifier.
    """

    features: Tensor
    logits: Tensor
    size: tuple[int, int]
    output: Any
    short: bool


class ClassifierTap:
    """Runs a model and shows what happens at its classifier.

    Attributes:
        model: the network.

    Args:
        model: the network.
        path: of the classifier in it.
        in_place: whether the classifier may work in place on its input, as a head of several modules may: the features
            are then copied before.
    """

    def __init__(self, model: nn.Module, path: str, *, in_place: bool) -> None:
        self.model = model
        self._path = path
        self._in_place = in_place
        self._watch = _Watch()
        self._changed = False
        self._checked: set[torch.Size] = set()
        self._compiled: Callable[[Tensor], Tapped] | None = None

    def run(self, images: Tensor) -> Tapped:
        """A whole pass."""
        with self._watching():
            return self._pass(images, short=False)

    def run_short(self, images: Tensor) -> Tapped:
        """A pass up to the classifier; what follows it sees an empty batch.

        A network that turns out to do more than resize its logits, though it did not when it was probed, is run whole, from
        this pass on (in which its BatchNorms count the batch twice).
        """
        if self._compiled is not None:
            self._check_once(images)
            return _explained(self._compiled, images)
        with self._watching():
            if not self._changed:
                seen = self._pass(images, short=True)
                if _only_resized(seen.output, self._watch.source()):
                    return replace(seen, output=None)
                self._changed = True
                log.warning("the network does more after its classifier than resize: it is trained whole from now on")
                del seen  # its graph, before another is made
            return self._pass(images, short=False)

    def _check_once(self, images: Tensor) -> None:
        """Whether a short pass will do for images of this shape: compiled code has no record that would say so."""
        if images.shape in self._checked:
            return
        with untouched(self.model), torch.enable_grad():
            set_mode(self.model, True)
            seen = self._pass(images, short=True)
            if not _only_resized(seen.output, self._watch.source()):
                raise ModelError(
                    f"for images of {images.shape[-2]}×{images.shape[-1]} the network does more after its classifier than "
                    "resize, and cannot be compiled for training",
                    remedy="set train.compile: false",
                )
        self._checked.add(images.shape)

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Inside the block short passes run through ``torch.compile``, the hooks compiled in.

        A network that begins to do more after its classifier than resize is not noticed then.

        The hooks then stay on the model for as long as the block lasts (and on copies made of it meanwhile): the compiler
        looks for them only once.
        """
        with self._watching():
            self._compiled = torch.compile(self._short_pass)
            try:
                yield
            finally:
                self._compiled = None

    def _short_pass(self, images: Tensor) -> Tapped:
        return replace(self._pass(images, short=True), output=None)

    def _pass(self, images: Tensor, *, short: bool) -> Tapped:
        watch = self._watch
        watch.begin(short)
        try:
            output = self.model(images)
            if watch.passes != 1 or watch.features is None or watch.logits is None:
                raise ModelError(f"the classifier {self._path!r} ran {watch.passes} times in one pass", expected="once")
            logits = logits_of(output)
            height, width = logits.shape[-2:]
            return Tapped(watch.features, watch.logits if short else logits, (height, width), output, short)
        finally:
            watch.end()

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """The hooks, unless they are there already."""
        if self._compiled is not None:
            yield
            return
        hooks = self._watch.attach(self.model.get_submodule(self._path), in_place=self._in_place)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


class _Watch:
    """The hooks of the classifier, and what they saw in the pass that is going on."""

    def __init__(self) -> None:
        self._on = self._short = False
        self.passes = 0
        self.features: Tensor | None = None
        self.logits: Tensor | None = None
        self._source: Any = None

    def begin(self, short: bool) -> None:
        self._on, self._short, self.passes = True, short, 0

    def end(self) -> None:
        self._on, self.features, self.logits = False, None, None

    def source(self) -> Any:
        """Where in autograd's graph the empty batch of the last pass came from; not kept any longer, nor the graph."""
        source, self._source = self._source, None
        return source

    def attach(self, head: nn.Module, *, in_place: bool) -> list[RemovableHandle]:
        def before(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if self._on:
                self.features = inputs[0].clone() if in_place else inputs[0]

        def after(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> Any:
            if not self._on:
                return None
            self.passes += 1
            self.logits = logits_of(output)
            if not self._short:
                return None
            empty = self.logits[:0]
            if not torch.compiler.is_compiling():
                self._source = empty.grad_fn  # now: a change in place would hide behind it
            return empty

        return [head.register_forward_pre_hook(before), head.register_forward_hook(after)]


def _explained(compiled: Callable[[Tensor], Tapped], images: Tensor) -> Tapped:
    from torch._dynamo.exc import TorchDynamoException  # loaded by then; half a second when it is not

    try:
        return compiled(images)
    except TorchDynamoException as error:
        raise ModelError(
            f"torch.compile cannot compile this network here ({first_line(error)})",
            expected="a network without Python that depends on values, and on a CPU a C++ compiler (g++)",
            remedy="set train.compile: false",
        ) from error


_HARMLESS = ("UpsampleBilinear2DBackward", "ToCopyBackward", "CloneBackward")


def _only_resized(output: Any, source: Any) -> bool:
    """Whether the logits of a short pass come from the empty batch by a bilinear resize and nothing else.

    Autograd's record of the pass says so, at no cost. Without gradients there is no record, and no training.
    """
    logits = logits_of(output)
    if logits._backward_hooks:
        return False  # somebody wants the gradient that only a whole pass has
    node = logits.grad_fn
    while node is not None and node is not source:
        if not node.name().startswith(_HARMLESS):
            return False
        node = node.next_functions[0][0]
    return node is source
