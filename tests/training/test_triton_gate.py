"""The GPU kernels: their values under Triton's interpreter, or on a GPU where there is one; and what they compile to.

Each in a process of its own: the interpreter is chosen when Triton is imported, and it cannot compile.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dropclass_deploy.training.dropclass import gate_operator

pytest.importorskip("triton", reason="torch brings Triton along on Linux only")
CASES = Path(__file__).parent / "gate_kernel_cases.py"


def run(*arguments: str, interpret: bool) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.chosen
def test_under_the_interpreter_the_kernels_agree_with_plain_torch() -> None:
    result = run(str(CASES), interpret=True)
    assert (result.returncode, result.stdout) == (0, "33 cases, 0 failures\n"), result.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiled_the_kernels_agree_with_plain_torch() -> None:
    result = run(str(CASES), "--device", "cuda", interpret=False)
    assert (result.returncode, result.stdout) == (0, "44 cases, 0 failures\n"), result.stderr


# Pointers and the extents named in `aligned` are multiples of 16, as they are for K = 256 and planes of 64×128.
COMPILE = textwrap.dedent(
    """
    import re
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from dropclass_deploy.training.dropclass import gate_kernels

    TENSORS = {"features", "grad", "result"}
    NUMBERS = {"positive", "negative", "partial", "importance", "grad_positive", "grad_negative"}

    def ptx(name, dtype, capability, aligned, **constants):
        function = getattr(gate_kernels, name)
        signature, attributes = {}, {}
        for index, argument in enumerate(function.arg_names):
            pointer = "*" + dtype if argument in TENSORS else "*fp32" if argument in NUMBERS else "i32"
            signature[argument] = "constexpr" if argument in constants else pointer
            if argument in TENSORS | NUMBERS | aligned:
                attributes[(index,)] = [["tt.divisibility", 16]]
        places = {(function.arg_names.index(argument),): value for argument, value in constants.items()}
        target = GPUTarget("cuda", capability, 32)
        return triton.compile(ASTSource(function, signature, places, attributes), target=target).asm["ptx"]

    both = {"features_too": True, "gates_too": True}
    for capability in (80, 90):
        for dtype, block in (("fp32", 2048), ("bf16", 4096)):
            rows = block // 128
            for name, aligned, constants in (
                ("gate_planes", {"plane"}, {"block": block}),
                ("gate_pixels", {"width"}, {"steps": 64 // rows, "tile_rows": rows, "tile_columns": 128}),
                ("backward_planes", {"plane"}, {"block": block, **both}),
                ("backward_pixels", {"width"}, {"steps": 128 // rows, "tile_rows": rows // 2, "tile_columns": 128, **both}),
            ):
                code = ptx(name, dtype, capability, aligned, **constants)
                wide = [len(re.findall(way + r"\\.global\\S*\\.v4\\.b32", code)) for way in ("ld", "st")]
                # A tile is 8 KiB, or 4: four or two 16-byte accesses for each of 128 threads.
                tile = 4 if name != "backward_pixels" else 2
                assert wide == [tile * (1 + name.startswith("backward")), tile], (name, dtype, capability, wide)
        ptx("class_gates", "fp32", capability, set(), tile_rows=32, tile_columns=32)
        ptx("class_gates_backward", "fp32", capability, set(), block=1024)
    print("compiled")
    """
)


@pytest.mark.slow
def test_without_a_gpu_the_kernels_compile_to_accesses_of_16_bytes() -> None:
    result = run("-c", COMPILE, interpret=False)
    assert (result.returncode, result.stdout) == (0, "compiled\n"), result.stderr


# A CPU is a device on which a compiled kernel cannot run: what a GPU without a C compiler or driver shows as well.
FALL_BACK = textwrap.dedent(
    """
    import warnings
    import torch
    from dropclass_deploy.training.dropclass import gate_operator

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        answers = [gate_operator._kernels(torch.device("cpu")) for _ in range(2)]
    print(answers, len(said), said[0].message)
    """
)


@pytest.mark.slow
def test_where_the_kernels_cannot_run_one_warning_says_so_and_plain_operations_do_the_work() -> None:
    result = run("-c", FALL_BACK, interpret=False)
    assert result.returncode == 0, result.stderr
    said = r"\[None, None\] 1 Triton's kernels do not run on cpu \(.+\): plain operations run instead, slower\n"
    assert re.fullmatch(said, result.stdout), result.stdout


@pytest.mark.parametrize("tensor", [torch.ones(1, dtype=torch.float64), torch.ones(0)], ids=["float64", "empty"])
def test_float64_and_nothing_at_all_do_not_go_through_the_kernels(tensor: Tensor) -> None:
    assert gate_operator._kernels_for(tensor) is None
