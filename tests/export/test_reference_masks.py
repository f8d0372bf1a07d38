import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.images import read_mask, resize_image
from dropclass_deploy.export.reference import TorchReference, write_references


def test_fixed_size_comes_back_at_the_source_size_by_logits(networks) -> None:
    preprocess, model = Preprocess(size=(16, 20)), networks.Tiny().eval()
    image = networks.Frames().image(2)  # 21×27
    pixels = preprocess.normalise(resize_image(image, (16, 20)))
    with torch.inference_mode():
        logits = F.interpolate(model(torch.from_numpy(pixels)), size=(21, 27), mode="bilinear", align_corners=False)
    np.testing.assert_array_equal(TorchReference(networks.Tiny(), preprocess)(image), logits[0].argmax(0).numpy())


def test_low_resolution_logits_go_through_the_input_size(networks, preprocess: Preprocess) -> None:
    model, image = networks.LowResolution("attribute").eval(), networks.Frames().image(2)
    with torch.inference_mode():
        small = model(torch.from_numpy(preprocess.normalise(image))).logits
        want = F.interpolate(small, size=(21, 27), mode="bilinear", align_corners=False)[0].argmax(0)
    got = TorchReference(networks.LowResolution("attribute"), preprocess)(image)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, want.numpy())


def test_equal_images_are_stored_once(networks, preprocess: Preprocess, tmp_path: Path) -> None:
    frames = networks.Frames()
    frames._images[1], frames._masks[1] = frames._images[0], frames._masks[0]
    seen: list[tuple[int, int]] = []
    reference = TorchReference(networks.Tiny(), preprocess)
    count = write_references(tmp_path, frames, reference, lambda done, total, status="": seen.append((done, total)))
    assert count == 3
    assert seen == [(1, 3), (2, 3), (3, 3)]
    index = json.loads((tmp_path / "reference/index.json").read_text())
    assert len(index["masks"]) == 2
    for digest, entry in index["masks"].items():
        assert entry["file"] == f"reference/{digest[:24]}.png"
    np.testing.assert_array_equal(read_mask(tmp_path / entry["file"]), reference(frames.image(2)))


def test_empty_data_are_refused(networks, preprocess: Preprocess, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'val' of memory: holds no image"):
        write_references(tmp_path, networks.Frames(sizes=()), TorchReference(networks.Tiny(), preprocess))
