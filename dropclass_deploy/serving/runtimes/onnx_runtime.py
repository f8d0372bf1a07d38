"""ONNX Runtime: the only module that imports ``onnxruntime``."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dropclass_deploy.core.errors import ArtifactError, MissingExtraError, UserError
from dropclass_deploy.serving.runtimes.base import Array, Feeds, TensorSpec
from dropclass_deploy.serving.runtimes.memory import refuse_out_of_memory
from dropclass_deploy.serving.runtimes.onnx_file.graph_precision import read_precision

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
LISTED = {CPU: [CPU], CUDA: [CUDA], TENSORRT: [TENSORRT, CUDA]}
"""TensorRT leaves to CUDA what it cannot run. The CPU is never listed beside a GPU: that fallback would be a silent one."""
FATAL_ONLY = 4
DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(bool)": "bool"}


class OnnxRuntime:
    """One ONNX file in an ONNX Runtime session; see ``base.Runtime`` for what the attributes mean.

    Args:
        path: of the ``.onnx`` file.
        provider: execution provider; ONNX Runtime may fall back to the CPU without an error, so look at ``provider``.
        threads: of one operator; None leaves the choice to ONNX Runtime.

    Raises:
        MissingExtraError: without onnxruntime. UserError: with both of its wheels, or without the provider.
        ArtifactError: when the file is no network that ONNX Runtime can load.
    """

    name = "onnxruntime"

    def __init__(self, path: Path, *, provider: str = CPU, threads: int | None = None) -> None:
        library = import_onnxruntime()
        _check_provider(library, provider)
        self._library = library
        self._errors = _library_errors(library)
        if provider != CPU and hasattr(library, "preload_dlls"):
            library.preload_dlls(directory="")  # finds CUDA's libraries where pip put them
        self._session: Any = self._open(path, provider, threads)
        self.requested_provider = provider
        self.provider = str(self._session.get_providers()[0])
        self.precision = read_precision(path)
        self.inputs = tuple(_spec(node) for node in self._session.get_inputs())
        self.outputs = tuple(_spec(node) for node in self._session.get_outputs())
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Every output by name. Raises UserError when a feed does not fit the network."""
        session = self._opened()
        names = [spec.name for spec in self.outputs]
        try:
            return dict(zip(names, session.run(names, dict(feeds)), strict=True))
        except self._errors as error:
            refuse_out_of_memory(self.name, error)
            raise self._refusal(error) from error

    def bind(self, feeds: Feeds) -> Callable[[], None]:
        """Inputs and outputs resident (I/O binding): each call of the result only runs the network."""
        session, outputs = self._opened(), self.run(feeds)
        device = "cpu" if self.provider == CPU else "cuda"
        value_of = self._library.OrtValue.ortvalue_from_numpy
        binding = session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, value_of(value, device))
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value_of(value, device))
        return lambda: session.run_with_iobinding(binding)

    def close(self) -> None:
        """Let the session go."""
        self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, path: Path, provider: str, threads: int | None) -> Any:
        if not path.is_file():
            raise ArtifactError(f"{path} does not exist or is no file", expected="an ONNX file")
        try:
            return self._library.InferenceSession(
                os.fspath(path), sess_options=_options(self._library, threads), providers=LISTED[provider]
            )
        except self._errors as error:
            raise ArtifactError(
                f"{path} cannot be loaded by ONNX Runtime: {_one_line(error)}", expected="a complete ONNX file"
            ) from error

    def _opened(self) -> Any:
        session = self._session
        if session is None:
            raise UserError("the runtime is closed", remedy="open it again before running it")
        return session

    def _refusal(self, error: Exception) -> UserError:
        return UserError(
            f"ONNX Runtime refused the input: {_one_line(error)}",
            expected=", ".join(str(spec) for spec in self.inputs),
        )


def import_onnxruntime() -> Any:
    """The library's module, once it is sure that one wheel and not two brought it.

    Raises:
        UserError: when both wheels are installed. MissingExtraError: when none is.
    """
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        raise UserError(
            "both onnxruntime and onnxruntime-gpu are installed and overwrite each other's files",
            expected="one of them",
            remedy="run: pip uninstall -y onnxruntime onnxruntime-gpu, then install "
            "'dropclass-deploy[serve]' (CPU) or 'dropclass-deploy[ort-gpu]' (GPU)",
        )
    try:
        library = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "serve") from error
    # Builds that report their use (those for Windows do by default) are asked not to.
    getattr(library, "disable_telemetry_events", lambda: None)()
    return library


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _check_provider(library: Any, provider: str) -> None:
    available = list(library.get_available_providers())
    if provider not in available:
        raise UserError(
            f"this onnxruntime has no {provider}",
            expected=f"one of {', '.join(available)}",
            remedy="install the build that has it: pip install 'dropclass-deploy[ort-gpu]' for CUDA",
        )


def _options(library: Any, threads: int | None) -> Any:
    options = library.SessionOptions()
    # What goes wrong is raised as one line; the library's own log would print it a second time.
    options.log_severity_level = FATAL_ONLY
    # Idle worker threads otherwise spin on for a while and slow down whatever runs next on the same cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if threads is not None:
        if threads < 1:
            raise UserError(f"{threads} threads were asked for", expected="at least 1")
        options.intra_op_num_threads = threads
    return options


def _library_errors(library: Any) -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions share no base class of their own."""
    module = library.capi.onnxruntime_pybind11_state
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*kinds, RuntimeError, ValueError, TypeError)


def _spec(node: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in node.shape or ())
    inner = str(node.type).removeprefix("tensor(").removesuffix(")")
    return TensorSpec(str(node.name), DTYPES.get(str(node.type), inner), shape)


def _one_line(error: Exception, limit: int = 240) -> str:
    """The library's message without its numeric prefix, on one line, cut to ``limit`` characters."""
    text = " ".join(str(error).split())
    if text.startswith("[ONNXRuntimeError]"):
        text = text.split(" : ", 3)[-1]
    return text if len(text) <= limit else text[: limit - 1] + "…"
