"""The gate's operators: what torch.compile, autocast, DistributedDataParallel and autograd see of them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.training.dropclass import channel_gates, drop_features

OPERATORS = torch.ops.dropclass


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def literal(features: Tensor, weight: Tensor, dropped: int | None) -> Tensor:
    """Eq. 2–4 as printed, for a 1×1 classifier: one feature map a class, kept ones averaged."""
    kept = [c for c in range(weight.shape[0]) if c != dropped]
    return sum(torch.relu(features * weight[c].view(1, -1, 1, 1)) for c in kept) / len(kept)


LAYOUTS = {
    "contiguous": lambda a: a.contiguous(),
    "channels_last": lambda a: a.contiguous(memory_format=torch.channels_last),
    "transposed": lambda a: a.transpose(2, 3).contiguous().transpose(2, 3),
    "every other pixel": lambda a: a.repeat_interleave(2, 3)[..., ::2],
    "expanded": lambda a: a[:, :, :1].expand(a.shape),
}


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (2, 5, 1, 1), (3, 1, 4, 3), (2, 0, 4, 3), (2, 5, 0, 3)], ids=str)
def test_values_and_gradients_in_every_layout(layout: str, shape: tuple[int, ...]) -> None:
    weight = random(4, shape[1], 1, 1, seed=1)
    results = []
    for function in (drop_features, literal):
        features, w = LAYOUTS[layout](random(*shape)).detach().requires_grad_(), weight.clone().requires_grad_()
        value = function(features, w, 2)
        results.append((value, *torch.autograd.grad(value, (features, w), random(*shape, seed=2))))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-13)  # float64 sums in another order


@pytest.mark.parametrize("pieces", [1, 7, 64])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_size_of_the_pieces_changes_nothing(layout: str, pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features = LAYOUTS[layout](random(3, 5, 4, 7))
    arguments = random(3, 5, 4, 7, seed=1), features, random(5, seed=2).abs(), -random(5, seed=3).abs()
    whole = OPERATORS.gate(*arguments[1:]), *OPERATORS.gate_backward(*arguments)
    monkeypatch.setattr("dropclass_deploy.training.dropclass.plain_gate._PIECE", pieces)
    for ours, expected in zip(
        (OPERATORS.gate(*arguments[1:]), *OPERATORS.gate_backward(*arguments)), whole, strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-13)  # sums in another order


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_channels_last_in_gives_channels_last_out_forward_and_backward(dtype: torch.dtype) -> None:
    features = LAYOUTS["channels_last"](random(2, 6, 5, 4, dtype=dtype)).requires_grad_()
    result = drop_features(features, random(3, 6, 1, 1, seed=1, dtype=dtype), 1)
    assert result.stride() == features.stride() != result.contiguous().stride()
    (gradient,) = torch.autograd.grad(result.sum(), features)
    assert gradient.stride() == features.stride()
    assert result.dtype == gradient.dtype == dtype


def samples() -> list[Any]:
    """Arguments of the two operators that have gradients."""
    gates = [
        pytest.param("class_gates", (random(5, 4).requires_grad_(), dropped, 4), id=f"class_gates {dropped}")
        for dropped in (-1, 0, 3)
    ]
    for layout in ("contiguous", "channels_last", "transposed"):
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            features = LAYOUTS[layout](random(2, 5, 4, 3, dtype=dtype)).requires_grad_()
            wide = torch.float64 if dtype == torch.float64 else torch.float32
            up, down = random(5, seed=1, dtype=wide).abs(), -random(5, seed=2, dtype=wide).abs()
            arguments = (features, up.requires_grad_(), down.requires_grad_())
            gates.append(pytest.param("gate", arguments, id=f"gate {layout} {dtype}"))
    return gates


# torch's own check looks at gradients of tensors that it derived.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize(("name", "arguments"), samples())
def test_torch_finds_nothing_wrong_with_the_registration(name: str, arguments: tuple[Any, ...]) -> None:
    # Schema, fake kernel, autograd registration, and eager against compiled with dynamic shapes.
    torch.library.opcheck(getattr(OPERATORS, name).default, arguments)


@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
def test_torch_finds_nothing_wrong_with_the_backward_operators(wanted: tuple[bool, bool]) -> None:
    features, gradient = random(2, 5, 4, 3), random(2, 5, 4, 3, seed=1)
    gates = random(5, seed=2).abs(), -random(5, seed=3).abs()
    torch.library.opcheck(OPERATORS.gate_backward.default, (gradient, features, *gates, *wanted))
    torch.library.opcheck(OPERATORS.class_gates_backward.default, (*gates, random(4, 5), 2, 3))


@pytest.mark.parametrize("dropped", [None, 1])
def test_gradients_of_gradients(dropped: int | None) -> None:
    features, weight = random(1, 3, 2, 2), random(3, 3, 1, 1, seed=3)
    # Away from 0, where ReLU has no derivative: a step of gradcheck (1e-6) must not cross it.
    inputs = tuple((value + 0.1 * value.sign()).requires_grad_() for value in (features, weight))
    assert torch.autograd.gradgradcheck(lambda a, w: drop_features(a, w, dropped), inputs)


def test_a_huge_weight_of_the_dropped_class_costs_no_digit() -> None:
    weight = random(5, 3, 1, 1, dtype=torch.float32)
    expected = channel_gates(weight, 2)
    weight[2] = 1e30
    assert all(torch.equal(ours, value) for ours, value in zip(channel_gates(weight, 2), expected, strict=True))
    weight[2] = torch.nan
    assert all(torch.equal(ours, value) for ours, value in zip(channel_gates(weight, 2), expected, strict=True))


class Calls(TorchDispatchMode):
    """Arguments and results of the backward operator."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[tuple[Any, ...], tuple[Tensor, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is OPERATORS.gate_backward.default:
            self.seen.append((args, result))
        return result


