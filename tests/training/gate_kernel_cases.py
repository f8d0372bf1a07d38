"""The Triton kernels against plain torch in float64: a script, because Triton's interpreter is chosen before its import.

    TRITON_INTERPRET=1 python tests/training/gate_kernel_cases.py         on a CPU
    python tests/training/gate_kernel_cases.py --device cuda              compiled

Writes one line a failure and how many cases ran; ends with 1 when one failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import torch
from torch import Tensor

from dropclass_deploy.training.dropclass import drop_features, gate_operator, triton_gate

# Contiguous: planes of 1 pixel, less than a block, odd, several blocks with a rest.
PLANES = [(1, 1, 1, 1), (2, 3, 1, 1), (3, 19, 5, 4), (1, 5, 7, 9), (2, 3, 64, 65)]
# channels_last: few channels, an odd number of pixels, K not a multiple of 16 (HRNet's 270), several tiles both ways.
PIXELS = [(3, 19, 5, 4), (1, 5, 7, 9), (1, 270, 8, 3), (2, 200, 9, 7), (1, 32, 41, 37), (1, 2, 96, 60)]
SHAPES = [(torch.contiguous_format, shape) for shape in PLANES] + [(torch.channels_last, shape) for shape in PIXELS]


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def oracle(grad: Tensor, features: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Value and gradients, by autograd, from Eq. 2 collapsed: A⁺ p + A⁻ n with ReLUs, in float64."""
    a, p, n = (value.double().requires_grad_() for value in (features, positive, negative))
    result = torch.relu(a) * p.view(1, -1, 1, 1) - torch.relu(-a) * n.view(1, -1, 1, 1)
    return result.detach(), *torch.autograd.grad(result, (a, p, n), grad.double())


def cases(device: str) -> Iterator[tuple[str, list[tuple[Tensor, Tensor, float]]]]:
    """A name, and triples of (result, expected, tolerance)."""
    # The interpreter cannot hold bfloat16 in NumPy.
    dtypes = [torch.float32, torch.float16] + ([torch.bfloat16] if device == "cuda" else [])
    for layout, shape in SHAPES:
        for dtype in dtypes:
            yield f"{shape} {layout} {dtype}", gate_case(shape, layout, dtype, device)
    for classes, channels, dropped in [(2, 1, 0), (19, 33, -1), (19, 64, 18), (150, 40, 1), (150, 40, 16), (3, 400, 2)]:
        yield f"{classes} classes, {channels} channels, {dropped}", class_case(classes, channels, dropped, device)
    yield "only what is wanted", wanted_case(device)
    yield "the same bits twice", repeat_case(device)
    yield "NaN stays NaN", nan_case(device)
    for layout in (torch.contiguous_format, torch.channels_last):
        yield f"drop_features {layout}", whole_case(layout, device)


def gate_case(
    shape: tuple[int, int, int, int], layout: torch.memory_format, dtype: torch.dtype, device: str
) -> list[tuple[Tensor, Tensor, float]]:
    features = noise(*shape, seed=1)
    features[features.abs() < 0.2] = 0.0  # some are exactly 0, where no gradient may flow
    features = features.to(device, dtype).contiguous(memory_format=layout)
    grad = noise(*shape, seed=2).to(device, dtype).contiguous(memory_format=layout)
    positive, negative = noise(shape[1], seed=3).abs().to(device), -noise(shape[1], seed=4).abs().to(device)
    expected = oracle(grad, features, positive, negative)
    value = triton_gate.gate(features, positive, negative)
    back, gates = triton_gate.gate_backward(grad, features, positive, negative, features_too=True, gates_too=True)
    if value.dtype != dtype or value.stride() != features.stride() or back.stride() != features.stride():
        return [(torch.zeros(1), torch.ones(1), 0.0)]
    # One rounding of products up to 16 to the dtype: eps / 2 of the value, 8 eps at most. Sums in float32: of up to 11,520
    # products of size 1 whose partial sums stay below 500, each addition within 3e-5 of those, mostly far less.
    rounding, total = 8 * torch.finfo(dtype).eps, 1e-3
    return [
        (value, expected[0], rounding),
        (back, expected[1], rounding),
        (gates[0], expected[2], total),
        (gates[1], expected[3], total),
    ]


