"""The GPU's loss kernels against float64: on a GPU compiled, elsewhere under Triton's interpreter on the CPU."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from loss_kernel_cases import Case, random_case, reference, with_logits
from torch import Tensor

from dropclass_deploy.training.losses.axis_cells import AxisCells, axis_cells, block_length, source_cells

pytest.importorskip("triton", reason="Triton comes with torch on Linux only")

from dropclass_deploy.training.losses import triton_kernels
from dropclass_deploy.training.losses.triton_losses import head_losses

# Float32: a few roundings of 6e-8 in an exponent of some ten, a sum over tens of pixels.
RELATIVE = 3e-6
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    if triton_kernels.SKIP_ABSENT:
        pytest.skip("no GPU, and Triton was imported without TRITON_INTERPRET=1")
    return CPU


def run(
    case: Case, device: torch.device, *, gradient: bool = True, deterministic: bool = True
) -> tuple[Tensor, Tensor]:
    sums, found = head_losses(*case.arguments(device), gradient, deterministic)
    return sums.cpu(), found.cpu()


def assert_right(case: Case, found: tuple[Tensor, Tensor], relative: float = RELATIVE) -> None:
    sums, gradient = reference(case)
    assert found[0].dtype == torch.float64
    assert found[1].dtype == torch.float32
    assert found[1].is_contiguous()
    torch.testing.assert_close(found[0], sums, rtol=relative, atol=1e-9)
    torch.testing.assert_close(found[1].double(), gradient, rtol=0, atol=relative * float(gradient.abs().max()))


GEOMETRIES = {
    "stride 2": ((3, 4), (6, 8), {"label_dtype": torch.uint8}),
    "stride 4": ((2, 3), (8, 12), {"label_dtype": torch.uint8, "pixel_weight": True}),
    "stride 8": ((2, 2), (16, 16), {"ignore_index": -100, "suppressed": -1}),
    "stride 16": ((1, 2), (16, 32), {"label_dtype": torch.int32}),
    "stride 8, corners aligned": ((2, 3), (16, 24), {"align_corners": True, "images": 2}),
    "stride 3.7": ((3, 4), (11, 15), {"pixel_weight": True, "images": 2}),
    "stride 3.7, corners aligned": ((3, 4), (11, 15), {"align_corners": True, "ignore_index": 0}),
    "odd, wide": ((2, 5), (3, 31), {"label_dtype": torch.int16, "ignore_index": -1}),
    "not resized": ((3, 5), (3, 5), {"pixel_weight": True, "images": 2}),
    "not resized in height": ((3, 2), (3, 9), {"align_corners": True}),
    "smaller": ((5, 4), (3, 2), {}),
    "one logit": ((1, 1), (9, 40), {}),
    "one label row, corners aligned": ((3, 4), (1, 9), {"align_corners": True}),
    "two classes": ((2, 2), (5, 7), {"classes": 2, "suppressed": 0}),
    "nineteen classes, all kept": ((2, 2), (8, 8), {"classes": 19, "suppressed": -1}),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_equals_float64_reference(name: str, device: torch.device) -> None:
    small, size, options = GEOMETRIES[name]
    case = random_case(small, size, **options)
    assert_right(case, run(case, device))


@pytest.mark.slow
def test_150_classes(device: torch.device) -> None:
    case = random_case((1, 2), (2, 5), classes=150, label_dtype=torch.uint8, suppressed=149)
    assert_right(case, run(case, device))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_types_and_channels_last(dtype: torch.dtype, device: torch.device) -> None:
    case = random_case((3, 3), (9, 8))
    case = with_logits(case, case.logits.to(dtype).to(memory_format=torch.channels_last))
    assert not case.logits.is_contiguous()
    assert_right(case, run(case, device))


def test_strided_slice_of_a_larger_tensor(device: torch.device) -> None:
    case = random_case((3, 3), (6, 7))
    wide = torch.full((1, 8, 6, 7), 50.0)
    wide[:, ::2, ::2, 1::2] = case.logits
    assert_right(case, run(with_logits(case, wide[:, ::2, ::2, 1::2]), device))


def test_hand_worked_pixel(device: torch.device) -> None:
    """Logits 0 and ln 3 are probabilities 1/4 and 3/4; CE of label 0 with weight 2 is 2 ln 4, and z = 1 has 3/4."""
    case = Case(
        torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int64),
        torch.tensor([2.0, 1.0]), None, torch.tensor([1.0, 4.0]), 1, 255, False,
    )  # fmt: skip
    sums, gradient = run(case, device)
    assert sums.tolist() == pytest.approx([2 * math.log(4), 0.75], rel=1e-6)
    # 2·(p − [1, 0]) of the cross-entropy, 4·p_z·([z] − p) of the suppression
    expected = [2 * -0.75 - 4 * 0.75 * 0.25, 2 * 0.75 + 4 * 0.75 * 0.25]
    assert gradient.flatten().tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [(6, 7), (3, 3)], ids=["resized", "not resized"])
def test_all_ignored_is_zero(size: tuple[int, int], device: torch.device) -> None:
    case = random_case((3, 3), size, ignore_index=-100)
    sums, gradient = run(replace(case, labels=torch.full_like(case.labels, -100)), device)
    assert sums.tolist() == [0.0, 0.0]
    assert not gradient.any()


def test_labels_out_of_range_count_nowhere(device: torch.device) -> None:
    case = random_case((2, 2), (5, 6))
    wrong = case.labels.clone()
    wrong[case.labels == 255] = torch.tensor([4, -7, 2**40, 255])[torch.arange(int((case.labels == 255).sum())) % 4]
    sums, gradient = run(replace(case, labels=wrong), device)
    expected_sums, expected_gradient = run(case, device)
    assert torch.equal(sums, expected_sums)
    assert torch.equal(gradient, expected_gradient)


@pytest.mark.parametrize("height", [300.0, 1e4])
@pytest.mark.parametrize("deterministic", [True, False])
def test_corners_sure_of_different_classes(height: float, deterministic: bool, device: torch.device) -> None:
    """Between such corners no class comes near the corners' maxima: without each pixel's own, sums would be 0/0."""
    case = random_case((2, 2), (8, 8), label_dtype=torch.uint8, spread=1.0)
    logits = case.logits.clone()
    for corner, (y, x) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        logits[0, corner, y, x] += height
        logits[0, (corner + 1) % 4, y, x] -= height
    case = with_logits(case, logits)
    # Exponents of this height in float32 are a few 2⁻²⁴ of it off, and probabilities near a tie as much.
    assert_right(case, run(case, device, deterministic=deterministic), relative=height * 2e-7)


def test_without_gradient_the_sums_are_the_same(device: torch.device) -> None:
    case = random_case((2, 3), (5, 9))
    sums, gradient = run(case, device, gradient=False)
    assert torch.equal(sums, run(case, device)[0])
    assert gradient.shape == (0,)


@pytest.mark.parametrize("align_corners", [False, True])
def test_atomic_additions_agree(align_corners: bool, device: torch.device) -> None:
    case = random_case((3, 4), (11, 15), align_corners=align_corners)
    assert_right(case, run(case, device, deterministic=False))


def test_twice_the_same_bits(device: torch.device) -> None:
    case = random_case((3, 4), (12, 15), images=1 if device == CPU else 8)
    first, second = run(case, device), run(case, device)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_skipping_absent_classes(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled, a block skips what only its labels' classes need, 32 groups of classes apart; interpreted it does not."""
    case = random_case((1, 4), (1, 4), classes=35, suppressed=3)  # not resized: one program
    case = replace(case, labels=torch.tensor([[[0, 17, 33, 255]]]))
    monkeypatch.setattr(triton_kernels, "SKIP_ABSENT", True)
    assert_right(case, run(case, device))