@pytest.mark.parametrize(("features_too", "gates_too"), [(True, True), (True, False), (False, True)])
def test_only_the_gradients_that_are_needed_are_computed(features_too: bool, gates_too: bool) -> None:
    features = random(2, 4, 3, 3).requires_grad_(features_too)
    weight = random(3, 4, 1, 1, seed=1).requires_grad_(gates_too)
    with Calls() as calls:
        drop_features(features, weight, 1).sum().backward()
    ((arguments, (first, second)),) = calls.seen
    assert [*arguments[4:], True, True][:2] == [features_too, gates_too]  # what equals the default is left out
    assert (first.shape, second.shape) == ((2, 4, 3, 3) if features_too else (0,), (2, 4) if gates_too else (0,))
    assert (features.grad is not None, weight.grad is not None) == (features_too, gates_too)


def test_nothing_as_large_as_the_features_is_kept_beside_them() -> None:
    features, kept = random(2, 4, 9, 9).requires_grad_(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        drop_features(features, random(3, 4, 1, 1, seed=1).requires_grad_(), 1)
    large = [tensor for tensor in kept if tensor.numel() > 12]
    assert [tensor.data_ptr() for tensor in large] == [features.data_ptr()]


@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_features_stay_bfloat16_and_gates_are_float32(weight_dtype: torch.dtype) -> None:
    backbone = nn.Conv2d(3, 6, 1)
    weight = random(5, 6, 1, 1, seed=1, dtype=weight_dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = backbone(random(2, 3, 4, 4, dtype=torch.float32))
        result = drop_features(features, weight, 2)
    assert features.dtype == result.dtype == torch.bfloat16
    expected = literal(features.double(), weight.double(), 2)
    # Gates and products are float32: the one rounding to bfloat16 is half a unit in the last place.
    torch.testing.assert_close(result.double(), expected, rtol=0.51 * torch.finfo(torch.bfloat16).eps, atol=1e-12)
    result.sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == weight_dtype
    assert backbone.weight.grad is not None


def step(features: Tensor, weight: Tensor, dropped: int | None) -> Tensor:
    return drop_features(features, weight, dropped).square().sum()


def test_compiled_it_is_one_graph_for_nearly_all_classes() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(step, backend=counter, fullgraph=True)
    for dropped in [None, 7, 3, 0, 1, *range(19)]:
        gradients = []
        for function in (compiled, step):
            features, weight = random(2, 4, 5, 3).requires_grad_(), random(19, 4, 1, 1, seed=1).requires_grad_()
            gradients.append(torch.autograd.grad(function(features, weight, dropped), (features, weight)))
        for ours, expected in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-13)
    # None; 7, the first number; any number; torch takes 0 and 1 for constants of their own.
    assert counter.frame_count <= 5


def test_the_compiled_backward_pass_has_the_one_operator() -> None:
    names: list[str] = []

    def record(graph: torch.fx.GraphModule, _example: object) -> Any:
        names.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return make_boxed_func(graph)

    torch._dynamo.reset()
    compiled = torch.compile(step, backend=aot_autograd(fw_compiler=record, bw_compiler=record), fullgraph=True)
    compiled(random(2, 4, 5, 3).requires_grad_(), random(5, 4, 1, 1).requires_grad_(), 2).backward()
    for name in ("gate", "gate_backward", "class_gates", "class_gates_backward"):
        assert names.count(f"dropclass.{name}.default") == 1, names
    assert not any("threshold" in name or "relu" in name for name in names)


@pytest.mark.parametrize(
    ("features", "gate", "message"),
    [
        (random(2, 4, 3), random(4), r"features are torch.float64 \(2, 4, 3\); expected \(N, K, h, w\) float"),
        (torch.ones(1, 4, 3, 3, dtype=torch.int64), random(4), r"features are torch.int64"),
        (random(2, 4, 3, 3), random(5), r"a gate is torch.float64 \(5,\); expected torch.float64 \(4,\)"),
        (
            random(2, 4, 3, 3, dtype=torch.bfloat16),
            random(4),
            r"a gate is torch.float64 \(4,\); expected torch.float32",
        ),
    ],
    ids=["three axes", "integers", "channels", "dtype"],
)
def test_what_does_not_fit_is_refused(features: Tensor, gate: Tensor, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        OPERATORS.gate(features, gate, gate)


WORKER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    import torch
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel
    from dropclass_deploy.training.dropclass import drop_features

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.classifier = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 5, 1)

        def forward(self, images):
            return self.classifier(drop_features(self.backbone(images), self.classifier.weight, 3)).square().mean()

    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    torch.manual_seed(0)
    alone, together = Network().double(), Network().double()
    together.load_state_dict(alone.state_dict())
    together = DistributedDataParallel(together)
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    alone(images).backward()
    together(images[2 * rank : 2 * rank + 2]).backward()
    pairs = zip(alone.parameters(), together.module.parameters(), strict=True)
    error = max((a.grad - b.grad).abs().max().item() / a.grad.abs().max().item() for a, b in pairs)
    Path(sys.argv[1], f"rank-{rank}").write_text(str(error))
    torch.distributed.destroy_process_group()
    """
)


@pytest.mark.slow
def test_two_processes_average_their_gradients(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            "2",
            str(script),
            str(tmp_path),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    errors = [float((tmp_path / f"rank-{rank}").read_text()) for rank in (0, 1)]
    assert max(errors) < 1e-12  # float64, summed in another order
