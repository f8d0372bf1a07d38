"""Sliding windows as the Segmenter executes them, against MONAI on the same ONNX file and against torch."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from serving_builders import (
    PLAIN,
    MemoryDataset,
    conv_weights,
    noisy,
    random_images,
    save_logits,
    write_artifact,
)
from torch import nn

from dropclass_deploy.core.errors import ArtifactError, UserError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.sliding_window import Window
from dropclass_deploy.serving import BenchOptions, Segmenter, bench, verify
from dropclass_deploy.training import TorchSegmenter

with warnings.catch_warnings():
    # MONAI warns about its own dependencies while it is imported.
    warnings.simplefilter("ignore")
    from monai.inferers.utils import sliding_window_inference

WINDOW = Window(height=16, width=20, overlap=0.3, blending="gaussian")
SIZES = [(40, 50), (16, 61), (11, 33), (9, 12), (64, 20)]


def windowed(window: Window = WINDOW, **changes: Any) -> Preprocess:
    return PLAIN.model_copy(update={"window": window, **changes})


def torch_network(stride: int = 1) -> nn.Module:
    model = nn.Conv2d(3, 4, 3, padding=1, stride=stride)
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), conv_weights(), strict=True):
            parameter.copy_(torch.from_numpy(value))
    return model.eval()


def monai_mask(path: Path, image: np.ndarray, preprocess: Preprocess) -> tuple[np.ndarray, np.ndarray]:
    """MONAI's inferer over the logits file; and where its winner is clear."""
    session = onnxruntime.InferenceSession(path / "models/model.onnx", providers=["CPUExecutionProvider"])
    window = preprocess.window
    assert window is not None
    logits = sliding_window_inference(
        torch.from_numpy(preprocess.normalise(image)),
        window.size,
        1,
        lambda planes: torch.from_numpy(session.run(None, {"image": planes.numpy()})[0]),
        overlap=window.overlap,
        mode=window.blending,
        padding_mode=window.padding,
    )[0]
    top = logits.topk(2, dim=0).values
    # Logits below 40 in float32, summed a few times.
    return logits.argmax(0).numpy(), (top[0] - top[1] > 1e-4).numpy()


@pytest.mark.parametrize("blending", ["constant", "gaussian"])
@pytest.mark.parametrize("size", SIZES)
def test_mask_is_monais(tmp_path: Path, size: tuple[int, int], blending: Any) -> None:
    preprocess = windowed(WINDOW.model_copy(update={"blending": blending}))
    image = random_images(1, size)[0]
    folder = write_artifact(tmp_path / "a", preprocess=preprocess)
    expected, clear = monai_mask(folder, image, preprocess)
    with Segmenter.load(folder) as segmenter:
        result = segmenter(image)
    assert clear.mean() > 0.98
    assert (result.mask.shape, result.mask.dtype) == (size, np.uint8)
    np.testing.assert_array_equal(result.mask[clear], expected[clear])
    assert list(result.latency_ms) == ["preprocess", "infer", "mask"]
    assert all(value > 0 for value in result.latency_ms.values())


@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_static_networks_and_coarse_logits_agree_with_torch(tmp_path: Path, batch: int | None, stride: int) -> None:
    preprocess = windowed()
    shape = (batch, 16, 20)

    def coarse(folder: Path) -> None:
        save_logits(folder / "models/model.onnx", conv_weights(), shape=shape, stride=stride)

    reference = TorchSegmenter(torch_network(stride), preprocess)
    with Segmenter.load(write_artifact(tmp_path / "a", preprocess=preprocess, shape=shape, edit=coarse)) as segmenter:
        for size in SIZES:
            image = random_images(1, size)[0]
            differing = np.count_nonzero(segmenter(image).mask != reference(image))
            # The two libraries round sums of 27 products in another order; ties are rare.
            assert differing <= 1e-3 * size[0] * size[1]


def test_size_comes_before_windows(tmp_path: Path) -> None:
    preprocess = windowed(size=(32, 40))
    image = random_images(1, (70, 90))[0]
    with Segmenter.load(write_artifact(tmp_path / "a", preprocess=preprocess)) as segmenter:
        assert segmenter(image).mask.shape == (70, 90)
        small = segmenter(image, size=(32, 40)).mask
    with Segmenter.load(write_artifact(tmp_path / "b", preprocess=windowed())) as segmenter:
        from dropclass_deploy.data.images import resize_image

        np.testing.assert_array_equal(small, segmenter(resize_image(image, (32, 40))).mask)


