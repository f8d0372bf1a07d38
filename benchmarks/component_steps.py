"""What each component of a recipe's loss costs a training step, against the step of plain cross-entropy.

    python benchmarks/component_steps.py --output benchmarks/results/component_steps.cpu.json

Same network, optimiser, images and labels for all; the variants are interleaved in one process, one step each in turn;
medians and ratios paired by round. ``dropclass`` is the method without components, with a class dropped in every step.
Exit codes: 0 success, 3 when a median ratio is above the bar of 1.3.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from argument_types import count
from timing import Timer, label_patches, ratios, spread

from dropclass_deploy.models import build_model
from dropclass_deploy.training.methods import StepContext, build_method
from dropclass_deploy.training.recipe import MethodSection
from dropclass_deploy.training.recipe.components import LOSSES

BAR, MISSED = 1.3, 3
PLAIN, DROPCLASS = "ce", "dropclass"
OPTIONS: dict[str, dict[str, Any]] = {"template": {"push": 0.5}, "uncertainty": {"background": "ignore"}}
"""The dearest form of each; else the defaults."""


class Step:
    """One optimiser step of a method on a batch that does not change."""

    def __init__(self, variant: str, given: argparse.Namespace) -> None:
        torch.manual_seed(0)
        method = variant if variant in (PLAIN, DROPCLASS) else PLAIN
        components = [] if variant in (PLAIN, DROPCLASS) else [variant]
        options = {name: OPTIONS.get(name, {}) for name in components}
        section = MethodSection.model_validate({"name": method, "with": components, "options": options})
        self.method = build_method(build_model(given.model, given.classes).train(), section)
        self.method.module.train().to(memory_format=torch.channels_last)
        images = torch.randn(given.batch, 3, *given.crop)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.labels = label_patches(given.batch, given.classes, tuple(given.crop), 255)
        frequency = torch.linspace(1, 10, given.classes)
        self.context = StepContext(
            step=0,
            progress=0.5,
            seed=0,
            ignore_index=255,
            class_weight=torch.ones(given.classes),
            dropped=1 if variant == DROPCLASS else None,
            class_log_frequency=(frequency / frequency.sum()).log(),
        )
        self.optimiser = torch.optim.AdamW(self.method.module.parameters())

    def __call__(self) -> None:
        """Forward, backward, update."""
        self.optimiser.zero_grad(set_to_none=True)
        self.method.loss(self.images, self.labels, self.context).total.backward()
        self.optimiser.step()


def timed(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each round's steps, whose order turns round by round."""
    timer = Timer(torch.device("cpu"))
    for name, step in steps.items():
        timer.warm_up(name, step)
    times: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for index in range(rounds):
        turn = index % len(names)
        for name in [*names[turn:], *names[:turn]]:
            times[name].append(timer(name, steps[name]))
    return times


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lite0")
    parser.add_argument("--classes", type=count, default=11)
    parser.add_argument("--batch", type=count, default=8)
    parser.add_argument("--crop", type=count, nargs=2, default=[240, 320], metavar=("H", "W"))
    parser.add_argument("--rounds", type=count, default=10)
    parser.add_argument("--threads", type=count, default=2)
    parser.add_argument("--components", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def main() -> int:
    """Measure, print and write; the exit code."""
    given = parse()
    torch.set_num_threads(given.threads)
    variants = [PLAIN, DROPCLASS, *given.components]
    times = timed({variant: Step(variant, given) for variant in variants}, given.rounds)
    ratio = {variant: ratios(times, variant, PLAIN) for variant in variants[1:]}
    report = {
        "command": "python benchmarks/component_steps.py " + " ".join(sys.argv[1:]),
        "device": platform.processor() or "cpu",
        "torch": torch.__version__,
        **{key: value for key, value in vars(given).items() if key != "output"},
        "step_ms": {variant: spread(values) for variant, values in times.items()},
        "ratio_to_ce": ratio,
        "bar": BAR,
        "above_bar": sorted(name for name in ratio if ratio[name]["median"] > BAR),
    }
    text = json.dumps(report, indent=2) + "\n"
    sys.stdout.write(text)
    if given.output:
        given.output.write_text(text)
    return MISSED if report["above_bar"] else 0


if __name__ == "__main__":
    sys.exit(main())
