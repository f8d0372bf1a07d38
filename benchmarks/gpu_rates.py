"""What a GPU does at most, measured: bytes copied, exponentials and multiply-adds a second. For floors of kernels.

Each thread of the two arithmetic kernels repeats one instruction on eight numbers that do not depend on each other, with
nothing read from memory in between, on as many warps as the chip holds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
import triton
import triton.language as tl

BLOCK = 1024  # of 4 warps: eight numbers a thread
UNROLLED = 32
REPEATS = 256
ROUNDS = 11
COPY_BYTES = 1 << 29


@triton.jit
def exponentials(values, repeats, BLOCK: tl.constexpr, UNROLLED: tl.constexpr):  # noqa: N803
    """x ← 2**−x, again and again: it stays between 0 and 1, and each waits for the one before."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(values + at)
    for _ in range(repeats):
        for _ in tl.static_range(UNROLLED):
            x = tl.exp2(-x)
    tl.store(values + at, x)


@triton.jit
def multiply_adds(values, factor, addend, repeats, BLOCK: tl.constexpr, UNROLLED: tl.constexpr):  # noqa: N803
    """x ← factor·x + addend, again and again."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(values + at)
    for _ in range(repeats):
        for _ in tl.static_range(UNROLLED):
            x = x * factor + addend
    tl.store(values + at, x)


def _seconds(call: Callable[[], object]) -> float:
    """Median time between two events around the call, after one to compile and warm up."""
    call()
    found = []
    for _ in range(ROUNDS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) / 1e3)
    return statistics.median(found)


def measure(device: torch.device) -> dict[str, float]:
    """Rates of ``device``: ``copy_bytes_per_s`` (read and written), ``exponentials_per_s``, ``multiply_adds_per_s``."""
    source = torch.randn(COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    copy_s = _seconds(lambda: target.copy_(source))
    # Twice the 16 programs of 4 warps that a multiprocessor holds at once.
    programs = torch.cuda.get_device_properties(device).multi_processor_count * 32
    values = torch.rand(programs * BLOCK, device=device)
    done = programs * BLOCK * REPEATS * UNROLLED
    exponentials_s = _seconds(lambda: exponentials[(programs,)](values, REPEATS, BLOCK, UNROLLED, num_warps=4))
    adds_s = _seconds(lambda: multiply_adds[(programs,)](values, 0.75, 0.2, REPEATS, BLOCK, UNROLLED, num_warps=4))
    return {
        "copy_bytes_per_s": 2 * COPY_BYTES / copy_s,
        "exponentials_per_s": done / exponentials_s,
        "multiply_adds_per_s": done / adds_s,
    }
