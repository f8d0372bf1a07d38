"""What stands where a class was."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from audit_cases import ListedData, random_pairs

from dropclass_deploy.analysis.co_location import FILLS, Eraser, plan_audit
from dropclass_deploy.core.errors import MissingExtraError, UserError

IMAGE = np.random.default_rng(1).integers(0, 256, (12, 10, 3), dtype=np.uint8)
ERASED = np.zeros((12, 10), dtype=np.bool_)
ERASED[3:8, 2:7] = True


@pytest.mark.parametrize("fill", FILLS)
def test_other_pixels_stay_and_the_image_is_a_copy(fill: str) -> None:
    image = IMAGE.copy()
    result = Eraser(fill, (1, 2, 3))(image, ERASED, 0, 1)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result[~ERASED], IMAGE[~ERASED])
    np.testing.assert_array_equal(image, IMAGE)
    assert (result[ERASED] != IMAGE[ERASED]).mean() > 0.9


@pytest.mark.parametrize("fill", FILLS)
def test_a_class_that_covers_the_whole_image_goes_too(fill: str) -> None:
    result = Eraser(fill, (1, 2, 3))(IMAGE, np.ones_like(ERASED), 0, 1)
    assert (result != IMAGE).mean() > 0.9


def test_the_means() -> None:
    assert (Eraser("dataset_mean", (9, 8, 7))(IMAGE, ERASED, 0, 0)[ERASED] == (9, 8, 7)).all()
    own = [round(sum(int(value) for value in IMAGE[..., channel].flat) / 120) for channel in range(3)]
    assert (Eraser("image_mean")(IMAGE, ERASED, 0, 0)[ERASED] == own).all()


def test_the_mean_of_a_data_set_weighs_pixels_alike() -> None:
    small, large = np.full((1, 1, 3), 250, dtype=np.uint8), np.full((3, 3, 3), 50, dtype=np.uint8)
    masks = np.zeros((1, 1), dtype=np.uint8), np.zeros((3, 3), dtype=np.uint8)
    data = ListedData([(small, masks[0]), (large, masks[1])], ("one", "two"))
    assert plan_audit(data, range(2)).eraser.mean == (70, 70, 70)


def test_noise_is_seeded_by_image_and_class() -> None:
    def noise(seed: int, index: int, erased_class: int) -> bytes:
        return Eraser("noise", seed=seed)(IMAGE, ERASED, index, erased_class)[ERASED].tobytes()

    assert noise(0, 4, 1) == noise(0, 4, 1)
    assert len({noise(0, 4, 1), noise(1, 4, 1), noise(0, 5, 1), noise(0, 4, 2), noise(0, 1, 4)}) == 5


def test_inpainting_grows_from_around() -> None:
    image = np.full((12, 10, 3), (200, 100, 50), dtype=np.uint8)
    image[ERASED] = (0, 0, 255)
    grown = Eraser("inpaint")(image, ERASED, 0, 0).astype(int)
    # OpenCV extrapolates gradients in float32 and rounds: two grey levels off on a plane of one colour.
    assert np.abs(grown - (200, 100, 50)).max() <= 2


def test_an_unknown_fill() -> None:
    data = ListedData(random_pairs([(4, 4)], [(0, 1)]), ("one", "two"))
    with pytest.raises(UserError, match="no fill 'black'; expected one of dataset_mean, image_mean, noise, inpaint"):
        plan_audit(data, range(1), "black")


def test_without_opencv_only_inpainting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ListedData(random_pairs([(4, 4)], [(0, 1)]), ("one", "two"))
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert plan_audit(data, range(1), "noise").eraser.fill == "noise"
    with pytest.raises(MissingExtraError, match=r"pip install 'dropclass-deploy\[analysis\]'"):
        plan_audit(data, range(1), "inpaint")
