"""TensorRT without ONNX Runtime and without torch: runs the plan that ``dropclass engine`` built."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dropclass_deploy.core.errors import ArtifactError, UserError
from dropclass_deploy.serving.runtimes.base import Array, Feeds, TensorSpec
from dropclass_deploy.serving.runtimes.feeds import check_feeds
from dropclass_deploy.serving.runtimes.tensorrt_native.cuda_memory import Cuda
from dropclass_deploy.serving.runtimes.tensorrt_native.engine_choice import Engine, choose_engine
from dropclass_deploy.serving.runtimes.tensorrt_native.engine_execution import Execution, check_profile, contiguous
from dropclass_deploy.serving.runtimes.tensorrt_native.tensorrt_library import AUTO, error_log, numpy_name


class TensorRTEngine:
    """One plan on the first GPU; see ``base.Runtime`` for what the attributes mean.

    An engine cannot fall back to anything: ``provider`` is the library that runs it. ``precision`` and ``metadata`` are
    those of the ONNX file that it was built from, with "+tf32" where that was allowed. Calls from several threads take turns.

    Args:
        path: of a ``.plan``, or of an artifact's ONNX file (see ``engine_choice.choose_engine``).
        library: "tensorrt", "tensorrt-rtx", or "auto": the one that built the plan.

    Raises:
        ArtifactError: when there is no plan, or plan, sidecar, ONNX file and library do not belong together; nothing is
            deserialised then. UserError: when no GPU answers. MissingExtraError: without TensorRT or cuda-bindings.
    """

    name = "tensorrt"

    def __init__(self, path: Path, *, library: str = AUTO) -> None:
        self._cuda = Cuda(library)
        capability, absent = _gpu(self._cuda)
        found = choose_engine(path, library, capability)
        if absent is not None:
            raise absent
        self._profile = found.record.request.profile
        self.requested_provider: str = found.library.flavour
        self.provider: str = found.library.flavour
        self.precision = found.record.request.arithmetic
        self.inputs = tuple(tensor.spec() for tensor in found.record.inputs)
        self.outputs = tuple(tensor.spec() for tensor in found.record.outputs)
        self.metadata = dict(found.record.metadata)
        self._lock = threading.Lock()
        self._bound: weakref.WeakSet[Execution] = weakref.WeakSet()
        self._messages = error_log(found.library)
        self._engine: Any = self._deserialise(path, found)
        self._execution: Execution | None = self._new_execution()

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Every output by name. Raises UserError when a feed does not fit the network."""
        with self._lock:
            execution = self._opened()
            self._check(feeds)
            execution.place(contiguous(feeds))
            execution.launch()
            return execution.fetch()

    def bind(self, feeds: Feeds) -> Callable[[], None]:
        """Inputs and outputs resident on the GPU: each call launches one CUDA graph and waits for it."""
        with self._lock:
            self._opened()
            self._check(feeds)
            execution = self._new_execution()
            self._bound.add(execution)
            bound = _Bound(execution)  # from here on its memory goes with it, whatever fails
            execution.place(contiguous(feeds))
            execution.capture()
        return bound

    def close(self) -> None:
        """Give the GPU's memory back, that of bound calls included."""
        with self._lock:
            for execution in (*self._bound, *([self._execution] if self._execution else [])):
                execution.close()
            self._execution = self._engine = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> Execution:
        if self._execution is None:
            raise UserError("the runtime is closed", remedy="open it again before running it")
        return self._execution

    def _check(self, feeds: Feeds) -> None:
        check_feeds(feeds, self.inputs, "TensorRT")
        check_profile(feeds, self.inputs, self._profile)

    def _new_execution(self) -> Execution:
        return Execution(self._cuda, self._engine, self._messages, self.outputs)

    def _deserialise(self, path: Path, found: Engine) -> Any:
        library = found.library.module
        # The runtime and the logger must outlive the engine.
        self._library_runtime = library.Runtime(self._messages.logger)
        engine = self._library_runtime.deserialize_cuda_engine(found.plan)
        if engine is None:
            raise ArtifactError(
                f"{path}: TensorRT cannot load the engine: {self._messages.one_line('no reason given')}",
                remedy="build it again on this machine: dropclass engine ARTIFACT",
            )
        _check_tensors(path, engine, library, (*self.inputs, *self.outputs))
        return engine


def _gpu(cuda: Cuda) -> tuple[str | None, UserError | None]:
    """The GPU's compute capability, or why there is none.

    Without a driver TensorRT itself only returns None; a plan that must not run is refused with or without a GPU.
    """
    try:
        return cuda.compute_capability(), None
    except UserError as error:
        return None, error


class _Bound:
    """A call that runs resident tensors; its memory goes when it goes."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        weakref.finalize(self, execution.close)

    def __call__(self) -> None:
        """Run once and wait. Raises UserError when the runtime was closed."""
        self._execution.launch()
        self._execution.wait()


def _check_tensors(path: Path, engine: Any, library: Any, specs: tuple[TensorSpec, ...]) -> None:
    """The plan's tensors are those that its sidecar names."""
    found = [_spec(engine, engine.get_tensor_name(index)) for index in range(engine.num_io_tensors)]
    modes = [engine.get_tensor_mode(spec.name) == library.TensorIOMode.INPUT for spec in found]
    ordered = [spec for kind in (True, False) for spec, mode in zip(found, modes, strict=True) if mode is kind]
    if len(ordered) != len(specs) or not all(map(_agree, ordered, specs)):
        raise ArtifactError(
            f"{path}: the engine has {', '.join(map(str, ordered))}",
            expected=f"{', '.join(map(str, specs))}, as its sidecar says",
            remedy="build it again: dropclass engine ARTIFACT",
        )


def _agree(found: TensorSpec, wanted: TensorSpec) -> bool:
    """The same tensor; an engine may fix a dimension that its network left open (a profile of one size)."""
    sizes = zip(found.shape, wanted.shape, strict=False)
    return (found.name, found.dtype, len(found.shape)) == (wanted.name, wanted.dtype, len(wanted.shape)) and all(
        None in pair or pair[0] == pair[1] for pair in sizes
    )


def _spec(engine: Any, name: str) -> TensorSpec:
    shape = tuple(int(size) if size >= 0 else None for size in engine.get_tensor_shape(name))
    return TensorSpec(name, numpy_name(engine.get_tensor_dtype(name)), shape)
