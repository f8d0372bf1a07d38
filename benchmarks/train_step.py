"""Time and peak memory of a training step: the reference recipe's, ours plain, with DropClass, and DropClass as written.

    python benchmarks/train_step.py --output benchmarks/results/train_step.cpu.json

- ``reference``: the step of torchvision's segmentation recipe: logits at full size, F.cross_entropy with ignored pixels.
- ``plain``: cross-entropy as ``dropclass train`` computes it (``method.name: ce``).
- ``dropclass``: the method, with a class dropped in every step.
- ``literal``: DropClass as the paper's formulas stand: a feature map a class, both heads' logits at full size.

All with the same network, optimiser (SGD, momentum 0.9, as that recipe), images and labels. Times: the variants are
interleaved in one process, one step each in turn; medians and paired ratios. Peak memory: each variant in a process of its
own (the highest resident size after three steps, less that before the first), because a process's peak never falls; on a GPU
the allocator's.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timing import label_patches, peak_above_mib, ratios, spread
from torch import Tensor, nn

from dropclass_deploy.models import build_model
from dropclass_deploy.training.dropclass import DropClass
from dropclass_deploy.training.methods import StepContext, build_method
from dropclass_deploy.training.recipe.sections import MethodSection

VARIANTS = ("reference", "plain", "dropclass", "literal")
MODELS = ("deeplabv3_mobilenet_v3_large", "hrnetv2_w18_small")
RATIOS = (
    ("dropclass", "reference"),
    ("dropclass", "plain"),
    ("plain", "reference"),
    ("literal", "reference"),
)
DROPPED, PROGRESS, ALPHA = 1, 0.5, 10.0
Step = Callable[[], None]


class Parts:
    """Seconds of the parts of a step, summed over steps.

    Attributes:
        on: whether parts are told apart: on a GPU that waits for it at each part's end.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.on = False
        self.seconds: dict[str, float] = {}

    def begin(self) -> None:
        """A step starts."""
        self._mark = self.now()

    def end(self, part: str) -> None:
        """What ran since the last mark was ``part``."""
        if not self.on:
            return
        now = self.now()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._mark
        self._mark = now

    def shares(self) -> dict[str, float]:
        """Of the whole."""
        whole = sum(self.seconds.values())
        return {part: seconds / whole for part, seconds in self.seconds.items()}

    def now(self) -> float:
        """Seconds, when the device has done its work."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


class Bench:
    """One network, variant and batch: ``step()`` is one optimiser step."""

    def __init__(self, variant: str, cell: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.variant, self.cell = variant, cell
        self.device = torch.device(cell.device)
        ours = variant in ("plain", "dropclass")
        layout = torch.channels_last if ours and cell.channels_last else torch.contiguous_format
        self.model = build_model(cell.model, cell.classes).to(self.device, memory_format=layout).train()
        images = torch.randn(cell.batch, 3, *cell.crop, device=self.device)
        self.images = images.contiguous(memory_format=layout)
        self.labels = label_patches(cell.batch, cell.classes, tuple(cell.crop), 255).to(self.device)
        self.parts = Parts(self.device)
        self.loss, module = self._make()
        self.optimiser = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)

    def step(self) -> None:
        """Forward, backward, update."""
        self.ended = iter(("network", "branch"))  # the classifier runs at the end of each
        self.parts.begin()
        self.optimiser.zero_grad(set_to_none=True)
        bf16 = self.cell.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
            loss = self.loss()
        self.parts.end("loss")
        loss.backward()
        self.parts.end("backward")
        self.optimiser.step()
        self.parts.end("optimiser")

    def _make(self) -> tuple[Callable[[], Tensor], nn.Module]:
        if self.variant == "reference":
            return self._reference, self.model
        if self.variant == "literal":
            self.wrapper = DropClass(self.model).to(self.device)
            return self._literal, self.wrapper
        name = "ce" if self.variant == "plain" else "dropclass"
        self.method = build_method(self.model, MethodSection(name=name, alpha=ALPHA))
        module = self.method.module.to(self.device)
        classifier = self.method.wrapper.classifier if name == "dropclass" else self.method.classifier
        self.model.get_submodule(classifier.path).register_forward_hook(lambda *_: self.parts.end(next(self.ended)))
        return self._ours, module

    def _reference(self) -> Tensor:
        logits = self.model(self.images)
        self.parts.end("network")
        return F.cross_entropy(logits, self.labels.long(), ignore_index=255)

    def _ours(self) -> Tensor:
        dropped = DROPPED if self.variant == "dropclass" else None
        context = StepContext(0, PROGRESS, 0, 255, None, dropped=dropped)
        return self.method.loss(self.images, self.labels, context).total

    def _literal(self) -> Tensor:
        """Eq. 1–9 with every map that they name."""
        seen = self.wrapper.tap.run(self.images)
        weight = self.wrapper.head.weight[:, :, 0, 0]
        self.parts.end("network")
        kept = [c for c in range(self.cell.classes) if c != DROPPED]
        maps = F.relu(seen.features[:, None] * weight[kept][None, :, :, None, None])
        branch = self.wrapper.branch(maps.mean(1))
        drop_logits = F.interpolate(self.wrapper.head(branch), size=self.labels.shape[-2:], mode="bilinear")
        labels = self.labels.long()
        ce = F.cross_entropy(seen.output, labels, ignore_index=255)
        ce_drop = F.cross_entropy(drop_logits, labels.masked_fill(labels == DROPPED, 255), ignore_index=255)
        valid = labels != 255
        suppression = (drop_logits.softmax(1)[:, DROPPED] * valid).sum() / valid.sum()
        return (1 - PROGRESS) * ce + PROGRESS * ce_drop + ALPHA * suppression


def literal_gib(cell: argparse.Namespace) -> float:
    """What the literal formulation's class maps (product, ReLU, gradient) and full-size logits of two heads take."""
    wrapper = DropClass(build_model(cell.model, cell.classes))
    with torch.no_grad():
        features = wrapper.eval().tap.run_short(torch.zeros(1, 3, *cell.crop)).features
    maps = 3 * (cell.classes - 1) * features.numel()
    logits = 2 * 4 * cell.classes * cell.crop[0] * cell.crop[1]
    return 4 * cell.batch * (maps + logits) / 2**30


