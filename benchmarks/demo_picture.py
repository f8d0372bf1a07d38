"""The README's picture: scenes of the demo as image, truth and prediction, from what ``make demo`` wrote.

python benchmarks/demo_picture.py demo-out docs/demo.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from dropclass_deploy.core.manifest import read_manifest
from dropclass_deploy.data.images import colour_mask, read_image, read_mask

SCENES = ("val_000", "val_001", "val_002", "unbiased_001")
GAP, SCALE = 6, 2


def column(folder: Path, name: str) -> np.ndarray:
    """Image, truth and prediction of one scene, one above the other."""
    classes = read_manifest(folder / "artifact").classes
    predictions = folder / "predictions"
    image = read_image(predictions / f"{name}.image.png")
    truth = read_image(predictions / f"{name}.truth.png")
    mask = colour_mask(read_mask(predictions / f"{name}.png").astype(np.uint8), classes)
    gap = np.full((GAP // SCALE, image.shape[1], 3), 255, np.uint8)
    return np.concatenate([image, gap, truth, gap, mask])


def main() -> None:
    """Compose and write the picture."""
    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    columns = [column(folder, name) for name in SCENES]
    gap = np.full((columns[0].shape[0], GAP // SCALE, 3), 255, np.uint8)
    parts = [part for item in columns for part in (item, gap)][:-1]
    picture = Image.fromarray(np.concatenate(parts, axis=1))
    picture.resize((picture.width * SCALE, picture.height * SCALE), Image.Resampling.NEAREST).save(
        output, optimize=True
    )


if __name__ == "__main__":
    main()
