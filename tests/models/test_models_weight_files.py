"""Weight files that are broken, foreign or hostile."""

import io
import pickle
import random
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.models import build_model
from dropclass_deploy.models.weights import (
    Weights,
    read_checkpoint,
)


class Bomb:
    """Unpickled, it would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.write_text, (self.target, "boom"))


@pytest.mark.parametrize("zipped", [True, False, None], ids=["zip", "legacy", "bare pickle"])
def test_a_pickle_bomb_is_refused_and_never_goes_off(tmp_path: Path, zipped: bool | None):
    target, path = tmp_path / "boom.txt", tmp_path / "weights.pth"
    content = {"weight": torch.zeros(2), "bomb": Bomb(target)}
    if zipped is None:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=r"weights.pth cannot be read as weights: .*; expected a state dict") as caught:
        build_model("lite0", num_classes=3, weights=str(path))
    assert "\n" not in str(caught.value)
    assert not target.exists()
    if zipped is False:
        with path.open("rb") as file:  # the bomb is a live one: an unguarded load does set it off
            torch.load(file, weights_only=False)
        assert target.read_text() == "boom"


HUGE_HEADER = struct.pack("<Q", 2**62) + b"{}"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("w.pth", b""),
        ("w.pth", b"this is a text file, not weights\n"),
        ("w.pth", b"\x80\x02."),
        ("w.pth", b"\x80\x02)\x81."),
        ("w.pth", b"PK\x03\x04 truncated"),
        ("w.bin", b"\xff" * 300),
        ("w.safetensors", b""),
        ("w.safetensors", b"{}"),
        ("w.safetensors", HUGE_HEADER),
        ("w.safetensors", struct.pack("<Q", 2) + b"[]"),
        ("w.safetensors", struct.pack("<Q", 70) + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'.ljust(70)),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value[:12]),
)
def test_a_broken_file_is_one_clear_error(tmp_path: Path, name: str, content: bytes):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name} (cannot be read as weights|holds)") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_zip_that_is_no_checkpoint(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(ModelError, match="cannot be read as weights"):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_damaged_checkpoint_never_ends_in_another_error(tmp_path: Path, legacy: bool):
    file, path, rng = io.BytesIO(), tmp_path / "w.pth", random.Random(0)
    torch.save({"a": torch.ones(3), "b": torch.zeros(2, 2)}, file, _use_new_zipfile_serialization=not legacy)
    refused = 0
    for _ in range(150):
        damaged = bytearray(file.getvalue())
        for _ in range(rng.randint(1, 6)):
            damaged[rng.randrange(min(len(damaged), 600))] = rng.randrange(256)
        path.write_bytes(damaged if rng.random() < 0.7 else damaged[: rng.randrange(len(damaged))])
        try:
            read_checkpoint(path)
        except ModelError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    "content",
    [[torch.zeros(2)], torch.zeros(2), {"a": 3}, {1: torch.zeros(2)}, {"state_dict": {"a": "b"}}, None],
    ids=["list", "tensor", "number inside", "number as key", "text inside", "nothing"],
)
def test_a_file_that_holds_something_else_than_a_state_dict(tmp_path: Path, content: object):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"w.pth holds \w+; expected a state dict of tensors"):
        read_checkpoint(tmp_path / "w.pth")


def test_a_folder_is_not_a_weight_file(tmp_path: Path):
    with pytest.raises(ModelError, match="there is no weight file"):
        Weights().read(str(tmp_path))
