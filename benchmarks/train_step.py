"""Time and peak memory of one training step, plain cross-entropy against DropClass, on the CPU.

    python benchmarks/train_step.py --output benchmarks/results/train_step.cpu.json

Times: the variants are interleaved in one process, a round each, in turn; medians and the paired ratio are reported.
Peak memory: each variant in a process of its own (the highest resident size after the steps, less that before the
first), because a process's peak never falls. On a GPU (--device cuda) the allocator's peak is read instead.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from dropclass_deploy.models import build_model
from dropclass_deploy.training.dropclass import DropClass, dropclass_loss
from dropclass_deploy.training.losses import cross_entropy

VARIANTS = ("plain", "dropclass")
Step = Callable[[], None]


def make_step(variant: str, arguments: argparse.Namespace) -> Step:
    """One optimiser step on fixed random images and labels."""
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    model = build_model(arguments.model, arguments.classes).to(device).train()
    images = torch.randn(arguments.batch, 3, *arguments.crop, device=device)
    labels = torch.randint(0, arguments.classes, (arguments.batch, *arguments.crop), device=device)
    method = DropClass(model) if variant == "dropclass" else None
    optimiser = torch.optim.AdamW((method or model).parameters())

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        if method is None:
            loss = cross_entropy(model(images), labels)
        else:
            loss = dropclass_loss(method(images, 1), labels, progress=0.5).total
        loss.backward()
        optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def times(arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each round's steps; the order turns round by round."""
    steps = {variant: make_step(variant, arguments) for variant in VARIANTS}
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for index in range(arguments.rounds):
        for variant in VARIANTS if index % 2 == 0 else reversed(VARIANTS):
            begin = time.perf_counter()
            steps[variant]()
            seconds[variant].append(time.perf_counter() - begin)
    return seconds


def peak_mib(variant: str, arguments: argparse.Namespace) -> float:
    """Peak memory of three steps in MiB, above what the process held before the first."""
    if arguments.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        step = make_step(variant, arguments)
        for _ in range(3):
            step()
        return torch.cuda.max_memory_allocated() / 2**20
    step = make_step(variant, arguments)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    for _ in range(3):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before


def peak_elsewhere(variant: str) -> float:
    """``peak_mib`` in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--only-memory", variant]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lite0")
    parser.add_argument("--classes", type=int, default=11)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, nargs=2, default=[240, 320])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--only-memory", choices=VARIANTS)
    arguments = parser.parse_args()
    if arguments.only_memory:
        print(peak_mib(arguments.only_memory, arguments))
        return
    seconds = times(arguments)
    ratios = sorted(b / a for a, b in zip(seconds["plain"], seconds["dropclass"], strict=True))
    memory = {variant: peak_elsewhere(variant) for variant in VARIANTS}
    report = {
        "command": "python benchmarks/train_step.py " + " ".join(sys.argv[1:]),
        "model": arguments.model,
        "classes": arguments.classes,
        "batch": arguments.batch,
        "crop": arguments.crop,
        "device": arguments.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "rounds": arguments.rounds,
        "step_s": {variant: statistics.median(seconds[variant]) for variant in VARIANTS},
        "peak_mib": memory,
        "ratio": {
            "time_median": statistics.median(ratios),
            "time_p10": ratios[len(ratios) // 10],
            "time_p90": ratios[-1 - len(ratios) // 10],
            "memory": memory["dropclass"] / memory["plain"],
        },
    }
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
