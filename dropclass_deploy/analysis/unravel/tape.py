"""One pass of a network, watched operator by operator.

What is recorded is what ran: ATen operators below autograd, with the sizes of this image. Only tensors that come from the
image are followed, everything else is a constant; and of their values only those are kept that a rule asks for, so that
the memory stays well below that of a training step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from dropclass_deploy.core.errors import ModelError

# Their results have the input's shape and none of its values.
_WITHOUT_VALUES = {
    "empty_like",
    "zeros_like",
    "ones_like",
    "full_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
}


@dataclass(frozen=True)
class Value:
    """A tensor that comes from the image.

    Attributes:
        id: on the tape.
        shape: of it.
    """

    id: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One operator that ran.

    Attributes:
        name: of the operator, without namespace, overload and the underscore of writing in place: "convolution".
        function: what ran, to be run on indices.
        arguments: by name; what comes from the image stands as its ``Value``.
        output: its result; an operator with several stands on the tape once for each.
        which: of its results.
        aside: its second result (the indices of a max pooling), where there is one.
    """

    name: str
    function: Any
    arguments: dict[str, Any]
    output: Value
    which: int = 0
    aside: Tensor | None = None

    def inputs(self) -> list[Value]:
        """What comes from the image, in the order of the arguments."""
        return [leaf for leaf in tree_leaves(self.arguments) if isinstance(leaf, Value)]


@dataclass
class Tape:
    """What ran, in order.

    Attributes:
        steps: of the pass.
        values: those kept, by the id of their ``Value``.
        image: the network's input.
        output: its logits.
    """

    image: Value
    output: Value
    steps: list[Step] = field(default_factory=list)
    values: dict[int, Tensor] = field(default_factory=dict)

    def elements(self, value: Value) -> Tensor:
        """The elements of a value that was kept, flat, in C order."""
        return self.values[value.id].reshape(-1)


class Recorder(TorchDispatchMode):
    """Watches what runs inside the block, from ``image`` on.

    Args:
        image: the tensor that is followed.
        keeps: operators of whose followed inputs the values are kept.
        pointwise: operators that leave every element where it is.

    Raises:
        ModelError: where another operator writes into a part of a tensor: the whole of it would then come from two places.
    """

    def __init__(self, image: Tensor, keeps: frozenset[str], pointwise: frozenset[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._keeps, self._pointwise = keeps, pointwise
        self._known = WeakTensorKeyDictionary()
        self._count = 0
        start = self._new(image)
        self.tape = Tape(start, start)

    def value_of(self, tensor: Tensor) -> Value | None:
        """How a tensor stands on the tape; None when it does not come from the image."""
        found: Value | None = self._known.get(tensor)  # type: ignore[no-untyped-call]
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator; put it on the tape when it works on what comes from the image."""
        kwargs = kwargs or {}
        followed = any(isinstance(one, Tensor) and one in self._known for one in tree_leaves((args, kwargs)))
        own = func._schema.name.partition("::")[2]
        if not followed or own in _WITHOUT_VALUES:
            return func(*args, **kwargs)
        writes = own.endswith("_") and not own.endswith("__")
        name = own.removesuffix("_") if writes else own
        arguments = self._arguments(func, name, args, kwargs)
        if writes:
            self._check_written(name, args[0])
            self._protect(args[0])
        result = func(*args, **kwargs)
        outputs = [one for one in tree_leaves(result) if isinstance(one, Tensor)]
        aside = outputs[1] if len(outputs) > 1 else None
        for which, output in enumerate(outputs):
            if output.is_floating_point():
                self.tape.steps.append(Step(name, func, arguments, self._new(output), which, aside))
        return result

    def _arguments(self, func: Any, name: str, args: Any, kwargs: Any) -> dict[str, Any]:
        def taken(one: Any) -> Any:
            value = self.value_of(one) if isinstance(one, Tensor) else None
            if value is not None and name in self._keeps:
                self.tape.values[value.id] = one
            return one if value is None else value

        names = [argument.name for argument in func._schema.arguments]
        return tree_map(taken, {**dict(zip(names, args, strict=False)), **kwargs})  # type: ignore[no-any-return]

    def _new(self, tensor: Tensor) -> Value:
        value = Value(self._count, tuple(tensor.shape))
        self._count += 1
        self._known[tensor] = value
        return value

    def _check_written(self, name: str, target: Tensor) -> None:
        if name not in self._pointwise and target._is_view():
            raise ModelError(
                f"the network writes into part of a tensor ({name}_)",
                expected="operators that give new tensors",
                remedy="unravel another network",
            )

    def _protect(self, target: Tensor) -> None:
        """Copy the kept values that are about to be written over."""
        place = target.untyped_storage().data_ptr()
        for number, kept in self.tape.values.items():
            if kept.untyped_storage().data_ptr() == place:
                self.tape.values[number] = kept.clone()


def record(run: Any, image: Tensor, keeps: frozenset[str], pointwise: frozenset[str]) -> tuple[Tape, Tensor]:
    """The tape of ``run(image)`` and its result.

    Args:
        run: image → one tensor.
        image: (1, 3, H, W).
        keeps: see ``Recorder``.
        pointwise: see ``Recorder``.

    Raises:
        ModelError: when the result does not come from the image.
    """
    # Below inference mode composite operators would not show their parts, bilinear resizing as dozens of them.
    with torch.inference_mode(False), torch.no_grad():
        image = image.clone()
        recorder = Recorder(image, keeps, pointwise)
        with recorder:
            result = run(image)
        output = recorder.value_of(result)
        if output is None:
            raise ModelError("the logits do not come from the image", expected="a network of the image")
        recorder.tape.output = output
    return recorder.tape, result
