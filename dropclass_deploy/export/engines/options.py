"""What an engine is built for, and the shapes that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.model_files import DENSE, model_file
from dropclass_deploy.export.shapes import Shape, describe_shape, parse_shape
from dropclass_deploy.serving.runtimes.tensorrt_native.engine_record import Profile, Size
from dropclass_deploy.serving.runtimes.tensorrt_native.tensorrt_library import AUTO, FLAVOURS

AHEAD_OF_TIME = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""Compute capabilities that TensorRT-RTX 1.7 builds for without the GPU; 9.0 (Hopper) is none of its."""


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is built.

    Attributes:
        library: "tensorrt", "tensorrt-rtx" or "auto": whichever is installed (tensorrt-rtx for a GPU that is elsewhere).
        precision: of the ONNX file to build from ("fp32", "fp16" …); nothing is converted while building.
        compute_capabilities: of the GPUs to build for, such as ("8.6", "8.9"); empty: the GPU of this machine, and
            without one TensorRT-RTX's own set.
        shape: one image shape (N, H, W) for a dynamic network: height and width are fixed, batches of 1 to N are taken.
        profile: smallest, best and largest image shape (N, H, W), instead of ``shape``.
        workspace_mib: limit of scratch memory.
        tf32: let float32 convolutions round their inputs to TF32 (10 bits of mantissa). TensorRT's own default is yes.
        evidence: folder for ``engines/``; default the artifact's ``evidence/``.

    Raises:
        UserError: for values that do not exist or contradict each other.
    """

    library: str = AUTO
    precision: str = "fp32"
    compute_capabilities: tuple[str, ...] = ()
    shape: Size | None = None
    profile: Profile | None = None
    workspace_mib: int | None = None
    tf32: bool = False
    evidence: Path | None = None

    def __post_init__(self) -> None:
        model_file(DENSE, self.precision)
        if self.library not in (AUTO, *FLAVOURS):
            raise UserError(
                f"there is no TensorRT library {self.library!r}", expected=f"one of {', '.join((AUTO, *FLAVOURS))}"
            )
        if self.shape is not None and self.profile is not None:
            raise UserError("both a shape and a profile are given", expected="one of them")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise UserError(f"the workspace limit is {self.workspace_mib} MiB", expected="at least 1")
        _check_capabilities(self.compute_capabilities, self.library)


def _check_capabilities(capabilities: tuple[str, ...], library: str) -> None:
    if capabilities and library == "tensorrt":
        raise UserError(
            "tensorrt builds for the GPU of this machine only",
            remedy="leave --compute-capability out, or take --library tensorrt-rtx",
        )
    for capability in capabilities:
        if capability not in AHEAD_OF_TIME:
            raise UserError(
                f"TensorRT-RTX does not build for compute capability {capability!r}",
                expected=f"one of {', '.join(AHEAD_OF_TIME)}",
                remedy="for a data-centre GPU build on that machine with --library tensorrt",
            )
    if len(set(capabilities)) < len(capabilities):
        raise UserError(f"a compute capability is named twice: {', '.join(capabilities)}")


def parse_size(text: str) -> Size:
    """Read ``"1x512x1024"`` as (N, H, W), all fixed.

    Raises:
        UserError: for anything else.
    """
    batch, height, width = parse_shape(text)
    if batch is None or height is None or width is None:
        raise UserError(f"the shape {text!r} leaves a size open", expected="three numbers, such as 1x512x1024")
    return batch, height, width


def make_profile(smallest: Size, best: Size, largest: Size) -> Profile:
    """A profile of three shapes (N, H, W). Raises UserError unless they grow."""
    try:
        return Profile(min=smallest, opt=best, max=largest)
    except ValidationError as error:
        shapes = " ".join(describe_shape(shape) for shape in (smallest, best, largest))
        raise UserError(
            f"the profile {shapes} does not grow", expected="MIN <= OPT <= MAX in each of N, H and W"
        ) from error


def resolve_profile(network: Shape, options: EngineOptions, seen_size: tuple[int, int] | None = None) -> Profile | None:
    """The profile of a network whose input has the shape (N, H, W); None is dynamic. A static network has none.

    Args:
        network: (N, H, W).
        options: with a shape, a profile or neither.
        seen_size: (height, width) that the preprocessing gives every input, to propose.

    Raises:
        UserError: when a dynamic network gets no shapes, or a fixed size another one.
    """
    asked = options.profile or _around(network, options.shape)
    if asked is None and None in network:
        raise UserError(
            f"the network takes images of any size ({describe_shape(network)}) and an engine needs to know which",
            expected="a shape, or the smallest, best and largest",
            remedy="add --shape 1x512x1024, or --profile 1x256x512 1x512x1024 4x512x1024"
            if seen_size is None
            else f"add --shape 1x{seen_size[0]}x{seen_size[1]}, the size that the artifact's preprocessing makes",
        )
    for size in (asked.min, asked.opt, asked.max) if asked else ():
        if any(fixed not in (None, given) for fixed, given in zip(network, size, strict=True)):
            raise UserError(
                f"the shape {describe_shape(size)} is asked for", expected=f"{describe_shape(network)}, as exported"
            )
    return asked if None in network else None


def _around(network: Shape, shape: Size | None) -> Profile | None:
    """One shape, and where the batch is dynamic every smaller batch: the size of an image rarely changes, its number does."""
    if shape is None:
        return None
    batch, height, width = shape
    return make_profile((batch if network[0] else 1, height, width), shape, shape)
