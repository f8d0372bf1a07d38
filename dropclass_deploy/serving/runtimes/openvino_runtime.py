"""OpenVINO on the CPU: the only module that imports ``openvino``."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, LifoQueue
from types import TracebackType
from typing import Any, Self

from dropclass_deploy.core.errors import ArtifactError, MissingExtraError, UserError, first_line
from dropclass_deploy.serving.runtimes.base import Array, Feeds
from dropclass_deploy.serving.runtimes.feeds import check_feeds
from dropclass_deploy.serving.runtimes.memory import refuse_out_of_memory
from dropclass_deploy.serving.runtimes.no_telemetry import import_quietly
from dropclass_deploy.serving.runtimes.onnx_file.graph_io import read_graph_io
from dropclass_deploy.serving.runtimes.onnx_file.graph_precision import read_precision

CPU = "CPU"
OWN_SIZES = 8
"""So many input sizes get a network compiled for just that size (1.5 times as fast as the one for any size); later ones
share the network for any size, so that a folder of odd photographs is not compiled for each of them."""

Sizes = tuple[tuple[int, ...], ...]
HINTS = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}
_TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


class OpenVino:
    """One ONNX file compiled by OpenVINO; see ``base.Runtime`` for what the attributes mean.

    OpenVINO's own default computes in bfloat16 on CPUs that can; here the precision of floating point is always asked for by
    name, and read back.

    Args:
        path: of the ``.onnx`` file.
        hint: "f32" or "bf16".
        threads: of the whole network; None leaves the choice to OpenVINO.

    Raises:
        MissingExtraError: without openvino. UserError: when the CPU or this OpenVINO does not compute in what was asked for.
        ArtifactError: when the file is no network that OpenVINO can load.
    """

    name = "openvino"

    def __init__(self, path: Path, *, hint: str = "f32", threads: int | None = None) -> None:
        if not path.is_file():
            raise ArtifactError(f"{path} does not exist or is no file", expected="an ONNX file")
        if threads is not None and threads < 1:
            raise UserError(f"{threads} threads were asked for", expected="at least 1")
        self._core: Any = openvino_core()
        self._path, self._hint, self._threads = path, hint, threads
        self._lock = threading.Lock()
        self._by_size: dict[Sizes, Future[_Compiled]] = {}
        self._closed = False
        self._model = self._read()
        # A port may go by several names, of which OpenVINO gives any: the graph's own is the one that was meant.
        signature = read_graph_io(path)
        self.inputs, self.outputs, self.metadata = signature.inputs, signature.outputs, signature.metadata
        self._is_sized = all(size is not None for spec in self.inputs for size in spec.shape)
        self._for_any_size: _Compiled | None = self._compile(self._model)
        first = self._for_any_size
        self.requested_provider = CPU if hint == "f32" else f"{CPU} {hint}"
        self.provider = " ".join([*first.devices, *([first.hint] if first.hint != "f32" else [])])
        graph = read_precision(path)
        self.precision = graph if hint == "f32" else (HINTS[hint] if graph == "fp32" else f"{graph}+{HINTS[hint]}")

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Every output by name. Raises UserError when a feed does not fit the network."""
        check_feeds(feeds, self.inputs, "OpenVINO")
        compiled = self._compiled_for(feeds)
        try:
            return dict(zip((spec.name for spec in self.outputs), compiled.infer(dict(feeds)), strict=True))
        except RuntimeError as error:
            refuse_out_of_memory(self.name, error)
            raise UserError(
                f"OpenVINO refused the input: {_reason(error)}", expected=", ".join(str(spec) for spec in self.inputs)
            ) from error

    def bind(self, feeds: Feeds) -> Callable[[], None]:
        """Inputs stay where they are; each call of the result only runs the network."""
        self.run(feeds)
        compiled = self._compiled_for(feeds)
        request = compiled.request()
        shared = dict(feeds)

        def call() -> None:
            request.infer(shared, share_inputs=True, share_outputs=True)

        return call

    def close(self) -> None:
        """Let the compiled networks go."""
        with self._lock:
            self._closed, self._for_any_size = True, None
            self._by_size.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> Any:
        try:
            return self._core.read_model(os.fspath(self._path))
        except RuntimeError as error:
            raise ArtifactError(
                f"{self._path} cannot be loaded by OpenVINO: {_reason(error)}", expected="a complete ONNX file"
            ) from error

    def _compile(self, model: Any) -> _Compiled:
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": self._hint}
        if self._threads is not None:
            settings["INFERENCE_NUM_THREADS"] = str(self._threads)
        try:
            compiled = _Compiled(self._core.compile_model(model, CPU, settings))
        except RuntimeError as error:
            raise ArtifactError(
                f"{self._path} cannot be compiled by OpenVINO: {_reason(error)}", expected="operators that it knows"
            ) from error
        if compiled.hint != self._hint:
            raise UserError(
                f"OpenVINO computes in {compiled.hint} on this CPU, not in {self._hint} as asked",
                remedy="choose the runtime openvino (float32), or a CPU with bfloat16 instructions",
            )
        return compiled

    def _compiled_for(self, feeds: Feeds) -> _Compiled:
        """The network for the sizes of ``feeds``; a size that is new is compiled by the thread that brings it, and only
        those that want the same size wait for it."""
        sizes = tuple(tuple(feeds[spec.name].shape) for spec in self.inputs)
        with self._lock:
            if self._closed or self._for_any_size is None:
                raise UserError("the runtime is closed", remedy="open it again before running it")
            found = self._by_size.get(sizes)
            if found is None and (self._is_sized or len(self._by_size) >= OWN_SIZES):
                return self._for_any_size
            if found is None:
                own: Future[_Compiled] = Future()
                self._by_size[sizes] = own
        return found.result() if found is not None else self._fill(own, sizes)

    def _fill(self, own: Future[_Compiled], sizes: Sizes) -> _Compiled:
        try:
            compiled = self._compile(self._sized(sizes))
        except BaseException as error:
            with self._lock:
                self._by_size.pop(sizes, None)
            own.set_exception(error)
            raise
        own.set_result(compiled)
        return compiled

    def _sized(self, sizes: tuple[tuple[int, ...], ...]) -> Any:
        model = self._read()
        try:
            model.reshape({spec.name: list(size) for spec, size in zip(self.inputs, sizes, strict=True)})
        except RuntimeError as error:
            raise UserError(
                f"OpenVINO refused the input: {_reason(error)}", expected=", ".join(str(spec) for spec in self.inputs)
            ) from error
        return model


