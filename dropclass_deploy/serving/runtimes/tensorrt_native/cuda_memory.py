"""CUDA's runtime in the few calls that an engine needs: the only module that imports ``cuda.bindings``.

Every call returns its status first; anything but success is raised. No torch, no CuPy.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from dropclass_deploy.core.errors import DropclassError, UserError
from dropclass_deploy.serving.runtimes.base import Array
from dropclass_deploy.serving.runtimes.tensorrt_native.tensorrt_library import AUTO, likely_flavour, missing_package

NO_DEVICE = ("cudaErrorInsufficientDriver", "cudaErrorNoDevice", "cudaErrorInitializationError")


class Cuda:
    """The CUDA runtime library.

    Args:
        flavour: of the TensorRT that shall run on it, or "auto"; its extra brings the bindings.

    Raises:
        MissingExtraError: without cuda-bindings.
    """

    def __init__(self, flavour: str = AUTO) -> None:
        try:
            self._library: Any = importlib.import_module("cuda.bindings.runtime")
        except ImportError as error:
            raise missing_package("cuda-bindings", likely_flavour(flavour)) from error

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the library; its value, a tuple of several, or None.

        Raises:
            UserError: when no driver or GPU answers. DropclassError: for every other status but success.
        """
        status, *values = getattr(self._library, name)(*arguments)
        if int(status) != 0:
            raise self._error(name, status)
        return None if not values else values[0] if len(values) == 1 else tuple(values)

    def compute_capability(self, device: int = 0) -> str:
        """Of a GPU: "8.9"."""
        attributes = self._library.cudaDeviceAttr
        major, minor = (
            self.call("cudaDeviceGetAttribute", attribute, device)
            for attribute in (
                attributes.cudaDevAttrComputeCapabilityMajor,
                attributes.cudaDevAttrComputeCapabilityMinor,
            )
        )
        return f"{major}.{minor}"

    def new_stream(self) -> Any:
        """A stream that does not wait for the default one."""
        return self.call("cudaStreamCreateWithFlags", self._library.cudaStreamNonBlocking)

    def upload(self, target: int, source: int, size: int, stream: Any) -> None:
        """Copy ``size`` bytes from page-locked host memory to the device, in the order of the stream."""
        self.call("cudaMemcpyAsync", target, source, size, self._library.cudaMemcpyKind.cudaMemcpyHostToDevice, stream)

    def download(self, target: int, source: int, size: int, stream: Any) -> None:
        """Copy ``size`` bytes from the device to page-locked host memory, in the order of the stream."""
        self.call("cudaMemcpyAsync", target, source, size, self._library.cudaMemcpyKind.cudaMemcpyDeviceToHost, stream)

    def synchronise(self, stream: Any) -> None:
        """Wait until all that was put on the stream is done."""
        self.call("cudaStreamSynchronize", stream)

    def capture(self, stream: Any, work: Callable[[], bool]) -> Any:
        """What ``work`` puts on the stream, as a graph to launch again and again; None when it cannot be captured."""
        # Thread-local: what other threads do meanwhile (allocate, say) cannot spoil this capture.
        mode = self._library.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call("cudaStreamBeginCapture", stream, mode)
        captured = False
        try:
            captured = work()
        finally:  # or the stream would stay in capture mode
            status, graph = self._library.cudaStreamEndCapture(stream)
        try:
            usable = captured and int(status) == 0
            return self.call("cudaGraphInstantiate", graph, 0) if usable else None
        finally:
            if graph is not None:
                self.release("cudaGraphDestroy", graph)
            self._library.cudaGetLastError()  # a spoilt capture leaves its status behind for the next caller

    def launch(self, graph: Any, stream: Any) -> None:
        """Put a captured graph on the stream."""
        self.call("cudaGraphLaunch", graph, stream)

    def release(self, name: str, *arguments: Any) -> None:
        """Give something back. At the end of a process the driver may be gone first: nothing is left to give back then."""
        getattr(self._library, name)(*arguments)

    def _error(self, name: str, status: Any) -> DropclassError:
        described = self._library.cudaGetErrorString(status)[1]
        text = described.decode() if isinstance(described, bytes) else str(described)
        if getattr(status, "name", "") in NO_DEVICE:
            return UserError(
                f"no NVIDIA GPU answers: {text}",
                expected="a GPU with a driver as new as the installed CUDA libraries",
                remedy="run the engine on a machine that has one, or use the ONNX file with --runtime onnxruntime",
            )
        return DropclassError(f"CUDA failed in {name}: {text}")


class Buffer:
    """One tensor's memory on the device and its page-locked mirror on the host; grows, never shrinks.

    Attributes:
        device: address on the GPU; 0 before the first ``reserve``.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._capacity = 0
        self.device = 0
        self._host = 0

    def reserve(self, size: int) -> None:
        """Make room for ``size`` bytes; addresses change only when the room grows."""
        if size <= self._capacity:
            return
        self.close()
        self.device = int(self._cuda.call("cudaMalloc", size))
        self._host = int(self._cuda.call("cudaMallocHost", size))
        self._capacity = size

    def host(self, shape: tuple[int, ...], dtype: str) -> Array:
        """The host's mirror as an array; valid until the next ``reserve`` or ``close``."""
        kind = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        memory = memoryview((ctypes.c_uint8 * size).from_address(self._host))
        mirror: Array = np.asarray(memory, dtype=np.uint8).view(kind).reshape(shape)
        return mirror

    def upload(self, value: Array, stream: Any) -> None:
        """Copy an array to the device."""
        np.copyto(self.host(value.shape, value.dtype.name), value)
        self._cuda.upload(self.device, self._host, value.nbytes, stream)

    def download(self, size: int, stream: Any) -> None:
        """Start copying ``size`` bytes back; read them by ``host`` once the stream is done."""
        self._cuda.download(self._host, self.device, size, stream)

    def close(self) -> None:
        """Give both back."""
        if self.device:
            self._cuda.release("cudaFree", self.device)
        if self._host:
            self._cuda.release("cudaFreeHost", self._host)
        self.device = self._host = self._capacity = 0
