"""What the benchmarks measure with: calls in turn, medians, paired ratios, peak memory."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

Call = Callable[[], object]
# Bytes to hold other data in any level-2 cache of today (50 MiB on H100 and H200), several times over.
FLUSH_BYTES = 1 << 28
# How fast a GPU counts cycles, at most: what a wait of so many seconds is asked for in.
CYCLES_PER_S = 2_000_000_000


class Timer:
    """Milliseconds of one call on a device.

    Attributes:
        starved: by name, how many calls' GPU work began before all of it was queued.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        if self.cuda:
            torch.cuda.set_device(device)  # where events and waits are
        self.starved: Counter[str] = Counter()
        self.other = torch.zeros(FLUSH_BYTES // 4, device=device) if self.cuda else None
        self.queueing_s: dict[str, float] = {}

    def warm_up(self, name: str, call: Call) -> None:
        """Compile, allocate, and see how long the call takes to queue."""
        for _ in range(3):
            begin = time.perf_counter()
            call()
            self.queueing_s[name] = time.perf_counter() - begin
            if self.cuda:
                torch.cuda.synchronize()

    def __call__(self, name: str, call: Call) -> float:
        if self.other is None:
            begin = time.perf_counter()
            call()
            return (time.perf_counter() - begin) * 1e3
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        # Read, not written: dirty lines would be written back on the measured call's time.
        self.other.sum()
        torch.cuda._sleep(int((2 * self.queueing_s[name] + 1e-3) * CYCLES_PER_S))
        start.record()
        call()
        end.record()
        self.starved[name] += start.query()
        torch.cuda.synchronize()
        return start.elapsed_time(end)


def measure(calls: dict[str, Call], timer: Timer, rounds: int, literal_rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every call, round by round; the literal ones, which are slow, in the first rounds only."""
    for name, call in calls.items():
        timer.warm_up(name, call)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(rounds):
        names = [name for name in calls if index < literal_rounds or not name.startswith("literal")]
        for name in names if index % 2 == 0 else reversed(names):
            times[name].append(timer(name, calls[name]))
    return times


def spread(values: list[float]) -> dict[str, float]:
    """Median and the tenth and ninetieth percentile."""
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 4),
        "p10": round(ordered[len(ordered) // 10], 4),
        "p90": round(ordered[-1 - len(ordered) // 10], 4),
    }


def ratios(times: dict[str, list[float]], numerator: str, denominator: str, factor: float = 1.0) -> dict[str, float]:
    """Paired by round."""
    return spread([factor * a / b for a, b in zip(times[numerator], times[denominator], strict=False)])


def of_package(name: str) -> str | None:
    """Its version, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def peak_above_mib(call: Call, times: int, device: torch.device) -> float:
    """The most memory held during some calls, above what was held before them, in MiB.

    On the CPU the most that was ever resident, to be asked in a process of its own (``ru_maxrss`` would not do: it starts
    with the parent's); on a GPU the allocator's peak.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device) / 2**20
    else:
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from what is resident
        before = resident_mib("VmRSS")
    for _ in range(times):
        call()
    return (
        torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else resident_mib("VmHWM")
    ) - before


def resident_mib(field: str) -> float:
    """``VmRSS`` (now) or ``VmHWM`` (the most so far) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def label_patches(batch: int, classes: int, crop: tuple[int, int], ignored: int) -> Tensor:
    """uint8 (N, H, W): patches of one class with smooth borders, about 32 pixels wide, and a twentieth ignored pixels.

    Pictures' labels come so; with a label drawn for each pixel every class would be everywhere.
    """
    generator = torch.Generator().manual_seed(0)
    coarse = [max(2, extent // 32) for extent in crop]
    scores = torch.randn(batch, classes, *coarse, generator=generator)
    images = (F.interpolate(score[None], crop, mode="bilinear").argmax(1) for score in scores)
    labels = torch.cat(list(images)).to(torch.uint8)
    labels[torch.rand(labels.shape, generator=generator) < 0.05] = ignored
    return labels