def variants_of(cell: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """Those that fit into memory, and why another does not."""
    wanted = [variant for variant in VARIANTS if variant in cell.variants]
    if "literal" in wanted:
        needed, there = literal_gib(cell), memory_gib(cell.device)
        if needed > 0.6 * there:
            wanted.remove("literal")
            return wanted, {"literal": f"its class maps and logits take {needed:.0f} GiB; the machine has {there:.0f}"}
    return wanted, {}


def memory_gib(device: str) -> float:
    """Of the device."""
    if device == "cpu":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return torch.cuda.get_device_properties(device).total_memory / 2**30


def timed(cell: argparse.Namespace, variants: Sequence[str]) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each round's steps, whose order turns round by round; and the shares of a step's parts."""
    benches = {variant: Bench(variant, cell) for variant in variants}
    for bench in benches.values():
        for _ in range(3 if cell.device != "cpu" else 1):
            bench.step()
    seconds: dict[str, list[float]] = {variant: [] for variant in variants}
    for index in range(cell.rounds):
        turn = index % len(variants)
        for variant in [*variants[turn:], *variants[:turn]]:
            begin = benches[variant].parts.now()
            benches[variant].step()
            seconds[variant].append(benches[variant].parts.now() - begin)
    for bench in benches.values():
        bench.parts.on = True
        for _ in range(2):
            bench.step()
    return seconds, {variant: bench.parts.shares() for variant, bench in benches.items()}


def peak_mib(variant: str, cell: argparse.Namespace) -> float:
    """Peak memory of three steps in MiB, above what was held before the first."""
    # What torch loads or sets up once is not the variant's.
    Bench(variant, argparse.Namespace(**{**vars(cell), "crop": [64, 64]})).step()
    return peak_above_mib(Bench(variant, cell).step, 3, torch.device(cell.device))


def peak_elsewhere(variant: str, cell: argparse.Namespace) -> float:
    """``peak_mib`` in a process of its own."""
    arguments = {key: value for key, value in vars(cell).items() if key != "output"}
    command = [sys.executable, __file__, "--peak-of", json.dumps({**arguments, "variant": variant})]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measure(cell: argparse.Namespace) -> dict[str, Any]:
    """One network and class count."""
    variants, left_out = variants_of(cell)
    # First, while this process holds nothing of the device.
    memory = {variant: peak_elsewhere(variant, cell) for variant in variants}
    seconds, shares = timed(cell, variants)
    gc.collect()
    torch.cuda.empty_cache()
    compared = {
        f"{above}/{below}": {"time": ratios(seconds, above, below), "memory": memory[above] / memory[below]}
        for above, below in RATIOS
        if above in seconds and below in seconds
    }
    return {
        "model": cell.model,
        "classes": cell.classes,
        "step_s": {variant: spread(values) for variant, values in seconds.items()},
        "peak_mib": memory,
        "ratio": compared,
        "share_of_step": shares,
        "left_out": left_out,
    }


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--classes", type=int, nargs="+", default=[19, 150])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--crop", type=int, nargs=2, default=[512, 1024])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--no-channels-last", dest="channels_last", action="store_false")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure every cell; the JSON is written anew after each."""
    arguments = parse()
    if arguments.peak_of:
        given = json.loads(arguments.peak_of)
        print(peak_mib(given.pop("variant"), argparse.Namespace(**given)))
        return
    report: dict[str, Any] = {
        "command": "python benchmarks/train_step.py " + " ".join(sys.argv[1:]),
        "device": torch.cuda.get_device_name() if arguments.device != "cpu" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "batch": arguments.batch,
        "crop": arguments.crop,
        "precision": arguments.precision,
        "channels_last": arguments.channels_last,
        "rounds": arguments.rounds,
        "cells": [],
    }
    shared = {key: value for key, value in vars(arguments).items() if key not in ("models", "peak_of", "output")}
    for model in arguments.models:
        for classes in arguments.classes:
            report["cells"].append(measure(argparse.Namespace(**{**shared, "model": model, "classes": classes})))
            print(json.dumps(report["cells"][-1], indent=2))
            if arguments.output:
                arguments.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
