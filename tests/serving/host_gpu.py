"""A GPU that is a piece of host memory: the calls of CUDA and TensorRT that an engine makes, carried out late.

Nobody runs these tests with a GPU, so the runtime's own code is run against the contract that it must keep: what is put on
a stream happens only when somebody waits for the stream, device memory is apart from host memory, an engine reads and writes
where it was told, and what was given must be given back. It computes the mask of a network whose logits are the channels.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import cuda.bindings.runtime as real
import numpy as np

Work = Callable[[], None]


class Status:
    """Success, or an error by name."""

    def __init__(self, name: str = "cudaSuccess", code: int = 0) -> None:
        self.name, self.code = name, code

    def __int__(self) -> int:
        return self.code


OK = Status()


class HostCuda:
    """``cuda.bindings.runtime`` over host memory; enumerations are the real ones."""

    cudaStreamNonBlocking = real.cudaStreamNonBlocking  # noqa: N815
    cudaMemcpyKind = real.cudaMemcpyKind  # noqa: N815
    cudaStreamCaptureMode = real.cudaStreamCaptureMode  # noqa: N815
    cudaDeviceAttr = real.cudaDeviceAttr  # noqa: N815

    def __init__(self, capability: tuple[int, int] = (8, 9)) -> None:
        self.capability = capability
        self.memory: dict[str, dict[int, Any]] = {"device": {}, "host": {}}
        self.streams: dict[int, list[Work]] = {}
        self.capturing: dict[int, list[Work]] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.log: list[str] = []
        self._next = 1

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("cuda"):
            assert hasattr(real, name), f"there is no {name}"
            if name[4].isupper() and callable(object.__getattribute__(self, name)):
                object.__getattribute__(self, "log").append(name)
        return object.__getattribute__(self, name)

    def left(self) -> int:
        """How many things were never given back."""
        return sum(len(kind) for kind in (*self.memory.values(), self.streams, self.graphs, self.capturing))

    def cudaGetErrorString(self, status: Status) -> tuple[Status, bytes]:  # noqa: N802
        return OK, status.name.encode()

    def cudaGetLastError(self) -> tuple[Status]:  # noqa: N802
        return (OK,)

    def cudaDeviceGetAttribute(self, attribute: Any, device: int) -> tuple[Status, int]:  # noqa: N802
        major = attribute == real.cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor
        return OK, self.capability[0 if major else 1]

    def cudaMalloc(self, size: int) -> tuple[Status, int]:  # noqa: N802
        return OK, self._allocate("device", size)

    def cudaMallocHost(self, size: int) -> tuple[Status, int]:  # noqa: N802
        return OK, self._allocate("host", size)

    def cudaFree(self, address: int) -> tuple[Status]:  # noqa: N802
        del self.memory["device"][address]
        return (OK,)

    def cudaFreeHost(self, address: int) -> tuple[Status]:  # noqa: N802
        del self.memory["host"][address]
        return (OK,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Status, int]:  # noqa: N802
        handle = self._handle()
        self.streams[handle] = []
        return OK, handle

    def cudaStreamDestroy(self, stream: int) -> tuple[Status]:  # noqa: N802
        del self.streams[stream]
        return (OK,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Status]:  # noqa: N802
        assert stream not in self.capturing, "a stream in capture cannot be waited for"
        work, self.streams[stream] = self.streams[stream], []
        for item in work:
            item()
        return (OK,)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: Any, stream: int) -> tuple[Status]:  # noqa: N802
        up = kind == real.cudaMemcpyKind.cudaMemcpyHostToDevice
        places = ("device", "host") if up else ("host", "device")
        self.put(stream, lambda: self._copy(target, source, size, places))
        return (OK,)

    def cudaStreamBeginCapture(self, stream: int, mode: Any) -> tuple[Status]:  # noqa: N802
        assert not self.streams[stream], "work is under way"
        self.capturing[stream] = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Status, int]:  # noqa: N802
        handle = self._handle()
        self.graphs[handle] = self.capturing.pop(stream)
        return OK, handle

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Status, int]:  # noqa: N802
        handle = self._handle()
        self.graphs[handle] = list(self.graphs[graph])
        return OK, handle

    def cudaGraphDestroy(self, graph: int) -> tuple[Status]:  # noqa: N802
        del self.graphs[graph]
        return (OK,)

    def cudaGraphExecDestroy(self, graph: int) -> tuple[Status]:  # noqa: N802
        del self.graphs[graph]
        return (OK,)

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Status]:  # noqa: N802
        for item in self.graphs[graph]:
            self.put(stream, item)
        return (OK,)

    def put(self, stream: int, work: Work) -> None:
        self.capturing.get(stream, self.streams[stream]).append(work)

    def view(self, place: str, address: int, size: int) -> np.ndarray:
        assert address in self.memory[place], f"{address} is no {place} memory"
        assert size <= len(self.memory[place][address]), "beyond the end"
        return np.asarray(memoryview(self.memory[place][address]), dtype=np.uint8)[:size]

    def _copy(self, target: int, source: int, size: int, places: tuple[str, str]) -> None:
        self.view(places[0], target, size)[:] = self.view(places[1], source, size)

    def _allocate(self, place: str, size: int) -> int:
        block = (ctypes.c_uint8 * size)(*([0xAA] * min(size, 8)))
        address = ctypes.addressof(block)
        self.memory[place][address] = block
        return address

    def _handle(self) -> int:
        self._next += 1
        return self._next


class HostContext:
    """``IExecutionContext``: the mask of uint8 images (N, H, W, 3) is each pixel's strongest channel."""

    def __init__(self, cuda: HostCuda, capturable: bool) -> None:
        self._cuda, self._capturable = cuda, capturable
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shape = tuple(shape)
        return name == "image" and len(shape) == 4

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shape if name == "image" else self._shape[:3]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return address in self._cuda.memory["device"]

    def is_stream_capturable(self, stream: int) -> bool:
        return self._capturable

    def execute_async_v3(self, stream: int) -> bool:
        shape, addresses = self._shape, dict(self._addresses)
        pixels = int(np.prod(shape[:3]))

        def work() -> None:
            images = self._cuda.view("device", addresses["image"], 3 * pixels).reshape(shape)
            self._cuda.view("device", addresses["mask"], pixels)[:] = images.argmax(-1).ravel()

        self._cuda.put(stream, work)
        return True


def host_tensorrt(cuda: HostCuda, version: str, *, capturable: bool = True, dtype: str = "UINT8") -> Any:
    """A module like ``tensorrt_rtx`` whose runtime takes any plan for that network."""
    modes = SimpleNamespace(INPUT="in", OUTPUT="out")
    engine = SimpleNamespace(
        num_io_tensors=2,
        get_tensor_name=lambda index: ("image", "mask")[index],
        get_tensor_mode=lambda name: "in" if name == "image" else "out",
        get_tensor_shape=lambda name: (-1, -1, -1, 3) if name == "image" else (-1, -1, -1),
        get_tensor_dtype=lambda name: SimpleNamespace(name=dtype),
        create_execution_context=lambda: HostContext(cuda, capturable),
    )

    class Logger:
        Severity = SimpleNamespace(ERROR=1, INTERNAL_ERROR=0)

    runtime = SimpleNamespace(deserialize_cuda_engine=lambda plan: engine if plan else None)
    return SimpleNamespace(__version__=version, ILogger=Logger, Runtime=lambda logger: runtime, TensorIOMode=modes)
