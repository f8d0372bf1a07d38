"""Runs that choose their images and crops: stopped and resumed they are the run that was never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rounds import first_of
from test_trainer import Teller, recipe, records

from dropclass_deploy.core.errors import TrainingInterruptedError
from dropclass_deploy.training import train

GROWING = {"phases": [[0.5, 0.75], [0.5, 1.0]]}
RUNS: dict[str, dict[str, Any]] = {
    "rare classes, mixed": {"method__with": ["rare_class_sampling", "class_mix", "enet_weights"]},
    "rare classes in growing crops": {
        "method__with": ["curriculum", "rare_class_sampling"],
        "method__options": {"curriculum": GROWING},
    },
    "resampled, mixed, whole images that grow": {
        "method__with": ["resample", "class_mix", "curriculum"],
        "method__options": {"resample": {"class": "cyclist", "times": 3}, "curriculum": GROWING},
        "train__crop": None,
        "train__schedule": "step",
    },
}


@pytest.mark.parametrize("name", first_of(RUNS))
def test_a_resumed_run_is_the_run_that_was_never_stopped(name: str, tmp_path: Path) -> None:
    asked = recipe(train__steps=4, train__validate_every=4, train__checkpoint_every=4, **RUNS[name])
    whole = train(asked, tmp_path / "whole")
    with pytest.raises(TrainingInterruptedError, match="after step 1 of 4"):
        train(asked, tmp_path / "parts", reporter=Teller(step=1))
    parts = train(asked, tmp_path / "parts", resume=True)
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()
    assert [line["loss"] for line in records(whole, "train")] == [line["loss"] for line in records(parts, "train")]