def test_an_image_of_one_window_runs_the_mask_file(tmp_path: Path) -> None:
    image = random_images(1, WINDOW.size)[0]
    with Segmenter.load(write_artifact(tmp_path / "a", preprocess=windowed())) as segmenter:
        np.testing.assert_array_equal(segmenter(image).mask, segmenter.network_mask(image))


def test_windows_differ_from_the_whole_image(tmp_path: Path) -> None:
    # A network whose border is zero-padded sees other borders in windows: the option does something.
    image = random_images(1, (48, 60))[0]
    constant = Window(height=8, width=8, overlap=0.0)
    masks = []
    for name, preprocess in (("a", PLAIN), ("b", windowed(constant))):
        with Segmenter.load(write_artifact(tmp_path / name, preprocess=preprocess)) as segmenter:
            masks.append(segmenter(image).mask)
    assert np.count_nonzero(masks[0] != masks[1]) > 20


def test_a_static_network_of_another_size_is_refused_at_once(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "a", preprocess=windowed(), shape=(1, 16, 24))
    with pytest.raises(ArtifactError, match="images of 16x24 and the preprocessing has windows of 16x20"):
        Segmenter.load(folder)


def test_a_logits_file_of_another_size_is_refused_at_once(tmp_path: Path) -> None:
    def other(folder: Path) -> None:
        save_logits(folder / "models/model.onnx", conv_weights(), shape=(1, 32, 32))

    with pytest.raises(ArtifactError, match=r"model\.onnx takes images of 32x32 .* windows of 16x20"):
        Segmenter.load(write_artifact(tmp_path / "a", preprocess=windowed(), edit=other))


def test_raw_values_are_windowed_in_both_senses(tmp_path: Path) -> None:
    preprocess = windowed(value_range=(0.0, 4095.0))
    raw = np.random.default_rng(3).integers(0, 4096, (40, 50), dtype=np.uint16)
    with Segmenter.load(write_artifact(tmp_path / "a", preprocess=preprocess)) as segmenter:
        grey = np.rint(raw / 4095 * 255).astype(np.uint8)
        np.testing.assert_array_equal(segmenter(raw).mask, segmenter(np.repeat(grey[..., None], 3, axis=2)).mask)


@pytest.fixture(scope="module")
def proved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MemoryDataset]:
    """An artifact with a window and the masks of torch in windows as its reference."""
    preprocess = windowed()
    images = random_images(12, (40, 50))
    reference = TorchSegmenter(torch_network(), preprocess)
    masks = [reference(image) for image in images]
    data = MemoryDataset(images, noisy(masks))
    folder = tmp_path_factory.mktemp("windowed") / "a"
    return write_artifact(folder, preprocess=preprocess, shape=(1, 16, 20), references=(data, masks)), data


def test_verify_compares_windows_with_windows(proved: tuple[Path, MemoryDataset]) -> None:
    folder, data = proved
    report = verify(folder, data=data)
    assert report.verdict == "pass", report.reasons
    assert report.to_json()["sample_check"]["verdict"] == "pass"


def test_verify_finds_another_window(tmp_path: Path, proved: tuple[Path, MemoryDataset]) -> None:
    _, data = proved
    other = windowed(Window(height=8, width=8, overlap=0.0))
    reference = TorchSegmenter(torch_network(), windowed())
    folder = write_artifact(
        tmp_path / "a", preprocess=other, references=(data, [reference(image) for image in data.images])
    )
    assert verify(folder, data=data).verdict == "fail"


def test_bench_times_one_window_and_the_whole_image(proved: tuple[Path, MemoryDataset], tmp_path: Path) -> None:
    from dropclass_deploy.data.images import encode_png

    report = bench(
        proved[0],
        encoded=encode_png(proved[1].images[0]),
        output=tmp_path / "bench.json",
        options=BenchOptions(queries=3, warmup=1),
    )
    sizes = {item.scope: item.resolution for item in report.results}
    assert sizes == {"model": (16, 20), "transfer": (16, 20), "end_to_end": (40, 50)}


def test_a_network_that_refuses_the_window_says_its_size(tmp_path: Path) -> None:
    image = random_images(1, (40, 50))[0]
    folder = write_artifact(tmp_path / "a", preprocess=windowed())
    with Segmenter.load(folder) as segmenter:
        segmenter(image)
        assert segmenter._logits is not None
        segmenter._logits.runtime.close()  # the nearest to a network that refuses its own windows
        with pytest.raises(UserError, match="cannot take an image of 20×16 pixels"):
            segmenter(image)