def test_cells_of_stride_2_by_hand() -> None:
    """Two logits, four pixels: centres at −0.25, 0.25, 0.75 and 1.25 of the logits' own."""
    cells, share = source_cells(2, 4, align_corners=False)
    assert cells.tolist() == [-1, 0, 0, 1]
    assert share.tolist() == [1.0, 0.25, 0.75, 0.0]
    table = axis_cells(2, 4, False, True, 8, CPU)
    assert table.starts.tolist() == [0, 1, 3, 4]
    assert (table.length, table.pieces_per_cell) == (2, 1)


def test_powers_of_two_waste_no_row() -> None:
    for stride in (2, 4, 8, 16):
        table = axis_cells(12, 12 * stride, False, True, 8, CPU)
        assert table.length * table.pieces_per_cell == stride


def test_block_length_weighs_idle_pixels_against_blocks() -> None:
    assert [block_length(count, 8, 2.5) for count in (1, 3, 5, 8, 9, 16)] == [1, 4, 8, 8, 4, 8]


def interpolated(table: AxisCells, source: Tensor) -> Tensor:
    """What the table says a resize is, written out: every piece's pixels from its cell's two sources."""
    result = torch.full((len(table.share),), float("nan"), dtype=torch.float64)
    for piece, cell in enumerate(table.cells.tolist()):
        first, second = source[max(cell, 0)], source[min(cell + 1, len(source) - 1)]
        start, stop = int(table.starts[piece]), int(table.starts[piece + 1])
        assert stop - start <= table.length
        share = table.share[start:stop].double()
        result[start:stop] = (1 - share) * first + share * second
    return result


@pytest.mark.parametrize("align_corners", [False, True])
def test_axis_is_the_resize_of_torch(align_corners: bool) -> None:
    for inputs in (1, 2, 3, 7, 64):
        source = torch.randn(inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(inputs))
        for outputs in (1, 2, 3, 5, 7, 56, 65, 511):
            column = F.interpolate(source.view(1, 1, -1, 1), (outputs, 1), mode="bilinear", align_corners=align_corners)
            for rows in (True, False):
                table = axis_cells(inputs, outputs, align_corners, rows, 8 if rows else 32, CPU)
                found = interpolated(table, source)
                # shares are float32
                torch.testing.assert_close(found, column.flatten(), rtol=0, atol=1e-6, msg=f"{inputs} → {outputs}")


COMPILE = Path(__file__).with_name("compile_loss_kernels.py")


@pytest.mark.slow
@pytest.mark.chosen
def test_kernels_compile_for_gpus(tmp_path: Path) -> None:
    """Down to machine code, without a GPU, for compute capabilities 8.0 and 9.0, with the constants of real launches."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, str(COMPILE)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert len(report) == 5
    for name, kernel in report.items():
        # Either would sit in a loop over classes: a layout that changes there, and the shared memory that it changes in.
        assert kernel["conversions"] == 0, name
        assert kernel["shared_bytes"] == 0, name
        assert kernel["machine_code_bytes"] > 1000, name
