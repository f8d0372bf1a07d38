"""Candidates on probe images: figures as by hand, and a memory that never answers for something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from trained_street import DATA, street_classes

from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.export.graphs.core_and_tail import join_tail, split_tail
from dropclass_deploy.export.quantise.calibration import Chosen
from dropclass_deploy.export.quantise.evaluator import Evaluator, passes, slack, worst
from dropclass_deploy.export.quantise.half import halved
from dropclass_deploy.export.to_onnx import Traced


def evaluator(street_traced: Traced, cache: Path, indices: range = range(12), **options: object) -> Evaluator:
    probes = Chosen(open_dataset(DATA, "val"), indices)
    given = {"preprocess": Preprocess(), "runtime": "onnxruntime", **options}
    return Evaluator(probes, street_traced.graph, street_classes(), cache=cache, **given)


def test_the_network_itself_loses_nothing(street_traced: Traced, tmp_path: Path) -> None:
    verdicts = evaluator(street_traced, tmp_path)(street_traced.graph)
    assert all(item.figures.delta == 0 for item in verdicts if item.figures.pixels)
    assert passes(verdicts)
    assert slack(worst(verdicts)) == pytest.approx(0.003)  # a rare class: all of its margin is left


def test_what_was_measured_is_found_again(street_traced: Traced, tmp_path: Path) -> None:
    core, tail = split_tail(street_traced.graph)
    half = join_tail(halved(core), tail)
    first, second = evaluator(street_traced, tmp_path), evaluator(street_traced, tmp_path)
    assert first(half) == second(half)
    assert (first.evaluations, second.evaluations) == (1, 0)


@pytest.mark.parametrize(
    "changed",
    [
        {"preprocess": Preprocess(mean=(0.4, 0.4, 0.4))},
        {"runtime": "openvino"},
        {"indices": range(1, 13)},
    ],
    ids=["preprocess", "runtime", "images"],
)
def test_a_change_of_anything_is_measured_anew(street_traced: Traced, tmp_path: Path, changed: dict) -> None:
    evaluator(street_traced, tmp_path)(street_traced.graph)
    other = evaluator(street_traced, tmp_path, **changed)
    other(street_traced.graph)
    assert other.evaluations == 1


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut off"])
def test_a_broken_memory_is_measured_anew(street_traced: Traced, tmp_path: Path, content: bytes) -> None:
    before = evaluator(street_traced, tmp_path)(street_traced.graph)
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(content)
    again = evaluator(street_traced, tmp_path)
    after = again(street_traced.graph)
    assert again.evaluations == 1
    np.testing.assert_equal([item.figures for item in before], [item.figures for item in after])
