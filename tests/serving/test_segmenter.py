from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from serving_builders import (
    NAMES,
    PLAIN,
    conv_weights,
    dense_masks,
    random_images,
    save_logits,
    write_artifact,
)
from torch.nn.functional import conv2d, interpolate

from dropclass_deploy.core.errors import ArtifactError, DataError, UserError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.images import encode_png, resize_image
from dropclass_deploy.serving import Segmenter

FIXED = Preprocess(mean=PLAIN.mean, std=PLAIN.std, size=(16, 20))


def torch_mask(
    image: np.ndarray, size: tuple[int, int], preprocess: Preprocess = PLAIN
) -> tuple[np.ndarray, np.ndarray]:
    """Resize, network, logits to the source size, argmax, in torch float64; and where the winner is clear."""
    small = np.array(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    pixels = (small / 255 - np.array(preprocess.mean)) / np.array(preprocess.std)
    kernel, bias = (torch.from_numpy(value.astype(np.float64)) for value in conv_weights())
    logits = conv2d(torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()), kernel, bias, padding=1)
    logits = interpolate(logits, size=image.shape[:2], mode="bilinear", align_corners=False)[0]
    top = logits.topk(2, dim=0).values
    # Logits below 40 in float32: their error stays under 1e-4.
    return logits.argmax(0).numpy(), (top[0] - top[1] > 1e-4).numpy()


def test_own_size_runs_the_mask_file(tmp_path: Path) -> None:
    images = [*random_images(2, (24, 32)), *random_images(1, (7, 9))]
    with Segmenter.load(write_artifact(tmp_path / "a")) as segmenter:
        for image, expected in zip(images, dense_masks(images, conv_weights()), strict=True):
            result = segmenter(image)
            np.testing.assert_array_equal(result.mask, expected)
            assert (result.mask.dtype, result.class_names) == (np.uint8, NAMES)
            assert list(result.latency_ms) == ["preprocess", "infer", "mask"]
        assert segmenter._logits is None


@pytest.mark.parametrize("shape", [(None, None, None), (1, 16, 20), (3, 16, 20)])
@pytest.mark.parametrize("source", [(48, 64), (33, 41), (10, 13), (16, 20)])
def test_fixed_size_equals_torch_bilinear_and_argmax(
    tmp_path: Path, shape: tuple[int | None, ...], source: tuple[int, int]
) -> None:
    image = random_images(1, source)[0]
    expected, clear = torch_mask(image, (16, 20))
    with Segmenter.load(write_artifact(tmp_path / "a", preprocess=FIXED, shape=shape)) as segmenter:
        mask = segmenter(image).mask
    assert mask.shape == source
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(mask[clear], expected[clear])


def test_static_network_without_a_named_size_resizes_too(tmp_path: Path) -> None:
    image = random_images(1, (33, 41))[0]
    expected, clear = torch_mask(image, (16, 20))
    with Segmenter.load(write_artifact(tmp_path / "a", shape=(1, 16, 20))) as segmenter:
        np.testing.assert_array_equal(segmenter(image).mask[clear], expected[clear])


def test_mask_is_not_a_stretched_small_mask(tmp_path: Path) -> None:
    image = random_images(1, (64, 80))[0]
    with Segmenter.load(write_artifact(tmp_path / "a", preprocess=FIXED)) as segmenter:
        small = segmenter.network_mask(segmenter.network_image(image))
        stretched = small.repeat(4, axis=0).repeat(4, axis=1)
        assert np.count_nonzero(segmenter(image).mask != stretched) > 100


def test_another_mask_size_comes_from_the_logits(tmp_path: Path) -> None:
    image = random_images(1, (24, 32))[0]
    with Segmenter.load(write_artifact(tmp_path / "a")) as segmenter:
        assert segmenter(image, size=(48, 64)).mask.shape == (48, 64)


def test_encoded_bytes_are_decoded_first(tmp_path: Path) -> None:
    image = random_images(1)[0]
    with Segmenter.load(write_artifact(tmp_path / "a")) as segmenter:
        result = segmenter.segment_bytes(encode_png(image))
        np.testing.assert_array_equal(result.mask, segmenter(image).mask)
        assert list(result.latency_ms) == ["decode", "preprocess", "infer", "mask"]
        assert all(value >= 0 for value in result.latency_ms.values())


