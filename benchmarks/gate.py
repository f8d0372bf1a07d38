"""Time of the class drop (``drop_features``) at 19 and 150 classes, against a copy and against the formula as printed.

    python benchmarks/gate.py --device cpu --output benchmarks/results/gate.cpu.json
    python benchmarks/gate.py --device cuda --output benchmarks/results/gate.cuda.json

All variants run in turn, a round each, in one process; the order turns round by round. Ratios are of one round. The share
of the copy's bandwidth counts what has to move: A read and A'_drop written (2 sizes of A, as the copy), and for forward
and backward together g and A read and dA written besides (5 sizes).

On a GPU: times are between two events on the stream; the level-2 cache is filled with other data before each; and the GPU is
held up until the whole call is queued, so that it is the GPU's time, not the launches', that is measured. How often
that failed is reported ("starved").
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from pathlib import Path

import torch
from timing import Call, Timer, measure, of_package, ratios, spread
from torch import Tensor

from dropclass_deploy.training.dropclass import channel_gates, drop_features

CLASSES = (19, 150)
DROPPED = 3


def literal(features: Tensor, weight: Tensor) -> Tensor:
    """Eq. 2–4 as printed: one feature map a class, kept ones averaged."""
    kept = [c for c in range(weight.shape[0]) if c != DROPPED]
    total = torch.zeros_like(features)
    for c in kept:
        total = total + torch.relu(features * weight[c].view(1, -1, 1, 1))
    return total / len(kept)


def make_calls(arguments: argparse.Namespace, device: torch.device) -> dict[str, Call]:
    """What is measured, by name."""
    dtype = getattr(torch, arguments.dtype)
    layout = torch.channels_last if arguments.channels_last else torch.contiguous_format
    features, grad = (
        torch.randn(*arguments.shape, device=device).to(dtype).contiguous(memory_format=layout) for _ in range(2)
    )
    features.requires_grad_()
    calls: dict[str, Call] = {"copy": features.detach().clone}
    for classes in CLASSES:
        weight = torch.randn(classes, arguments.shape[1], 1, 1, device=device).requires_grad_()
        positive, negative = channel_gates(weight.detach(), DROPPED)
        calls[f"operator {classes}"] = lambda p=positive, n=negative: torch.ops.dropclass.gate(features.detach(), p, n)
        for name, function in (("ours", lambda a, w: drop_features(a, w, DROPPED)), ("literal", literal)):
            if name == "literal" and not literal_fits(features, classes):
                continue
            calls[f"{name} forward {classes}"] = lambda f=function, w=weight: f(features, w)
            calls[f"{name} both {classes}"] = lambda f=function, w=weight: torch.autograd.grad(
                f(features, w), (features, w), grad
            )
    return calls


def literal_fits(features: Tensor, classes: int) -> bool:
    """Whether half of what is free holds two maps a class, and what else there is."""
    if features.is_cuda:
        free = torch.cuda.mem_get_info(features.device)[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return (2 * classes + 6) * features.numel() * 4 <= free // 2  # float32, as the weight


def report_of(times: dict[str, list[float]], arguments: argparse.Namespace, device: torch.device) -> dict[str, object]:
    """The figures."""
    size = torch.empty(0, dtype=getattr(torch, arguments.dtype)).element_size()
    for extent in arguments.shape:
        size *= extent
    moved = {"operator": 1.0, "ours forward": 1.0, "ours both": 2.5}  # relative to the copy
    literals = {
        f"{way} {classes}": ratios(times, f"literal {way} {classes}", f"ours {way} {classes}")
        for classes in CLASSES
        for way in ("forward", "both")
        if f"literal {way} {classes}" in times
    }
    return {
        "command": "python benchmarks/gate.py " + " ".join(sys.argv[1:]),
        "shape": arguments.shape,
        "dtype": arguments.dtype,
        "channels_last": arguments.channels_last,
        "size_mib": round(size / 2**20, 2),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "triton": of_package("triton"),
        "rounds": arguments.rounds,
        "literal_rounds": min(arguments.literal_rounds, arguments.rounds),
        "ms": {name: spread(values) for name, values in times.items()},
        "copy_gb_per_s": round(2 * size / statistics.median(times["copy"]) / 1e6, 1),
        "share_of_copy_bandwidth": {
            f"{name} {classes}": ratios(times, "copy", f"{name} {classes}", factor)
            for name, factor in moved.items()
            for classes in CLASSES
        },
        "classes_150_over_19": {way: ratios(times, f"ours {way} 150", f"ours {way} 19") for way in ("forward", "both")},
        "literal_over_ours": literals,
        "literal_left_out_for_memory": [c for c in CLASSES if f"literal forward {c}" not in times],
    }


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--shape", type=int, nargs=4, metavar=("N", "K", "h", "w"), help="4 256 64 128; N = 32 on a GPU"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--literal-rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    # On a GPU several times what its level-2 cache holds.
    arguments.shape = arguments.shape or [4 if arguments.device == "cpu" else 32, 256, 64, 128]
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    timer = Timer(device)
    times = measure(make_calls(arguments, device), timer, arguments.rounds, max(1, arguments.literal_rounds))
    report = report_of(times, arguments, device)
    report["starved"] = {name: count for name, count in timer.starved.items() if count}
    report["load_average"] = [round(value, 2) for value in os.getloadavg()]
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