class _Compiled:
    """A compiled network and its requests: one a thread at a time, kept for the next."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._requests: LifoQueue[Any] = LifoQueue()
        self.hint = _TYPES.get(str(compiled.get_property("INFERENCE_PRECISION_HINT").to_dtype()), "another type")
        self.devices = tuple(str(device) for device in compiled.get_property("EXECUTION_DEVICES"))

    def request(self) -> Any:
        """A request of the caller's own."""
        return self._compiled.create_infer_request()

    def infer(self, feeds: dict[str, Array]) -> list[Array]:
        """Every output, copied."""
        try:
            request = self._requests.get_nowait()
        except Empty:
            request = self.request()
        try:
            result = request.infer(feeds)
            return [result[index] for index in range(len(self._compiled.outputs))]
        finally:
            self._requests.put(request)


def openvino_core() -> Any:
    """The process's one core. It is never let go: its plugins' libraries must outlive every network that they compiled, and
    a garbage collector that frees a core first ends the process.
    """
    return _core_of(import_openvino())


@functools.cache
def _core_of(library: Any) -> Any:
    return library.Core()


def import_openvino() -> Any:
    """The library's module. Raises MissingExtraError when it is not installed."""
    try:
        return import_quietly("openvino")
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino") from error


def _reason(error: Exception) -> str:
    """The last line of OpenVINO's text says what was wrong; the first ones say where in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (told or lines or [first_line(error)])[0][:240]
