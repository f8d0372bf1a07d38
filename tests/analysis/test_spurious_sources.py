"""Sources of small images: scikit-learn's digits, and folders in the IDX format, whole and damaged."""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from torchvision.datasets import MNIST

from dropclass_deploy.analysis.spurious.idx import read_idx
from dropclass_deploy.analysis.spurious.sources import Source, open_source
from dropclass_deploy.core.errors import DataError, MissingExtraError


def idx(array: npt.NDArray[np.uint8]) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder: Path, sign: str = "-", *, packed: bool = False) -> dict[str, npt.NDArray[np.uint8]]:
    """Twenty images of 5×4 pixels a split; returns the arrays by the files' names."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "t10k"):
        arrays[f"{split}-images{sign}idx3-ubyte"] = generator.integers(0, 256, (20, 5, 4)).astype(np.uint8)
        arrays[f"{split}-labels{sign}idx1-ubyte"] = np.arange(20, dtype=np.uint8) % 10
    for name, array in arrays.items():
        content = idx(array)
        (folder / (f"{name}.gz" if packed else name)).write_bytes(
            gzip.compress(content, mtime=0) if packed else content
        )
    return arrays


def test_digits_need_no_download() -> None:
    digits = open_source("digits:")
    assert digits.train.size == (8, 8)
    assert digits.train.num_classes == digits.test.num_classes == 10
    assert len(digits.train.labels) + len(digits.test.labels) == 1797
    assert (digits.train.images.dtype, digits.train.images.max()) == (np.uint8, 255)
    shared = {image.tobytes() for image in digits.train.images} & {image.tobytes() for image in digits.test.images}
    assert shared == set()


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"'scikit-learn' is not installed; .*dropclass-deploy\[probe\]"):
        open_source("digits:")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("sign", ["-", "."])
def test_a_folder_under_each_of_its_names(tmp_path: Path, sign: str, packed: bool) -> None:
    arrays = write_mnist(tmp_path, sign, packed=packed)
    splits = open_source(f"mnist:{tmp_path}")
    np.testing.assert_array_equal(splits.train.images, arrays[f"train-images{sign}idx3-ubyte"])
    np.testing.assert_array_equal(splits.test.labels, arrays[f"t10k-labels{sign}idx1-ubyte"])


def test_the_same_images_as_torchvision_reads(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST" / "raw")
    oracle = MNIST(str(tmp_path), train=True)
    ours = open_source(f"mnist:{tmp_path / 'MNIST' / 'raw'}").train
    np.testing.assert_array_equal(ours.images, oracle.data.numpy())
    np.testing.assert_array_equal(ours.labels, oracle.targets.numpy())


@pytest.mark.parametrize("spec", ["digits", "digits:here", "mnist:", "mnist", "cifar:here", ""])
def test_another_source_is_refused(spec: str) -> None:
    with pytest.raises(DataError, match=r"names no source of images; expected digits: or mnist:PATH"):
        open_source(spec)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="has no t10k-labels-idx1-ubyte"):
        open_source(f"mnist:{tmp_path}")


def test_more_images_than_labels(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(10, dtype=np.uint8)))
    with pytest.raises(DataError, match="20 images and 10 labels"):
        open_source(f"mnist:{tmp_path}")


WHOLE = idx(np.arange(12, dtype=np.uint8).reshape(3, 2, 2))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a", b"", r"begins with the bytes \(none\)"),
        ("a", WHOLE[:10], "begins with the bytes 00 00 08 03"),
        ("a", WHOLE[:-1], "announces 3 × 2 × 2 values and holds 11; expected a whole file"),
        ("a", WHOLE + b"\0", "announces 3 × 2 × 2 values and holds 13"),
        ("a", b"\0\0\x0d" + WHOLE[3:], "begins with the bytes 00 00 0d 03"),
        ("a", idx(np.arange(3, dtype=np.uint8)) + bytes(16), "begins with the bytes 00 00 08 01"),
        ("a", struct.pack(">BBBB3I", 0, 0, 8, 3, *[2**32 - 1] * 3), "announces 4294967295"),
        ("a.gz", WHOLE, "cannot be read"),
        ("a.gz", gzip.compress(WHOLE, mtime=0)[:-12], "cannot be read"),
        ("a.gz", gzip.compress(WHOLE, mtime=0)[:10] + b"\xff" * 20, "cannot be read"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / name, axes=3)


def test_a_file_that_is_a_link_or_missing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(WHOLE)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(DataError, match="is a link"):
        read_idx(tmp_path / "link", axes=3)
    with pytest.raises(DataError, match="No such file"):
        read_idx(tmp_path / "nowhere", axes=3)


def test_a_small_file_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropclass_deploy.analysis.spurious.idx._LIMIT", 2**20)
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(2**20 + 1), mtime=0))
    with pytest.raises(DataError, match="holds more than 1 MiB"):
        read_idx(tmp_path / "a.gz", axes=3)


def test_a_source_lacks_no_class() -> None:
    with pytest.raises(DataError, match=r"no image of the classes \[1\]"):
        Source(np.zeros((2, 3, 3), np.uint8), np.array([0, 2]))
    with pytest.raises(DataError, match=r"images of shape \(2, 3, 3\) and labels of shape \(3,\)"):
        Source(np.zeros((2, 3, 3), np.uint8), np.array([0, 1, 2]))
