"""Time and peak memory of the three DropClass terms and their gradients: fused, against full-size logits.

    python benchmarks/fused_loss.py --device cpu --output benchmarks/results/fused_loss.cpu.json
    python benchmarks/fused_loss.py --device cuda --output benchmarks/results/fused_loss.cuda.json

Both variants go from two heads' small logits to CE, CE_drop and L_sup and back to the logits' gradients:

- ``dense``: F.interpolate, F.cross_entropy, softmax, autograd;
- ``fused``: ``dropclass_loss``, as training calls it.

The variants run in turn, a round each, in one process; the order turns round by round; ratios are of one round. Peak memory:
on the CPU each variant in a process of its own, the most that was ever resident (VmHWM; ru_maxrss starts with the parent's)
less what was before; on a GPU the allocator's peak above the inputs.

On a GPU the kernels alone are timed besides (both heads, the gradient gathered or by atomic additions), and held against
two floors measured in the same run: the bytes that have to move over the bandwidth of a copy, and the exponentials and
multiply-adds of the kernels' inner loops over the chip's rates (``gpu_rates.py``). ``over_floor`` is time over the larger.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import Call, Timer, label_patches, measure, of_package, peak_above_mib, ratios, spread
from torch import Tensor

from dropclass_deploy.training.dropclass import dropclass_loss
from dropclass_deploy.training.dropclass.wrapper import DropClassOutput

VARIANTS = ("dense", "fused")
KERNELS = {"kernels, gathered": True, "kernels, atomic": False}
DROPPED, PROGRESS, ALPHA, IGNORED = 3, 0.5, 10.0, 255
BATCH = {"cpu": 4, "cuda": 12}
# Of each class of each label pixel: what the kernels' sums and gradients need, interpolation between rows twice included.
EXPONENTIALS, MULTIPLY_ADDS = 2, 6


class Inputs:
    """Two heads' logits and the labels; the same numbers for every variant."""

    def __init__(self, arguments: argparse.Namespace, crop: tuple[int, int]) -> None:
        generator = torch.Generator().manual_seed(0)
        device, dtype = torch.device(arguments.device), getattr(torch, arguments.dtype)
        layout = torch.channels_last if arguments.channels_last else torch.contiguous_format
        small = [-(-extent // arguments.stride) for extent in crop]
        shape = (arguments.batch, arguments.classes, *small)
        self.plain, self.branch = (
            (torch.randn(shape, generator=generator) * 3).to(device, dtype, memory_format=layout).requires_grad_()
            for _ in range(2)
        )
        self.labels = label_patches(arguments.batch, arguments.classes, crop, IGNORED).to(device)
        self.wide_labels = self.labels.long()  # what F.cross_entropy takes; made here, in its favour


def dense(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Gradients of both heads by full-size logits."""
    size = inputs.wide_labels.shape[1:]
    plain, branch = (
        F.interpolate(head.float(), size, mode="bilinear", align_corners=False)
        for head in (inputs.plain, inputs.branch)
    )
    remaining = inputs.wide_labels.masked_fill(inputs.wide_labels == DROPPED, IGNORED)
    valid = inputs.wide_labels != IGNORED
    total = (1 - PROGRESS) * F.cross_entropy(plain, inputs.wide_labels, ignore_index=IGNORED)
    total = total + PROGRESS * F.cross_entropy(branch, remaining, ignore_index=IGNORED)
    total = total + ALPHA * (branch.softmax(1)[:, DROPPED] * valid).sum() / valid.sum()
    return torch.autograd.grad(total, (inputs.plain, inputs.branch))


def fused(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Gradients of both heads as training takes them."""
    size = (inputs.labels.shape[1], inputs.labels.shape[2])
    out = DropClassOutput(inputs.plain, inputs.branch, DROPPED, align_corners=False, output=None, resized_to=size)
    terms = dropclass_loss(out, inputs.labels, progress=PROGRESS, alpha=ALPHA, ignore_index=IGNORED)
    return torch.autograd.grad(terms.total, (inputs.plain, inputs.branch))


def kernels(inputs: Inputs, deterministic: bool) -> Call:
    """Both heads' sums and gradients, without what surrounds them in training."""
    from dropclass_deploy.training.losses.triton_losses import head_losses

    weight = torch.ones(inputs.plain.shape[1], device=inputs.plain.device)
    kept = weight.index_fill(0, torch.tensor([DROPPED], device=weight.device), 0.0)
    scale = torch.tensor([PROGRESS, ALPHA], device=weight.device) / inputs.labels.numel()
    plain, branch = inputs.plain.detach(), inputs.branch.detach()

    def both() -> object:
        return (
            head_losses(plain, inputs.labels, weight, None, scale, -1, IGNORED, False, True, deterministic),
            head_losses(branch, inputs.labels, kept, None, scale, DROPPED, IGNORED, False, True, deterministic),
        )

    return both


def difference(inputs: Inputs) -> float:
    """How far the variants' gradients are apart, relative to the dense ones: they compute the same."""
    pairs = list(zip(dense(inputs), fused(inputs), strict=True))
    apart = sum(float((a.double() - b.double()).square().sum()) for a, b in pairs)
    return (apart / sum(float(a.double().square().sum()) for a, _ in pairs)) ** 0.5


def peak_mib(variant: str, arguments: argparse.Namespace) -> float:
    """Peak memory of three calls in MiB, above what was held before the first."""
    call = {"dense": dense, "fused": fused}[variant]
    call(Inputs(arguments, (64, 64)))  # what torch loads or sets up once is not the variant's
    inputs = Inputs(arguments, tuple(arguments.crop))
    return peak_above_mib(lambda: call(inputs), 3, torch.device(arguments.device))


def peak_elsewhere(variant: str) -> float:
    """``peak_mib`` in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--only-memory", variant]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def floors(inputs: Inputs, times: dict[str, list[float]]) -> dict[str, object]:
    """Bytes and arithmetic of both heads over measured rates, and each timed variant over the larger."""
    import gpu_rates

    rates = gpu_rates.measure(inputs.plain.device)
    # Logits read and float32 gradients written, of both heads; labels read once.
    moved = 2 * inputs.plain.numel() * (inputs.plain.element_size() + 4)
    moved += inputs.labels.numel() * inputs.labels.element_size()
    scores = 2 * inputs.labels.numel() * inputs.plain.shape[1]
    floor_ms = {
        "bytes": 1e3 * moved / rates["copy_bytes_per_s"],
        "exponentials": 1e3 * EXPONENTIALS * scores / rates["exponentials_per_s"],
        "multiply_adds": 1e3 * MULTIPLY_ADDS * scores / rates["multiply_adds_per_s"],
    }
    largest = max(floor_ms.values())
    names = ("fused", *KERNELS)
    return {
        "rates": rates,
        "counted": {"bytes": moved, "exponentials": EXPONENTIALS * scores, "multiply_adds": MULTIPLY_ADDS * scores},
        "floor_ms": floor_ms,
        "over_floor": {name: spread([value / largest for value in times[name]]) for name in names},
    }


def report_of(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure everything."""
    memory = {variant: peak_elsewhere(variant) for variant in VARIANTS}
    device = torch.device(arguments.device)
    inputs, timer = Inputs(arguments, tuple(arguments.crop)), Timer(device)
    apart = difference(inputs)
    calls: dict[str, Call] = {"dense": lambda: dense(inputs), "fused": lambda: fused(inputs)}
    if timer.cuda:
        calls |= {name: kernels(inputs, deterministic) for name, deterministic in KERNELS.items()}
    times = measure(calls, timer, arguments.rounds, 0)
    return {
        "command": "python benchmarks/fused_loss.py " + " ".join(sys.argv[1:]),
        **{
            name: getattr(arguments, name)
            for name in ("batch", "crop", "stride", "classes", "dtype", "channels_last", "rounds")
        },
        "device": torch.cuda.get_device_name(device) if timer.cuda else platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "triton": of_package("triton"),
        "gradients_apart": apart,
        "ms": {name: spread(values) for name, values in times.items()},
        "peak_mib": memory,
        "dense_over_fused": {"time": ratios(times, "dense", "fused"), "memory": memory["dense"] / memory["fused"]},
        **(floors(inputs, times) if timer.cuda else {}),
        "starved": {name: count for name, count in timer.starved.items() if count},
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=sorted(BATCH), default="cpu")
    parser.add_argument("--batch", type=int, help="images; 4 on the CPU, 12 on a GPU")
    parser.add_argument("--crop", type=int, nargs=2, default=[512, 1024], metavar=("H", "W"))
    parser.add_argument("--stride", type=int, default=8)
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument(
        "--channels-last", action="store_true", help="logits as a network trained in that layout gives them"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--only-memory", choices=VARIANTS)
    arguments = parser.parse_args()
    arguments.batch = arguments.batch or BATCH[arguments.device]
    if arguments.only_memory:
        print(peak_mib(arguments.only_memory, arguments))
        return
    text = json.dumps(report_of(arguments), indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
