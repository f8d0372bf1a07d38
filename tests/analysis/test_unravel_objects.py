"""Objects to unravel: against SciPy what hangs together, by hand which are chosen."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from attribution_cases import (
    Pictures,
    ReadsColours,
    confusions_of,
    street,
    subject_of,
)
from scipy import ndimage
from torch import nn

from dropclass_deploy.analysis.unravel import connected_objects, find_objects
from dropclass_deploy.training import TorchSegmenter


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.8])
def test_connected_objects_are_scipys(share: float) -> None:
    generator = np.random.default_rng(int(100 * share))
    for shape in ((17, 23), (1, 9), (9, 1)):
        flags = generator.random(shape) < share
        expected = ndimage.label(flags, structure=np.ones((3, 3)))[0]
        found = connected_objects(flags)
        assert found.max() == expected.max()
        pairs = {(int(one), int(other)) for one, other in zip(found.flat, expected.flat, strict=True)}
        assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})
        assert not found[~flags].any()


def test_nothing_is_no_object() -> None:
    assert not connected_objects(np.zeros((3, 4), dtype=np.bool_)).any()


def test_objects_that_the_baseline_finds() -> None:
    data = street()
    subject = subject_of(ReadsColours(), data.classes)
    counts = confusions_of([subject], data)[0]

    def found(min_pixels: int, min_recall: float) -> list[tuple[int, int]]:
        objects = find_objects(
            subject, data, [0, 1], counts, limit=5, per_class=2, min_pixels=min_pixels, min_recall=min_recall
        )
        return [(one.index, int(one.region.sum())) for one in objects]

    assert found(4, 0.5) == [(1, 20)], "one of an image, the largest that is found"
    assert found(4, 0.9) == [(1, 4)]
    assert found(5, 0.9) == []


def test_each_class_comes_before_any_second_object() -> None:
    masks = [np.array([[0, 0, 1, 1], [0, 0, 1, 1]], dtype=np.uint8)] * 2
    images = [np.stack([255 * mask] * 3, axis=-1) for mask in masks]
    data = Pictures(images, masks, ["other", "red"])
    subject = subject_of(ReadsColours(), data.classes)
    counts = confusions_of([subject], data)[0]
    objects = find_objects(subject, data, [0, 1], counts, limit=3, per_class=2, min_pixels=1, min_recall=0.5)
    assert [(one.class_id, one.index) for one in objects] == [(0, 0), (1, 0), (0, 1)]


class Red(ReadsColours):
    """Three classes: 0 where red is below a half, else 1 where green is, else 2; as the truth of ``stripes`` says."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.body = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
        self.head = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.body[0].weight.copy_(torch.tensor([[-1.0, 0, 0], [1, -1, 0], [1, 1, 0]])[..., None, None])
            self.body[0].bias.copy_(torch.tensor([0.5, -0.5, -1.2]))
            self.head.weight.copy_(torch.eye(3)[..., None, None])
            self.head.bias.zero_()

    def forward(self, images):
        self.asked += 1
        return super().forward(images)


def stripes(count: int, rare=(0, 1, 2)) -> Pictures:
    """8×8 images: five rows of class 0, two of class 1, one of class 2, all as the network ``Red`` sees them."""
    truth = np.repeat(np.array([0, 0, 0, 0, 0, 1, 1, 2], dtype=np.uint8), 8).reshape(8, 8)
    image = np.stack([255 * (truth > 0), 255 * (truth > 1), 0 * truth], axis=-1).astype(np.uint8)
    return Pictures([image] * count, [truth] * count, ["most", "some", "few"], rare)


@pytest.mark.parametrize(
    ("rare", "counted", "expected"),
    [
        ((0, 1, 2), None, [2, 1]),
        ((), None, [2, 1]),
        ((0, 1), None, [1, 0]),
        ((0, 1, 2), [5, 7, 9], [0, 1]),  # the training pixels decide where they are known
        ((0, 1, 2), [5, 5, 1], [2, 0]),
    ],
)
def test_the_rarest_classes_come_first(rare, counted, expected) -> None:
    data = stripes(2, rare)
    subject = subject_of(Red(), data.classes, class_pixels=counted)
    counts = confusions_of([subject], data)[0]
    assert (counts == np.diag([40, 16, 8])).all()
    objects = find_objects(subject, data, [0, 1], counts, limit=2, per_class=2, min_pixels=1, min_recall=0.5)
    assert [one.class_id for one in objects] == expected


def test_no_image_is_predicted_once_there_are_enough_objects() -> None:
    data = stripes(12)
    subject = subject_of(Red(), data.classes)
    counts = confusions_of([subject], data)[0]
    # Each class has most pixels in images of its own, so that none is predicted for two.
    for class_id in range(3):
        counts[4 * class_id : 4 * class_id + 4, class_id, class_id] += 100

    def asked(limit: int, per_class: int) -> list[tuple[int, int]]:
        subject.model.asked = 0
        objects = find_objects(
            subject, data, range(12), counts, limit=limit, per_class=per_class, min_pixels=1, min_recall=0.5
        )
        assert subject.model.asked == len(objects)
        return [(one.class_id, one.index) for one in objects]

    assert asked(1, 2) == [(2, 8)]
    assert asked(4, 2) == [(2, 8), (1, 4), (0, 0), (2, 9)]
    assert asked(99, 1) == [(2, 8), (1, 4), (0, 0)]
    assert asked(0, 2) == []


def test_few_masks_are_kept(monkeypatch) -> None:
    """Nothing is found in any image: of all those predicted, only some are held at once."""
    data = stripes(12)
    subject = subject_of(Red(), data.classes)
    counts = confusions_of([subject], data)[0]
    masks: weakref.WeakSet = weakref.WeakSet()
    most = 0

    class Mask(np.ndarray):
        """An array that can be counted."""

        __hash__ = object.__hash__

    def segment(image):
        nonlocal most
        mask = np.full(image.shape[:2], 3, dtype=np.uint8).view(Mask)
        masks.add(mask)
        most = max(most, len(masks))
        return mask

    monkeypatch.setattr("dropclass_deploy.analysis.unravel.objects.MASKS_KEPT", 2)
    monkeypatch.setattr(TorchSegmenter, "__call__", lambda _, image: segment(image))
    assert not find_objects(subject, data, range(12), counts, limit=9, per_class=6, min_pixels=1, min_recall=0.5)
    assert most <= 3
