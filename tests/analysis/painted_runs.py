"""Runs whose predictions are painted into the images: each reads its own colour channel as class ids."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from torch import Tensor, nn

import dropclass_deploy.analysis
from dropclass_deploy.analysis.report import formats
from dropclass_deploy.analysis.subject import Section, Seen, Subject
from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.training import TorchSegmenter

TEMPLATES = Path(dropclass_deploy.analysis.__file__).parent / "bias_card" / "templates"


def class_table(count: int, rare: Sequence[int] = ()) -> ClassTable:
    return ClassTable(names=tuple(f"class{index}" for index in range(count)), rare=tuple(rare))


class PaintedSplit(Dataset):
    """Truths, and up to three runs' predictions of them as the images' channels."""

    def __init__(
        self, truths: Sequence[npt.ArrayLike], predictions: Sequence[Sequence[npt.ArrayLike]], classes: ClassTable
    ) -> None:
        self.spec, self.split, self.classes = "painted:", "val", classes
        self._truths = [np.array(truth, dtype=np.uint8) for truth in truths]
        self._images = []
        for place, truth in enumerate(self._truths):
            image = np.zeros((*truth.shape, 3), dtype=np.uint8)
            for channel, masks in enumerate(predictions):
                image[..., channel] = masks[place]
            self._images.append(image)

    def __len__(self) -> int:
        return len(self._truths)

    def key(self, index: int) -> str:
        return f"image{index}"

    def image(self, index: int) -> npt.NDArray[np.uint8]:
        return self._images[index]

    def mask(self, index: int) -> npt.NDArray[np.uint8]:
        return self._truths[index]


class Painted(nn.Module):
    """Logits that are largest at the id that one channel holds."""

    def __init__(self, channel: int, classes: int) -> None:
        super().__init__()
        self.channel, self.classes = channel, classes

    def forward(self, images: Tensor) -> Tensor:
        ids = 255 * images[:, self.channel : self.channel + 1]
        return -((ids - torch.arange(self.classes).view(1, -1, 1, 1)) ** 2)


def painted_subject(name: str, channel: int, classes: ClassTable, **preprocess: Any) -> Subject:
    plain = Preprocess(mean=(0, 0, 0), std=(1, 1, 1), **preprocess)
    segment = TorchSegmenter(Painted(channel, len(classes)).eval(), plain)
    return Subject(name, segment, classes, cast(Any, None), None, "painted")


def seen_of(truth: npt.ArrayLike, logits: Tensor) -> Seen:
    """What an observer is shown for these logits (C, H, W)."""
    labels = np.array(truth, dtype=np.uint8)
    image = np.zeros((*labels.shape, 3), dtype=np.uint8)
    return Seen(0, image, labels, logits, logits.argmax(dim=0).to(torch.uint8).numpy())


def one_hot_logits(mask: npt.ArrayLike, count: int) -> Tensor:
    return nn.functional.one_hot(torch.as_tensor(np.array(mask, dtype=np.int64)), count).permute(2, 0, 1).float()


def through_json(content: dict[str, Any]) -> dict[str, Any]:
    """As it is read again; NaN is refused, since no other reader of JSON takes it."""
    read: dict[str, Any] = json.loads(json.dumps(content, allow_nan=False))
    return read


def picture_of(data: bytes) -> npt.NDArray[np.uint8]:
    """The pixels of a PNG, RGB."""
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        return np.array(image.convert("RGB"))


def rendered(name: str, section: Section, classes: ClassTable, runs: Sequence[str]) -> str:
    """A part's template with its content; every picture that it asks for must be there, each with words."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for word in ("percent", "points", "count"):
        environment.filters[word] = getattr(formats, word)
    asked = set()

    def picture(path: str, alt: str) -> str:
        assert alt
        asked.add(path)
        return f"[{path}]"

    card = {
        "classes": [
            {"name": one, "colour": [0, 0, 0], "rare": classes.is_rare(index), "pixels": None}
            for index, one in enumerate(classes.names)
        ],
        "runs": [{"name": run, "method": "ce"} for run in runs],
    }
    template = environment.get_template(f"{name}.html.j2")
    page = template.render(section=through_json(section.content), card=card, picture=picture)
    assert asked == set(section.pictures)
    return page
