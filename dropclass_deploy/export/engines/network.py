"""An ONNX file as a TensorRT network definition: parsed, and seen to be what an artifact's mask file is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dropclass_deploy.core.errors import ArtifactError
from dropclass_deploy.export.engines.first_cast import with_cast_first
from dropclass_deploy.export.shapes import Shape
from dropclass_deploy.serving.mask_layout import MASK_DTYPES
from dropclass_deploy.serving.runtimes.base import TensorSpec
from dropclass_deploy.serving.runtimes.onnx_file.graph_io import GraphIO, takes_planes
from dropclass_deploy.serving.runtimes.tensorrt_native.tensorrt_library import Library, Messages, error_log, numpy_name


@dataclass(frozen=True)
class Definition:
    """A parsed network; the builder and the logger live as long as it does."""

    library: Library
    builder: Any
    network: Any
    messages: Messages
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def check_mask_io(path: Path, found: GraphIO) -> Shape:
    """(N, H, W) of a mask file's input; None is dynamic.

    Raises:
        ArtifactError: unless the file takes one uint8 image (N, H, W, 3) and gives one integer mask.
    """
    images, masks = found.inputs, found.outputs
    fits = len(images) == len(masks) == 1 and images[0].dtype == "uint8" and masks[0].dtype in MASK_DTYPES
    if not fits or len(images[0].shape) != 4 or images[0].shape[3] != 3 or len(masks[0].shape) not in (3, 4):
        raise ArtifactError(
            f"{path} takes {_listed(images)} and gives {_listed(masks)}",
            expected="image uint8 (N, H, W, 3) → mask (N, H, W) of an integer type, as an artifact's mask file has",
            remedy="export without --no-bake-preprocess" if takes_planes(found) else "",
        )
    batch, height, width = images[0].shape[:3]
    return batch, height, width


def parse_network(path: Path, library: Library, declared: GraphIO) -> Definition:
    """Parse an ONNX file into a strongly typed network: each tensor has the type that the file gives it.

    Raises:
        ArtifactError: naming the operator that TensorRT cannot take, or when it sees other inputs and outputs than
            ``declared``.
    """
    messages = error_log(library)
    builder = library.module.Builder(messages.logger)
    network = builder.create_network(_flags(library.module))
    parser = library.module.OnnxParser(network, messages.logger)
    if not parser.parse(with_cast_first(path.read_bytes())):
        raise ArtifactError(
            f"{path} cannot be taken by {library.flavour} {library.version}: {_parser_error(parser, messages)}",
            expected="operators that TensorRT's ONNX parser knows",
        )
    inputs = tuple(_spec(network.get_input(index)) for index in range(network.num_inputs))
    outputs = tuple(_spec(network.get_output(index)) for index in range(network.num_outputs))
    if [_face(spec) for spec in inputs + outputs] != [_face(spec) for spec in declared.inputs + declared.outputs]:
        raise ArtifactError(
            f"{library.flavour} reads {_listed(inputs)} → {_listed(outputs)} from {path}",
            expected=f"{_listed(declared.inputs)} → {_listed(declared.outputs)}",
        )
    messages.errors.clear()
    return Definition(library, builder, network, messages, inputs, outputs)


def _flags(module: Any) -> int:
    """Strongly typed where that is a choice (10.12 and later 10.x); newer versions know nothing else."""
    flag = getattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parser_error(parser: Any, messages: Messages) -> str:
    if not parser.num_errors:
        return messages.one_line("no reason given")
    error = parser.get_error(0)
    operator, node = str(error.node_operator()), str(error.node_name())
    # The driver's absence is complained of in each message and is not the reason.
    lines = [line.strip() for line in str(error.desc()).splitlines() if line.strip() and "catchCudaError" not in line]
    said = [line for line in lines if line != "false" and not line.startswith("Invalid Node")]
    place = f"the operator {operator}" + (f" (node {node})" if node else "") if operator else "the file"
    return " ".join(f"{place} is not supported: {said[0]}".split())[:400] if said else f"{place} is not supported"


def _spec(tensor: Any) -> TensorSpec:
    shape = tuple(int(size) if size >= 0 else None for size in tensor.shape)
    return TensorSpec(str(tensor.name), numpy_name(tensor.dtype), shape)


def _face(spec: TensorSpec) -> tuple[str, str, int]:
    """What both readers of a file must agree on; TensorRT may know more of an output's sizes than the file says."""
    return spec.name, spec.dtype, len(spec.shape)


def _listed(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(map(str, specs)) or "nothing"
