from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TWO_CLASSES = "classes: [{name: ground, value: 0}, {name: thing, value: 7}]\n"

Builder = Callable[..., Path]


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def make_folder(tmp_path: Path) -> Builder:
    """Write images/ and masks/ (value 7 in a corner) for the stems, and a classes.yaml."""

    def build(
        stems: list[str],
        classes: str | None = TWO_CLASSES,
        images: str = "images",
        masks: str = "masks",
        ending: str = ".png",
    ) -> Path:
        for place, stem in enumerate(stems):
            mask = np.zeros((4, 6), dtype=np.uint8)
            mask[0, 0] = 7
            save(tmp_path / images / f"{stem}.png", np.full((4, 6, 3), place, dtype=np.uint8))
            save(tmp_path / masks / f"{stem}{ending}", mask)
        if classes is not None:
            (tmp_path / "classes.yaml").write_text(classes, encoding="utf-8")
        return tmp_path

    return build
