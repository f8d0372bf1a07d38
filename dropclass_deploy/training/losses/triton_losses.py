"""The losses of one head at label resolution, and their gradient, on a GPU: launches the kernels of ``triton_kernels``."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from dropclass_deploy.core.errors import MissingExtraError
from dropclass_deploy.training.losses.axis_cells import AxisCells, axis_cells, axis_spans

LANES = 32  # of a warp; one warp is one program, so that every exchange is a shuffle
# Pixels a thread keeps in registers, three or four numbers each. Counted for compute capability 9.0 at stride 8, in the
# loops' instructions a pixel and class: 17 with 16 pixels, 26 with 8; with 32 the registers do not suffice.
PIXELS_PER_THREAD = 16
PIXELS_UNRESIZED = 8  # each with pointers of its own
MOST_ROWS = 8
# 16 warps a multiprocessor. The compiler takes up to 180 where it may, outside the loops over classes; with 128 it puts
# a dozen numbers aside there, and none within the loops.
MOST_REGISTERS = 128
GATHER_BLOCK = 256


@dataclass(frozen=True)
class Blocks:
    """How one call is cut into programs: the tables of both axes and the block's shape [SY, XR, BW, XL]."""

    y: AxisCells
    x: AxisCells
    shape: tuple[int, int, int, int]
    same: bool

    @property
    def across(self) -> int:
        """Programs side by side."""
        return -(-self.x.pieces // self.shape[2])


def blocks(size_in: tuple[int, int], size_out: tuple[int, int], align_corners: bool, device: torch.device) -> Blocks:
    """The cut for logits of ``size_in`` = (h, w) and labels of ``size_out`` = (H, W)."""
    if size_in == size_out:
        span = PIXELS_UNRESIZED * LANES
        rows, columns = axis_spans(size_out[0], 1, device), axis_spans(size_out[1], span, device)
        return Blocks(rows, columns, (1, PIXELS_UNRESIZED, 1, LANES), same=True)
    rows = axis_cells(size_in[0], size_out[0], align_corners, True, MOST_ROWS, device)
    columns = axis_cells(size_in[1], size_out[1], align_corners, False, LANES, device)
    groups = min(columns.length, PIXELS_PER_THREAD // rows.length)
    lanes = columns.length // groups
    return Blocks(rows, columns, (rows.length, groups, LANES // lanes, lanes), same=False)


def head_losses(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor,
    pixel_weight: Tensor | None,
    scale: Tensor,
    suppressed: int,
    ignore_index: int,
    align_corners: bool,
    with_gradient: bool,
    deterministic: bool = True,
) -> tuple[Tensor, Tensor]:
    """The two loss sums of one head and their gradient, without its logits at full resolution.

    With L the logits resized bilinearly to (H, W) as ``F.interpolate`` does, p = softmax(L), y a pixel's label and z the
    suppressed class: the sums of weight[y]·pixel_weight·(−log p_y) and of p_z over the pixels that are not ignored, and

        ∂/∂L_c = p_c·(k − s·p_z) − k·[c = y] + s·p_z·[c = z],   k = scale[0]·weight[y]·pixel_weight,   s = scale[1],

    carried back through the resizing. Arithmetic is float32, with the maximum subtracted; infinite or NaN logits give NaN.

    Args:
        logits: (N, C, h, w) float16, bfloat16 or float32, of any strides.
        labels: (N, H, W) integer ids; those outside 0 … C − 1 count nowhere.
        weight: (C,) float32; 0 masks a class in the cross-entropy.
        pixel_weight: (N, H, W) float32 or None.
        scale: (2,) float32 on the logits' device, the factors of the two sums in what is differentiated.
        suppressed: z, or −1: the second sum is 0.
        ignore_index: label that counts nowhere.
        align_corners: as in ``F.interpolate``.
        with_gradient: whether the gradient is wanted.
        deterministic: add up the gradient in a fixed order, through a buffer of four numbers a cell and class; else by
            atomic additions, whose rounding differs from run to run.

    Returns:
        sums (2,) float64, and the gradient (N, C, h, w) float32 contiguous, or empty (0,).

    Raises:
        MissingExtraError: without Triton.
    """
    kernels = _kernels()
    labels = labels.contiguous()
    weight, scale = weight.float().contiguous(), scale.float().contiguous()
    pixel_weight = None if pixel_weight is None else pixel_weight.float().contiguous()
    n, c, h, w = logits.shape
    cut = blocks((h, w), (labels.shape[1], labels.shape[2]), align_corners, logits.device)
    programs = n * cut.y.pieces * cut.across
    sums = torch.empty((programs, 2), dtype=torch.float32, device=logits.device)
    atomic = not (deterministic or cut.same)
    out = _gradient_space(logits, cut, with_gradient, atomic)
    tables = (cut.y.starts, cut.y.cells, cut.y.share, cut.x.starts, cut.x.cells, cut.x.share)
    sizes = (h, w, *labels.shape[1:], cut.y.pieces, cut.x.pieces, cut.x.pieces_per_cell, cut.across)
    with _on(logits.device):
        kernels.loss_kernel[(programs,)](
            logits, labels, weight, pixel_weight, scale, sums, out, *tables, c, suppressed, ignore_index, *sizes,
            *logits.stride(), out.stride(1) if with_gradient else 0,
            *cut.shape, cut.same, with_gradient, atomic, kernels.SKIP_ABSENT,
            num_warps=1, num_stages=1, **_register_limit(),
        )  # fmt: skip
        gradient = out
        if with_gradient and not (atomic or cut.same):
            gradient = _gather(kernels, out, cut, (n, c, h, w))
    # Few hundred pixels a float32 sum; float64 from there on keeps a batch's mean to float32.
    return sums.sum(0, dtype=torch.float64), gradient


def _gradient_space(logits: Tensor, cut: Blocks, with_gradient: bool, atomic: bool) -> Tensor:
    """Where the loss kernel puts gradients: the logits' own (zeros, for atomics) or four planes of cells a class."""
    if not with_gradient:
        return torch.empty(0, dtype=torch.float32, device=logits.device)
    if atomic:
        return torch.zeros(logits.shape, dtype=torch.float32, device=logits.device)
    shape = logits.shape if cut.same else (*logits.shape[:2], 4, cut.y.pieces, cut.x.pieces)
    return torch.empty(shape, dtype=torch.float32, device=logits.device)


def _gather(kernels: ModuleType, partial: Tensor, cut: Blocks, shape: tuple[int, int, int, int]) -> Tensor:
    """The gradient (N, C, h, w) from the cells' sums (N, C, 4, pieces, pieces)."""
    n, c, h, w = shape
    gradient = torch.empty(shape, dtype=torch.float32, device=partial.device)
    count = -(-h * w // GATHER_BLOCK)
    kernels.gather_kernel[(n * c * count,)](
        partial, gradient, h, w, cut.y.pieces, cut.x.pieces, count, cut.y.pieces_per_cell, cut.x.pieces_per_cell,
        GATHER_BLOCK, num_warps=4,
    )  # fmt: skip
    return gradient


def _kernels() -> ModuleType:
    """The kernels, loaded when first asked for: Triton comes with torch on Linux only."""
    try:
        from dropclass_deploy.training.losses import triton_kernels
    except ModuleNotFoundError as error:
        raise MissingExtraError("triton", "train") from error
    return triton_kernels


def _register_limit() -> dict[str, int]:
    """The launch option that limits registers; only NVIDIA's compiler has it."""
    return {} if torch.version.hip else {"maxnreg": MOST_REGISTERS}


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current device, which need not be the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
