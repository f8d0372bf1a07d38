from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data.label_map import LabelMap

PATH = Path("masks/a.png")


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.int64])
def test_raw_values_become_ids_whatever_their_type(kind: type) -> None:
    raw = np.array([[0, 128], [255, 200]]).astype(kind)
    ids = LabelMap({0: 0, 128: 1, 255: 2}, ignored=(200,)).apply(raw, PATH)
    assert ids.dtype == np.uint8
    assert ids.tolist() == [[0, 1], [2, 255]]


def test_every_16_bit_value_can_be_mapped() -> None:
    raw = np.array([65535, 40000], dtype=np.uint16)
    assert LabelMap({65535: 3, 40000: 4}).apply(raw, PATH).tolist() == [3, 4]


def test_a_mask_full_of_200s_is_refused_with_counts_and_remedy() -> None:
    labels = LabelMap({0: 0, 1: 1, 2: 2, 7: 3}, remedy="add it to classes.yaml")
    message = r"a\.png holds .*: 200 \(12 pixels\), of 12 pixels; .*raw values 0–2, 7; add it to classes\.yaml"
    with pytest.raises(DataError, match=message):
        labels.apply(np.full((3, 4), 200, dtype=np.uint8), PATH)


def test_most_frequent_unknown_values_come_first_and_the_rest_is_counted() -> None:
    raw = np.repeat(np.arange(1, 8), np.arange(1, 8)).astype(np.uint8)
    with pytest.raises(DataError, match=r"class: 7 \(7 pixels\), 6 \(6 pixels\).* and 3 values more"):
        LabelMap({0: 0}).apply(raw, PATH)


@pytest.mark.parametrize("value", [-1, -2, 65536, 2**31 - 1])
def test_values_beyond_16_bits_are_unknown(value: int) -> None:
    with pytest.raises(DataError, match=rf"no class: {value} \(1 pixels\)"):
        LabelMap({0: 0, 65535: 1}).apply(np.array([value], dtype=np.int32), PATH)
