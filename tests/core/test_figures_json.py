"""Figures as JSON."""

from __future__ import annotations

import numpy as np

from dropclass_deploy.core.metrics import listed_json


def test_figures_as_lists_have_null_for_nan() -> None:
    assert listed_json(np.array([0.5, np.nan])) == [0.5, None]
    assert listed_json(np.array([[1.0], [np.nan]])) == [[1.0], [None]]
    assert listed_json(np.zeros(0)) == []
