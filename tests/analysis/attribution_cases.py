"""Small networks, images and subjects that Grad-CAM and unravelling are asked about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from torch import Tensor, nn

import dropclass_deploy.analysis
from dropclass_deploy.analysis.report.formats import count, percent, points
from dropclass_deploy.analysis.subject import Subject, sweep
from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import Pixels
from dropclass_deploy.training import TorchSegmenter
from dropclass_deploy.training.dropclass import find_classifier

PLAIN = Preprocess(mean=(0, 0, 0), std=(1, 1, 1))


class Pictures(Dataset):
    """Images and masks in memory."""

    def __init__(self, images: Sequence[Pixels], masks: Sequence[Pixels], names: Sequence[str], rare=()) -> None:
        self.spec, self.split = "memory:", "val"
        self.classes = ClassTable(names=tuple(names), rare=tuple(rare))
        self._images, self._masks = images, masks

    def __len__(self) -> int:
        return len(self._images)

    def key(self, index: int) -> str:
        return f"image {index}"

    def image(self, index: int) -> Pixels:
        return self._images[index]

    def mask(self, index: int) -> Pixels:
        return self._masks[index]


class Small(nn.Module):
    """Convolutions, then a classifier with square taps; the logits resized to the image."""

    def __init__(self, classes: int, taps: int = 1, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.head = nn.Conv2d(6, classes, taps, padding=taps // 2)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.head(self.body(images))
        return nn.functional.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)


class ReadsColours(nn.Module):
    """Two classes: 1 where red is above a half, by a 1×1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
        self.head = nn.Conv2d(2, 2, 1)
        with torch.no_grad():
            # A_0 = 1 − red, A_1 = red; the logits are the features.
            self.body[0].weight.copy_(torch.tensor([[-1.0, 0, 0], [1, 0, 0]])[..., None, None])
            self.body[0].bias.copy_(torch.tensor([1.0, 0]))
            self.head.weight.copy_(torch.eye(2)[..., None, None])
            self.head.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


class TwoHeads(nn.Module):
    """No convolution gives the logits: a sum of two does."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Conv2d(3, 4, 1)
        self.first, self.second = nn.Conv2d(4, classes, 1), nn.Conv2d(4, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images).relu()
        return self.first(features) + self.second(features)


def subject_of(
    model: nn.Module,
    classes: ClassTable,
    name: str = "ce",
    preprocess: Preprocess = PLAIN,
    class_pixels: Sequence[int] | None = None,
) -> Subject:
    """A subject without a run folder: of that, only the training pixels are read here."""
    model = model.eval()
    try:
        classifier, reason = find_classifier(model), ""
    except ModelError as error:
        classifier, reason = None, str(error).splitlines()[0]
    run = SimpleNamespace(model_json={"class_pixels": class_pixels})
    return Subject(name, TorchSegmenter(model, preprocess), classes, run, classifier, reason)  # type: ignore[arg-type]


class Exhausted(Small):
    """Runs out of memory after so many passes."""

    left = 1000

    def forward(self, images: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
        return super().forward(images)


def exhausted(classes: ClassTable, passes: int, name: str = "ce") -> Subject:
    """A subject whose network runs out of memory; finding its classifier does not count."""
    model = Exhausted(len(classes), seed=1)
    subject = subject_of(model, classes, name)
    model.left = passes
    return subject


def random_pictures(sizes: Sequence[tuple[int, int]], classes: int = 3, seed: int = 0, rare=(2,)) -> Pictures:
    generator = np.random.default_rng(seed)
    images = [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    masks = [generator.integers(0, classes, size, dtype=np.uint8) for size in sizes]
    return Pictures(images, masks, [f"class {one}" for one in range(classes)], rare)


def street() -> Pictures:
    """12×12; class 1 is what is red. A large object that is found, a small one that is too, one that is not red."""
    red = np.zeros((12, 12), dtype=np.uint8)
    red[1:5, 1:5] = red[8:10, 8:10] = 255
    truth = np.zeros((12, 12), dtype=np.uint8)
    truth[1:5, 1:6] = truth[8:10, 8:10] = truth[7:12, 0:5] = 1
    image = np.stack([red, np.zeros_like(red), np.zeros_like(red)], axis=-1)
    other = np.zeros((9, 14), dtype=np.uint8)
    return Pictures([np.zeros((9, 14, 3), np.uint8), image], [other, truth], ["other", "red"], rare=(1,))


def confusions_of(subjects: Sequence[Subject], data: Dataset) -> list[np.ndarray]:
    return [sweep(one, data, range(len(data))) for one in subjects]


def rendered(name: str, content: dict, data: Dataset, pictures, runs: Sequence[str]) -> str:
    """The section's partial, as the page includes it."""
    folder = Path(dropclass_deploy.analysis.__file__).parent / "bias_card" / "templates"
    room = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    room.filters.update(percent=percent, points=points, count=count)
    table = data.classes
    classes = [
        {"name": own, "colour": list(table.palette[one]), "rare": table.is_rare(one), "pixels": None}
        for one, own in enumerate(table.names)
    ]
    card = {"classes": classes, "runs": [{"name": one, "method": "ce"} for one in runs]}
    asked: list[str] = []

    def picture(path: str, alt: str) -> str:
        assert path in pictures
        assert alt
        asked.append(path)
        return f"[{path}]"

    page = room.get_template(f"{name}.html.j2").render(section=content, card=card, picture=picture)
    assert sorted(asked) == sorted(pictures), "every picture stands on the page, once"
    return page
