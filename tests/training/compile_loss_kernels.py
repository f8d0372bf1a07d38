"""Compile the loss kernels for GPUs that need not be there; prints JSON. Run without TRITON_INTERPRET."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from triton import compile as compile_kernel
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from dropclass_deploy.training.losses.triton_kernels import gather_kernel, loss_kernel
from dropclass_deploy.training.losses.triton_losses import GATHER_BLOCK, MOST_REGISTERS, blocks

POINTERS = {
    "logits": "*bf16", "labels": "*u8", "starts_y": "*i32", "cells_y": "*i32", "starts_x": "*i32", "cells_x": "*i32",
    **dict.fromkeys(["weight", "scale", "sums", "gradient", "share_y", "share_x", "partial"], "*fp32"),
}  # fmt: skip


def build(kernel: Any, constants: dict[str, object], capability: int, **options: int) -> dict[str, int]:
    """Compile one kernel: its layout changes, shared memory and size."""
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else POINTERS.get(name, "i32") for name in names}
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in names if signature[name].startswith("*")}
    values = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=aligned)
    built = compile_kernel(source, target=GPUTarget("cuda", capability, 32), options=options)
    return {
        "conversions": built.asm["ttgir"].count("convert_layout"),
        "shared_bytes": built.metadata.shared,
        "machine_code_bytes": len(built.asm["cubin"]),
    }


def build_losses(stride: int, capability: int, *, atomic: bool = False) -> dict[str, int]:
    """Compile ``loss_kernel`` as a launch at this stride does; 1: nothing is resized."""
    cut = blocks((64, 128), (64 * stride, 128 * stride), False, torch.device("cpu"))
    shape = dict(zip(("SY", "XR", "BW", "XL"), cut.shape, strict=True))
    flags = {"SAME": cut.same, "GRADIENT": True, "ATOMIC": atomic, "SKIP": True, "pixel_weight": None, "stride_w": 1}
    return build(loss_kernel, {**shape, **flags}, capability, num_warps=1, num_stages=1, maxnreg=MOST_REGISTERS)


def main() -> None:
    """Compile what a training run at common strides launches."""
    report = {
        "stride 8, 8.0": build_losses(8, 80),
        "stride 8, 9.0": build_losses(8, 90),
        "stride 4, 9.0, atomic": build_losses(4, 90, atomic=True),
        "not resized, 9.0": build_losses(1, 90),
        "gather, 9.0": build(gather_kernel, {"BLOCK": GATHER_BLOCK}, 90, num_warps=4),
    }
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
