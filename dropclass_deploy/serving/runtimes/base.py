"""What every runtime is to the rest of the house: named arrays in, named arrays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy.typing as npt

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a network.

    Attributes:
        name: in the graph.
        dtype: NumPy's name ("uint8", "float32"), or the runtime's own for a type that NumPy lacks.
        shape: a dimension each, None where it is dynamic; empty for a scalar or where the rank is unknown.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        dimensions = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} {self.dtype} ({dimensions})"


class Runtime(Protocol):
    """One loaded network. ``run`` may be called from several threads at once.

    Attributes:
        name: of the engine ("onnxruntime").
        requested_provider: the execution provider that was asked for.
        provider: the one that really runs the network.
        precision: as read from the graph: "fp32", "fp16", "bf16", "int8" or "mixed".
        inputs: of the network, in its order.
        outputs: of the network, in its order.
        metadata: the file's own key-value pairs (``metadata_props`` of ONNX).
    """

    name: str
    requested_provider: str
    provider: str
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: dict[str, str]

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Every output by name. Raises UserError when a feed does not fit the network."""
        ...

    def bind(self, feeds: Feeds) -> Callable[[], None]:
        """Put ``feeds`` where the network reads them; each call of the result runs it and leaves the outputs there."""
        ...

    def close(self) -> None:
        """Give the network's memory back; a closed runtime refuses to run."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def fallback_problem(runtime: Runtime) -> str | None:
    """One sentence when another provider runs the network than the one asked for, else None."""
    if runtime.provider == runtime.requested_provider:
        return None
    return f"{runtime.name} runs on {runtime.provider}, not on {runtime.requested_provider} as asked"