def test_bytes_that_are_no_image(tmp_path: Path) -> None:
    with Segmenter.load(write_artifact(tmp_path / "a")) as segmenter, pytest.raises(DataError, match="cannot be read"):
        segmenter.segment_bytes(b"hello")


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        [[1, 2, 3]],
        None,
    ],
)
def test_anything_but_an_image_is_refused(tmp_path: Path, image: object) -> None:
    with (
        Segmenter.load(write_artifact(tmp_path / "a")) as segmenter,
        pytest.raises(UserError, match="expected a uint8 NumPy array"),
    ):
        segmenter(image)  # type: ignore[arg-type]


def test_views_and_read_only_images_work(tmp_path: Path) -> None:
    image = random_images(1)[0]
    turned = image[::-1, ::2]
    frozen = image.copy()
    frozen.setflags(write=False)
    with Segmenter.load(write_artifact(tmp_path / "a")) as segmenter:
        np.testing.assert_array_equal(segmenter(turned).mask, segmenter(turned.copy()).mask)
        np.testing.assert_array_equal(segmenter(frozen).mask, segmenter(image).mask)


@pytest.mark.parametrize("preprocess", [PLAIN, FIXED])
def test_eight_threads_give_the_same_masks(tmp_path: Path, preprocess: Preprocess) -> None:
    images = random_images(16, (40, 48))
    with Segmenter.load(write_artifact(tmp_path / "a", preprocess=preprocess), threads=1) as segmenter:
        alone = [segmenter(image).mask for image in images]
    # A fresh one, so that the threads also race for opening the second network.
    with Segmenter.load(tmp_path / "a", threads=1) as segmenter, ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda image: segmenter(image).mask, images * 4))
    for index, mask in enumerate(together):
        np.testing.assert_array_equal(mask, alone[index % 16])


def test_tells_what_it_is(tmp_path: Path) -> None:
    with Segmenter.load(write_artifact(tmp_path / "a")) as segmenter:
        assert (segmenter.provider, segmenter.precision) == ("CPUExecutionProvider", "fp32")
        assert (segmenter.classes.names, segmenter.preprocess) == (NAMES, PLAIN)


def test_closed_segmenter_refuses(tmp_path: Path) -> None:
    segmenter = Segmenter.load(write_artifact(tmp_path / "a"))
    segmenter.close()
    with pytest.raises(UserError, match="closed"):
        segmenter(random_images(1)[0])


def test_static_input_against_preprocessing(tmp_path: Path) -> None:
    write_artifact(tmp_path / "a", preprocess=FIXED, shape=(1, 16, 24))
    with pytest.raises(ArtifactError, match="16x24 and the preprocessing makes 16x20"):
        Segmenter.load(tmp_path / "a")


def test_foreign_mask_network_is_refused(tmp_path: Path) -> None:
    def swap(folder: Path) -> None:
        save_logits(folder / "models/model.mask.onnx", conv_weights())

    with pytest.raises(
        ArtifactError, match=r"has logits float32.*expected one mask of uint8, int32, int64 \(N, H, W\)"
    ):
        Segmenter.load(write_artifact(tmp_path / "a", edit=swap))


def test_number_of_logits_against_the_class_table(tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "a", preprocess=FIXED, logits_weights=conv_weights(classes=6))
    with Segmenter.load(artifact) as segmenter, pytest.raises(ArtifactError, match=r"6 logits a pixel.*expected 4"):
        segmenter(random_images(1)[0])


def test_unknown_runtime(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no runtime 'tensorflow'"):
        Segmenter.load(write_artifact(tmp_path / "a"), runtime="tensorflow")


def test_jpeg_bytes_and_resize_match_the_library(tmp_path: Path) -> None:
    stream = BytesIO()
    Image.fromarray(random_images(1, (30, 40))[0]).save(stream, "JPEG")
    with Segmenter.load(write_artifact(tmp_path / "a", preprocess=FIXED)) as segmenter:
        decoded = np.array(Image.open(BytesIO(stream.getvalue())).convert("RGB"))
        np.testing.assert_array_equal(segmenter.network_image(decoded), resize_image(decoded, (16, 20)))
        np.testing.assert_array_equal(segmenter.segment_bytes(stream.getvalue()).mask, segmenter(decoded).mask)


def test_two_networks_of_one_artifact_agree(tmp_path: Path) -> None:
    image = random_images(1, (24, 32))[0]
    with Segmenter.load(write_artifact(tmp_path / "a")) as segmenter:
        np.testing.assert_array_equal(segmenter.network_logits(image).argmax(0), segmenter.network_mask(image))
