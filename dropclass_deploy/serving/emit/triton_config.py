"""``config.pbtxt``: an ONNX file and how a Triton server runs it, as protobuf's text format.

Field names are those of Triton's ``model_config.proto``; there is no library to write it with, so strings are escaped here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dropclass_deploy.core.errors import ArtifactError
from dropclass_deploy.serving.runtimes.base import TensorSpec
from dropclass_deploy.serving.runtimes.onnx_file.graph_io import GraphIO

TYPES = {"uint8": "TYPE_UINT8", "int8": "TYPE_INT8", "int32": "TYPE_INT32", "int64": "TYPE_INT64"}
TYPES |= {"float16": "TYPE_FP16", "float32": "TYPE_FP32", "bool": "TYPE_BOOL"}


@dataclass(frozen=True)
class Batching:
    """How Triton gathers requests of one image size.

    Attributes:
        largest: images in a batch.
        preferred: sizes at which it stops waiting.
        delay_us: longest wait for more, microseconds.
    """

    largest: int
    preferred: tuple[int, ...]
    delay_us: int


def config_text(
    name: str,
    io: GraphIO,
    *,
    batching: Batching | None,
    gpus: Sequence[int],
    instances: int,
    warm_up: tuple[str, tuple[int, ...]],
    parameters: Mapping[str, str],
) -> str:
    """The whole file.

    Args:
        name: of the model; Triton wants that of its folder.
        io: of the ONNX file.
        batching: None for a network of one batch size: Triton then passes shapes through whole, batch included.
        gpus: to run on; empty: the CPU.
        instances: copies of the model a device.
        warm_up: name of a raw file in ``warmup/`` and the shape of the image in it, as a request has it.
        parameters: free text that clients can read back from the model's configuration.

    Raises:
        ArtifactError: for a tensor type that Triton does not have.
    """
    file, shape = warm_up
    blocks = [
        f"name: {quoted(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {batching.largest if batching else 0}",
        *(_tensor("input", spec, batched=batching is not None) for spec in io.inputs),
        *(_tensor("output", spec, batched=batching is not None) for spec in io.outputs),
        _instances(gpus, instances),
        *([_dynamic_batching(batching)] if batching else []),
        _warm_up(io.inputs[0], file, shape),
        *(_parameter(key, value) for key, value in parameters.items()),
    ]
    return "\n".join(blocks) + "\n"


def quoted(text: str) -> str:
    """A string of the text format: everything but plain ASCII as octal escapes of its UTF-8 bytes."""
    plain = {byte: chr(byte) for byte in range(0x20, 0x7F)} | {ord('"'): '\\"', ord("\\"): "\\\\"}
    return '"' + "".join(plain.get(byte, f"\\{byte:03o}") for byte in text.encode("utf-8")) + '"'


def _tensor(kind: str, spec: TensorSpec, *, batched: bool) -> str:
    sizes = spec.shape[1:] if batched else spec.shape
    return f"{kind} {{ name: {quoted(spec.name)} data_type: {_type(spec)} dims: {_dims(sizes)} }}"


def _type(spec: TensorSpec) -> str:
    if spec.dtype not in TYPES:
        raise ArtifactError(f"{spec.name} is {spec.dtype}", expected=f"a type that Triton takes: {', '.join(TYPES)}")
    return TYPES[spec.dtype]


def _dims(sizes: Sequence[int | None]) -> str:
    return "[ " + ", ".join("-1" if size is None else str(size) for size in sizes) + " ]"


def _instances(gpus: Sequence[int], count: int) -> str:
    place = f"kind: KIND_GPU gpus: {_dims(gpus)}" if gpus else "kind: KIND_CPU"
    return f"instance_group {{ count: {count} {place} }}"


def _dynamic_batching(batching: Batching) -> str:
    preferred = f"preferred_batch_size: {_dims(batching.preferred)} " if batching.preferred else ""
    return f"dynamic_batching {{ {preferred}max_queue_delay_microseconds: {batching.delay_us} }}"


def _warm_up(spec: TensorSpec, file: str, shape: Sequence[int]) -> str:
    """One request before the model says that it is ready: the first run of a shape allocates and picks kernels."""
    image = f"data_type: {_type(spec)} dims: {_dims(shape)} input_data_file: {quoted(file)}"
    return (
        'model_warmup { name: "sample" batch_size: 1 count: 1 '
        f"inputs {{ key: {quoted(spec.name)} value {{ {image} }} }} }}"
    )


def _parameter(key: str, value: str) -> str:
    return f"parameters {{ key: {quoted(key)} value {{ string_value: {quoted(value)} }} }}"
