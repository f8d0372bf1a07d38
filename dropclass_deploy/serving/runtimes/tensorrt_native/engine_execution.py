"""One execution context of an engine with the memory it reads and writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dropclass_deploy.core.errors import DropclassError, UserError
from dropclass_deploy.serving.runtimes.base import Array, Feeds, TensorSpec
from dropclass_deploy.serving.runtimes.tensorrt_native.cuda_memory import Buffer, Cuda
from dropclass_deploy.serving.runtimes.tensorrt_native.engine_record import Profile
from dropclass_deploy.serving.runtimes.tensorrt_native.tensorrt_library import Messages


def check_profile(feeds: Feeds, inputs: tuple[TensorSpec, ...], profile: Profile | None) -> None:
    """Raise UserError for an input that an engine was not built for: sizes outside its profile."""
    for name, value in feeds.items():
        if profile is not None and not _inside(value.shape, profile):
            raise UserError(
                f"TensorRT refused the input: {name} has the shape {value.shape}, outside the engine's profile",
                expected=f"{', '.join(map(str, inputs))} with (N, H, W) from {profile.min} to {profile.max}",
            )


def _inside(shape: tuple[int, ...], profile: Profile) -> bool:
    """Whether the shape's (N, H, W), its first three dimensions, are in the profile."""
    return all(low <= size <= high for low, size, high in zip(profile.min, shape, profile.max, strict=False))


class Execution:
    """A context, a stream and a buffer a tensor. For one thread at a time."""

    def __init__(self, cuda: Cuda, engine: Any, messages: Messages, outputs: tuple[TensorSpec, ...]) -> None:
        self._cuda, self._messages, self._outputs = cuda, messages, outputs
        self._buffers: dict[str, Buffer] = {}
        self._graph: Any = None
        self._stream: Any = cuda.new_stream()
        self._context: Any = engine.create_execution_context()
        if self._context is None:
            self.close()
            raise DropclassError(f"TensorRT made no execution context: {messages.one_line('no reason given')}")

    @property
    def captured(self) -> bool:
        """Whether ``launch`` runs a CUDA graph."""
        return self._graph is not None

    def place(self, feeds: Feeds) -> None:
        """Upload the inputs and make room for the outputs that follow from their shapes."""
        self._drop_graph()
        for name, value in feeds.items():
            if not self._context.set_input_shape(name, value.shape):
                reason = self._messages.one_line(f"the shape {value.shape}")
                raise UserError(f"the engine refused the input {name}: {reason}")
            self._reserve(name, value.nbytes).upload(value, self._stream)
        for spec in self._outputs:
            self._reserve(spec.name, self._size(spec))

    def launch(self) -> None:
        """Put the network, or its graph, on the stream. Raises UserError when it was closed."""
        if self._stream is None:
            raise UserError("the runtime is closed", remedy="open it again before running it")
        if self._graph is not None:
            self._cuda.launch(self._graph, self._stream)
        elif not self._enqueue():
            raise DropclassError(f"TensorRT failed to run: {self._messages.one_line('no reason given')}")

    def wait(self) -> None:
        """Wait until what was launched is done."""
        self._cuda.synchronise(self._stream)

    def capture(self) -> None:
        """Record the network as a CUDA graph for the shapes that are placed, where the engine allows it.

        The network runs once first: the first run allocates (and TensorRT-RTX compiles), which no graph may hold.
        """
        self.launch()
        self.wait()
        allowed = getattr(self._context, "is_stream_capturable", None)
        if allowed is None or allowed(int(self._stream)):
            self._graph = self._cuda.capture(self._stream, self._enqueue)
        self._messages.errors.clear()

    def fetch(self) -> dict[str, Array]:
        """The outputs as arrays of the caller's own."""
        for spec in self._outputs:
            self._buffers[spec.name].download(self._size(spec), self._stream)
        self.wait()
        return {
            spec.name: self._buffers[spec.name].host(self._shape(spec), spec.dtype).copy() for spec in self._outputs
        }

    def close(self) -> None:
        """Give the device's memory back; harmless the second time."""
        if self._stream is None:
            return
        self._cuda.release("cudaStreamSynchronize", self._stream)
        self._drop_graph()
        self._context = None
        for buffer in self._buffers.values():
            buffer.close()
        self._buffers.clear()
        self._cuda.release("cudaStreamDestroy", self._stream)
        self._stream = None

    def _enqueue(self) -> bool:
        return bool(self._context.execute_async_v3(int(self._stream)))

    def _reserve(self, name: str, size: int) -> Buffer:
        buffer = self._buffers.setdefault(name, Buffer(self._cuda))
        buffer.reserve(size)
        # Always: the address may have grown out of its old place.
        if not self._context.set_tensor_address(name, buffer.device):
            raise DropclassError(f"TensorRT refused memory for {name}: {self._messages.one_line('no reason given')}")
        return buffer

    def _shape(self, spec: TensorSpec) -> tuple[int, ...]:
        shape = tuple(int(size) for size in self._context.get_tensor_shape(spec.name))
        if min(shape, default=0) < 0:
            raise DropclassError(f"the engine leaves the shape of {spec.name} open: {shape}")
        return shape

    def _size(self, spec: TensorSpec) -> int:
        return int(np.prod(self._shape(spec), dtype=np.int64)) * np.dtype(spec.dtype).itemsize

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._cuda.release("cudaGraphExecDestroy", self._graph)
            self._graph = None


def contiguous(feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The feeds with C-ordered memory."""
    return {name: np.ascontiguousarray(value) for name, value in feeds.items()}
