"""What an ONNX file may not ask of the machine, looked at before any runtime opens it.

A network is one self-contained file: no tensor is stored elsewhere (a path in the file would be read by the runtime,
``/etc/passwd`` or a device as readily as weights), and no operator needs a library or a context that lies elsewhere.
Field numbers are those of ``onnx.proto`` (ONNX IR specification).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dropclass_deploy.core.errors import ArtifactError
from dropclass_deploy.core.regular_files import RefusedFileError, read_regular
from dropclass_deploy.serving.runtimes.onnx_file.protobuf_wire import WireError, fields, text

MAX_BYTES = 2**31 - 1
"""A protobuf message, and so a single-file ONNX model, ends at 2 GB."""
MAX_FIELDS = 2_000_000
"""Fields that are walked; a network of thousands of operators has some hundred thousand."""
DEEPEST = 64

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
# Names a compiled blob of some engine, by default in a file beside the network.
REFUSED_OPERATORS = frozenset({"EPContext"})

# Message type → field number → type of the messages in it.
_CHILDREN: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 14: "entry", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external"},
}
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_NODE_OP, _NODE_DOMAIN = 4, 7
_FUNCTION_NAME, _FUNCTION_DOMAIN = 1, 10
_TENSOR_NAME, _TENSOR_LOCATION = 8, 14


class _UnsafeGraphError(Exception):
    """What the file asks for, as the end of a sentence that begins with its name."""


@dataclass
class _Walk:
    """What was met on the way through a model."""

    budget: int = MAX_FIELDS
    graphs: int = 0
    operators: set[tuple[str, str]] = field(default_factory=set)
    functions: set[tuple[str, str]] = field(default_factory=set)
    metadata: dict[str, str] = field(default_factory=dict)


def check_network_file(path: Path, sha256: str | None = None) -> dict[str, str]:
    """Refuse a network file that is more, or less, than one self-contained ONNX model.

    Args:
        path: of the file; read once.
        sha256: of the bytes that it had when its artifact was opened; None where nobody knows them.

    Returns:
        Its ``metadata_props``.

    Raises:
        ArtifactError: when it is no regular file, has other bytes, is no ONNX model, stores tensors elsewhere, uses
            operators that need a library of their own, or names a key of its metadata twice.
    """
    walk = _Walk()
    try:
        content = read_regular(path, MAX_BYTES)
        _check_bytes(path, content, sha256)
        _enter(walk, "model", memoryview(content), 0)
        _judge(walk)
    except _UnsafeGraphError as error:
        raise ArtifactError(
            f"{path} {error}",
            expected="one self-contained ONNX file of standard operators",
            remedy="do not use it, or export the run again",
        ) from error
    except (WireError, RefusedFileError, OSError) as error:
        reason = (
            error.strerror if isinstance(error, OSError) else error if isinstance(error, WireError) else f"it {error}"
        )
        raise ArtifactError(f"{path} cannot be read as an ONNX model: {reason}", expected="an ONNX file") from error
    return walk.metadata


def _check_bytes(path: Path, content: bytes, sha256: str | None) -> None:
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ArtifactError(
            f"{path} has changed since the artifact was opened (sha256)",
            expected="the file that its manifest names",
            remedy="open the artifact again; a server: restart it",
        )


def _judge(walk: _Walk) -> None:
    if not walk.graphs:
        raise _UnsafeGraphError("is no ONNX model: it has no graph")
    for domain, operator in sorted(walk.operators):
        # A function of the file's own explains a foreign name, never a refused one: a runtime may still take its own.
        own = (domain, operator) in walk.functions
        if operator in REFUSED_OPERATORS or (domain not in DOMAINS and not own):
            raise _UnsafeGraphError(f"needs the operator {operator[:80]!r} of {domain[:80]!r}, which is no part of it")


def _enter(walk: _Walk, kind: str, message: memoryview, depth: int) -> None:
    if depth > DEEPEST:
        raise WireError(f"messages nested deeper than {DEEPEST}")
    _note(walk, kind, message)
    children = _CHILDREN.get(kind, {})
    for number, value in fields(message):
        walk.budget -= 1
        if walk.budget < 0:
            raise WireError(f"it has more than {MAX_FIELDS:,} fields")
        if kind == "tensor" and number == _TENSOR_LOCATION and value != 0:
            raise _UnsafeGraphError(f"stores the tensor {text(message, _TENSOR_NAME)[:80]!r} outside of itself")
        if number in children and isinstance(value, memoryview):
            _enter(walk, children[number], value, depth + 1)


def _note(walk: _Walk, kind: str, message: memoryview) -> None:
    if kind == "external":
        raise _UnsafeGraphError("stores a tensor outside of itself")
    if kind == "graph":
        walk.graphs += 1
    elif kind == "node":
        walk.operators.add((text(message, _NODE_DOMAIN), text(message, _NODE_OP)))
    elif kind == "function":
        walk.functions.add((text(message, _FUNCTION_DOMAIN), text(message, _FUNCTION_NAME)))
    elif kind == "entry":
        key = text(message, _ENTRY_KEY)
        if key in walk.metadata:
            raise _UnsafeGraphError(f"has the metadata {key[:80]!r} twice")
        walk.metadata[key] = text(message, _ENTRY_VALUE)
