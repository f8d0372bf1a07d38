"""TensorRT's two flavours behind one door: the only module that imports ``tensorrt`` or ``tensorrt_rtx``.

Both have the same builder, parser, runtime and context calls. ``tensorrt-rtx`` installs from PyPI and builds for GPUs that
are not there; ``tensorrt`` builds for the GPU of the machine, data-centre chips included, and its wheels depend on
libraries that only NVIDIA's own index carries.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass, field
from typing import Any, get_args

from dropclass_deploy.core.errors import MissingExtraError, UserError
from dropclass_deploy.serving.runtimes.tensorrt_native.engine_record import Flavour

AUTO = "auto"
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)
MODULES: dict[str, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
OLDEST = {"tensorrt": (10, 12), "tensorrt-rtx": (1, 7)}
NVIDIA_INDEX = "https://pypi.nvidia.com"
DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT8": "int8", "UINT8": "uint8"}
DTYPES |= {"INT32": "int32", "INT64": "int64", "BOOL": "bool"}


@dataclass(frozen=True)
class Library:
    """An imported TensorRT.

    Attributes:
        flavour: "tensorrt" or "tensorrt-rtx".
        version: of the library.
        module: its Python module.
    """

    flavour: Flavour
    version: str
    module: Any


@dataclass
class Messages:
    """What TensorRT said through its logger; errors only.

    Attributes:
        logger: the object that the library takes as its logger; it must outlive all that was made with it.
    """

    errors: list[str] = field(default_factory=list)
    logger: Any = None

    def one_line(self, otherwise: str) -> str:
        """The first error that says something, on one line, or ``otherwise``; and forget them all."""
        lines = [_plain(error) for error in self.errors]
        self.errors.clear()
        # Without a driver every call also complains of the missing driver: that is the reason only where it is alone.
        telling = [line for line in lines if "catchCudaError" not in line] or lines
        return next((line for line in telling if line), otherwise)


def import_tensorrt(flavour: str = AUTO, *, ahead_of_time: bool = False) -> Library:
    """Import one flavour.

    Args:
        flavour: "tensorrt", "tensorrt-rtx" or "auto": whichever is installed.
        ahead_of_time: "auto" then takes tensorrt-rtx, the one that builds for a GPU that is not there.

    Raises:
        UserError: for a flavour that does not exist or is too old. MissingExtraError: when it is not installed.
    """
    if flavour != AUTO:
        return _import_one(_known(flavour))
    order: tuple[Flavour, ...] = ("tensorrt-rtx",) if ahead_of_time else FLAVOURS
    for name in order:
        try:
            return _import_one(name)
        except MissingExtraError:
            continue
    raise MissingExtraError("tensorrt_rtx", "tensorrt-rtx")


def likely_flavour(flavour: str) -> Flavour:
    """The flavour that is meant, without importing it: the one asked for, else one that is installed, else tensorrt-rtx.

    Raises:
        UserError: for a flavour that does not exist.
    """
    if flavour != AUTO:
        return _known(flavour)
    return next((name for name in FLAVOURS if importlib.util.find_spec(MODULES[name]) is not None), "tensorrt-rtx")


def _known(flavour: str) -> Flavour:
    for name in FLAVOURS:
        if name == flavour:
            return name
    raise UserError(f"there is no TensorRT library {flavour!r}", expected=f"one of {', '.join((AUTO, *FLAVOURS))}")


def _import_one(flavour: Flavour) -> Library:
    try:
        module = importlib.import_module(MODULES[flavour])
    except ImportError as error:
        raise missing_package(MODULES[flavour], flavour) from error
    version = str(module.__version__)
    if _numbers(version)[:2] < OLDEST[flavour]:
        oldest = ".".join(str(number) for number in OLDEST[flavour])
        raise UserError(f"{flavour} {version} is installed", expected=f"version {oldest} or newer")
    return Library(flavour, version, module)


def missing_package(package: str, flavour: Flavour) -> MissingExtraError:
    """The error for a package that a flavour's extra brings."""
    return MissingExtraError(package, flavour, index=NVIDIA_INDEX if flavour == "tensorrt" else "")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def error_log(library: Library) -> Messages:
    """A logger for ``library`` that keeps its errors and prints nothing."""
    messages = Messages()
    base = library.module.ILogger
    wanted = (base.Severity.ERROR, base.Severity.INTERNAL_ERROR)

    def start(self: Any) -> None:
        base.__init__(self)

    def log(self: Any, severity: Any, message: str) -> None:  # noqa: ARG001 (the library calls it as a method)
        if severity in wanted:
            messages.errors.append(message)

    messages.logger = type("ErrorLog", (base,), {"__init__": start, "log": log})()
    return messages


def numpy_name(data_type: Any) -> str:
    """NumPy's name of a TensorRT data type, or the library's own where NumPy has none."""
    name = str(data_type.name)
    return DTYPES.get(name, name.lower())


def _plain(message: str) -> str:
    """A message on one line, without the file and line of the library's own source."""
    text = re.sub(r"\s*\(?\bIn \S+ at \S+:\d+", "", " ".join(message.split()))
    return re.sub(r"\)+\s*$", "", text).strip()[:300] if text.count(")") > text.count("(") else text.strip()[:300]