def class_case(classes: int, channels: int, dropped: int, device: str) -> list[tuple[Tensor, Tensor, float]]:
    importance = noise(classes, channels, seed=5)
    importance[0, 0] = 0.0
    grads = noise(2, channels, seed=6)
    kept = [c for c in range(classes) if c != dropped]
    s = importance.double().requires_grad_()
    expected = torch.relu(s[kept]).sum(0) / len(kept), -torch.relu(-s[kept]).sum(0) / len(kept)
    (back,) = torch.autograd.grad(expected, s, list(grads.double()))
    importance, grads = importance.to(device), grads.to(device)
    values = triton_gate.class_gates(importance, dropped, len(kept))
    ours = triton_gate.class_gates_backward(grads[0], grads[1], importance, dropped, len(kept))
    # 150 float32 additions of numbers up to 4, divided by as many.
    return [(values[0], expected[0], 1e-6), (values[1], expected[1], 1e-6), (ours, back, 4e-6)]


def wanted_case(device: str) -> list[tuple[Tensor, Tensor, float]]:
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        features, grad = (noise(2, 20, 6, 7, seed=s).to(device).contiguous(memory_format=layout) for s in (1, 2))
        gates = noise(20, seed=3).abs().to(device), -noise(20, seed=4).abs().to(device)
        both = triton_gate.gate_backward(grad, features, *gates, features_too=True, gates_too=True)
        first = triton_gate.gate_backward(grad, features, *gates, features_too=True, gates_too=False)
        second = triton_gate.gate_backward(grad, features, *gates, features_too=False, gates_too=True)
        empty = torch.tensor([first[1].numel(), second[0].numel()])
        results += [(first[0], both[0], 0.0), (second[1], both[1], 0.0), (empty, torch.zeros(2), 0.0)]
    return results


def repeat_case(device: str) -> list[tuple[Tensor, Tensor, float]]:
    features, grad = noise(2, 6, 50, 65, seed=1).to(device), noise(2, 6, 50, 65, seed=2).to(device)
    gates = noise(6, seed=3).abs().to(device), -noise(6, seed=4).abs().to(device)
    once, again = (
        triton_gate.gate_backward(grad, features, *gates, features_too=True, gates_too=True) for _ in range(2)
    )
    return [(once[0], again[0], 0.0), (once[1], again[1], 0.0)]


def nan_case(device: str) -> list[tuple[Tensor, Tensor, float]]:
    one = torch.ones(1, device=device)
    nan = torch.full((1, 1, 1, 1), torch.nan, device=device)
    value = triton_gate.gate(nan, one, -one)
    _, gates = triton_gate.gate_backward(one.view(1, 1, 1, 1), nan, one, -one, features_too=True, gates_too=True)
    classes = torch.stack(triton_gate.class_gates(nan.view(1, 1).repeat(2, 1), -1, 2))
    found = torch.cat([value.flatten(), gates.flatten(), classes.flatten()]).isnan().float()
    return [(found, torch.ones(5), 0.0)]


def whole_case(layout: torch.memory_format, device: str) -> list[tuple[Tensor, Tensor, float]]:
    """``drop_features`` with its gradients, and the same compiled, through the registered operators."""
    features, weight, grad = noise(2, 6, 9, 8, seed=1), noise(5, 6, 1, 1, seed=2), noise(2, 6, 9, 8, seed=3)
    a, w = features.double().requires_grad_(), weight.double().requires_grad_()
    value = sum(torch.relu(a * w[c].view(1, -1, 1, 1)) for c in (0, 1, 2, 4)) / 4  # Eq. 2-4 as printed, z = 3
    expected = (value.detach(), *torch.autograd.grad(value, (a, w), grad.double()))
    results = []
    for function in (drop_features, torch.compile(drop_features, backend="aot_eager", fullgraph=True)):
        a = features.to(device).contiguous(memory_format=layout).requires_grad_()
        w = weight.to(device).requires_grad_()
        ours = function(a, w, 3)
        gradients = torch.autograd.grad(ours, (a, w), grad.to(device))
        # Float32 sums of 144 products.
        results += [(r, e, 1e-4) for r, e in zip((ours.detach(), *gradients), expected, strict=True)]
    return results


def kernels_on_the_cpu() -> None:
    """Let the operators take the way on a CPU that they take on a GPU."""
    for name in ("class_gates", "class_gates_backward", "gate", "gate_backward"):
        getattr(gate_operator, name).register_kernel("cpu")(getattr(gate_operator, f"_{name}_on_gpu"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    device, count, failures = parser.parse_args().device, 0, 0
    if device == "cpu":
        kernels_on_the_cpu()
    for name, comparisons in cases(device):
        count += 1
        for index, (result, expected, tolerance) in enumerate(comparisons):
            error = (result.cpu().double() - expected.cpu().double()).abs().max().item()
            if result.shape != expected.shape or not error <= tolerance:
                failures += 1
                sys.stdout.write(f"{name}: result {index} is off by {error:.3g}, tolerance {tolerance:.3g}\n")
    sys.stdout.write(f"{count} cases, {failures} failures\n")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
