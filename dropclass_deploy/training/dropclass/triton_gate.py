"""The gate's GPU kernels, in Triton.

Bound by memory: forward reads A and writes A'_drop, backward reads g and A and writes dA, in 16-byte accesses, nothing
else of their size. C appears only in the (C, K) importance. No autotuning and no atomics: block sizes follow from the
shapes, partial sums go into a small buffer that torch sums, so a result is the same bits every time.

Layouts are those of ``plain_gate``: planes (N·K, h·w) and pixels (N·h·w, K). Needs the package triton, which torch brings
along on Linux.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor

from dropclass_deploy.training.dropclass import gate_kernels
from dropclass_deploy.training.dropclass.plain_gate import is_channels_last

# Bytes of A a program holds at a time: 128 threads with four 16-byte accesses each, to hide the memory's latency.
_TILE_BYTES = 8192
# Rows a program of the channels_last layout works down: the gates are read once for them, and backward its two partial
# sums are 1 % of what it moves in float32, 2 % in half precision.
_ROWS = 64
# Columns of such a program, at most: 256 bytes a row in half precision.
_COLUMNS = 128


def gate(features: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """``plain_gate.gate`` for features that are dense, not empty, and float32 at most."""
    result = torch.empty_like(features)
    positive, negative = positive.contiguous(), negative.contiguous()
    channels = features.shape[1]
    with _on(features):
        if is_channels_last(features):
            rows, width, tile = _pixel_tiling(features, _TILE_BYTES)
            columns = triton.cdiv(width, tile["tile_columns"])
            gate_kernels.gate_pixels[(columns * triton.cdiv(rows, _ROWS),)](
                features, positive, negative, result, channels, rows, width, columns, **tile, num_warps=_warps(tile)
            )
        else:
            plane, tile = _plane_tiling(features)
            segments = triton.cdiv(plane, tile["block"])
            gate_kernels.gate_planes[(features.shape[0] * channels * segments,)](
                features, positive, negative, result, channels, plane, segments, **tile, num_warps=_warps(tile)
            )
    return result


def gate_backward(
    grad: Tensor, features: Tensor, positive: Tensor, negative: Tensor, *, features_too: bool, gates_too: bool
) -> tuple[Tensor, Tensor]:
    """``plain_gate.gate_backward`` for features that are dense, not empty, and float32 at most."""
    result = torch.empty_like(features) if features_too else features.new_empty(0)
    positive, negative = positive.contiguous(), negative.contiguous()
    wanted = {"features_too": features_too, "gates_too": gates_too}
    launch = _launch_backward_pixels if is_channels_last(features) else _launch_backward_planes
    with _on(features):
        partial = launch(grad, features, positive, negative, result, wanted)
    return result, partial.sum(1) if gates_too else partial


def _launch_backward_planes(
    grad: Tensor, features: Tensor, positive: Tensor, negative: Tensor, result: Tensor, wanted: dict[str, bool]
) -> Tensor:
    """Partial sums (2, N·segments, K)."""
    images, channels = features.shape[:2]
    plane, tile = _plane_tiling(features)
    segments = triton.cdiv(plane, tile["block"])
    partial = positive.new_empty((2, images * segments, channels) if wanted["gates_too"] else 0)
    gate_kernels.backward_planes[(images * channels * segments,)](
        *(grad, features, positive, negative, result, partial),
        *(channels, plane, segments, images * segments * channels),
        **wanted,
        **tile,
        num_warps=_warps(tile),
    )
    return partial


def _launch_backward_pixels(
    grad: Tensor, features: Tensor, positive: Tensor, negative: Tensor, result: Tensor, wanted: dict[str, bool]
) -> Tensor:
    """Partial sums (2, parts, K)."""
    channels = features.shape[1]
    # Two tensors are read, and two sums stay in registers: half a tile each leaves room for enough programs at a time.
    rows, width, tile = _pixel_tiling(features, _TILE_BYTES // 2)
    columns, parts = triton.cdiv(width, tile["tile_columns"]), triton.cdiv(rows, _ROWS)
    partial = positive.new_empty((2, parts * (width // channels), channels) if wanted["gates_too"] else 0)
    gate_kernels.backward_pixels[(columns * parts,)](
        *(grad, features, positive, negative, result, partial),
        *(channels, rows, width, columns, parts * width),
        **wanted,
        **tile,
        num_warps=_warps(tile),
    )
    return partial


def class_gates(importance: Tensor, dropped: int, count: int) -> tuple[Tensor, Tensor]:
    """``plain_gate.class_gates`` in one launch, for float32."""
    importance = importance.contiguous()
    classes, channels = importance.shape
    positive, negative = importance.new_empty(channels), importance.new_empty(channels)
    with _on(importance):
        gate_kernels.class_gates[(triton.cdiv(channels, 32),)](
            importance, positive, negative, classes, channels, dropped, count, tile_rows=32, tile_columns=32
        )
    return positive, negative


def class_gates_backward(
    grad_positive: Tensor, grad_negative: Tensor, importance: Tensor, dropped: int, count: int
) -> Tensor:
    """``plain_gate.class_gates_backward`` in one launch, for float32."""
    importance = importance.contiguous()
    result, size = torch.empty_like(importance), importance.numel()
    with _on(importance):
        gate_kernels.class_gates_backward[(triton.cdiv(size, 1024),)](
            *(grad_positive.contiguous(), grad_negative.contiguous(), importance, result),
            *(size, importance.shape[1], dropped, count),
            block=1024,
        )
    return result


def _on(tensor: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, which need not be the tensor's."""
    context: AbstractContextManager[object] = torch.cuda.device_of(tensor)  # type: ignore[no-untyped-call]
    return context


def _plane_tiling(features: Tensor) -> tuple[int, dict[str, int]]:
    """h·w, and how many pixels of one plane a program takes."""
    plane = features.shape[2] * features.shape[3]
    return plane, {"block": min(_TILE_BYTES // features.element_size(), max(32, triton.next_power_of_2(plane)))}


def _pixel_tiling(features: Tensor, tile_bytes: int) -> tuple[int, int, dict[str, int]]:
    """Rows and columns of the (N·h·w, K) matrix, and the tile.

    As many pixels as divide their number are laid side by side until a row is a multiple of 16 values, without which
    Triton does not see that addresses are aligned (K = 270 in HRNet), and wide enough to fill tiles.
    """
    channels, pixels = features.shape[1], features.numel() // features.shape[1]
    together = 16 // math.gcd(channels, 16)
    together = together if pixels % together == 0 else 1
    while together * channels < 4 * _COLUMNS and pixels % (2 * together) == 0:
        together *= 2
    width = together * channels
    columns = min(_COLUMNS, triton.next_power_of_2(width))
    rows = min(tile_bytes // features.element_size() // columns, _ROWS)
    return pixels // together, width, {"steps": _ROWS // rows, "tile_rows": rows, "tile_columns": columns}


def _warps(tile: dict[str, int]) -> int:
    """One for 256 values and at most four: a thread then has two to four 16-byte accesses."""
    values = tile["block"] if "block" in tile else tile["tile_rows"] * tile["tile_columns"]
    return min(4, max(1, values // 256))
