"""Attacks on an artifact folder: each changes a whole, real one; ``forged`` ones also recompute its hashes."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper as h
from serving_builders import conv_weights, save_logits, save_mask

from dropclass_deploy.core.manifest import MANIFEST, hash_files

OPEN, LOAD, VERIFY = "open", "load", "verify"
"""The first step that must refuse: reading the folder, opening its mask network, or comparing."""

MASK, LOGITS = "models/model.mask.onnx", "models/model.onnx"
GIB = 2**30


@dataclass(frozen=True)
class Attack:
    """One way to spoil an artifact, and the words with which it is refused."""

    name: str
    stage: str
    change: Callable[[Path], Any]
    match: str


def manifest_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / MANIFEST).read_text())


def rewrite(folder: Path, **changes: Any) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest_of(folder) | changes))


def forge(folder: Path) -> None:
    """Recompute the hashes, as an attacker would."""
    rewrite(folder, files=hash_files(folder))


def forged(change: Callable[[Path], Any]) -> Callable[[Path], None]:
    def both(folder: Path) -> None:
        change(folder)
        forge(folder)

    return both


def listed(name: str) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, files={**manifest_of(folder)["files"], name: "0" * 64})


def written(name: str, content: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(content)


def sparse(name: str, size: int = GIB) -> Callable[[Path], None]:
    """A file of so many zero bytes that take no place on the disk."""

    def change(folder: Path) -> None:
        with (folder / name).open("wb") as stream:
            stream.truncate(size)

    return change


def replaced(name: str, make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


def cut(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return change


def flipped(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(bytes(content))

    return change


def manifest_text(change: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda folder: (folder / MANIFEST).write_text(change((folder / MANIFEST).read_text()))


def with_provenance(value: str) -> Callable[[Path], None]:
    return manifest_text(lambda text: text.replace('"provenance": {}', f'"provenance": {{"x": {value}}}'))


def graph(name: str, change: Callable[[onnx.ModelProto], Any]) -> Callable[[Path], None]:
    """The network changed as a protobuf, without any check, and the hashes forged."""

    def both(folder: Path) -> None:
        model = onnx.ModelProto.FromString((folder / name).read_bytes())
        change(model)
        (folder / name).write_bytes(model.SerializeToString())

    return forged(both)


def elsewhere(tensor: Any, location: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def weights_at(location: str) -> Callable[[onnx.ModelProto], None]:
    return lambda model: elsewhere(model.graph.initializer[0], location)


def constant_at(model: onnx.ModelProto) -> None:
    tensor = onnx.numpy_helper.from_array(np.zeros(4, np.float32), "hidden")
    elsewhere(tensor, "/etc/passwd")
    model.graph.node.append(h.make_node("Constant", [], ["hidden"], value=tensor))


def branch_at(model: onnx.ModelProto) -> None:
    tensor = onnx.numpy_helper.from_array(np.zeros(4, np.float32), "hidden")
    elsewhere(tensor, "../../secret")
    inner = h.make_graph([], "inner", [], [], [tensor])
    model.graph.node.append(h.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner))


def function_at(model: onnx.ModelProto) -> None:
    tensor = onnx.numpy_helper.from_array(np.zeros(4, np.float32), "hidden")
    elsewhere(tensor, "/dev/zero")
    node = h.make_node("Constant", [], ["out"], value=tensor)
    model.functions.append(h.make_function("local", "F", [], ["out"], [node], [h.make_opsetid("", 18)]))


def varint(value: int) -> bytes:
    """Protobuf's base-128 number, without a limit of its width."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def message(key: int, content: bytes) -> bytes:
    return varint(key) + varint(len(content)) + content


def behind_a_tensor(hidden: bytes) -> Callable[[Path], None]:
    """Bytes appended to a weight of the mask network, put together by hand: no library writes such fields."""

    def change(folder: Path) -> None:
        model = onnx.ModelProto.FromString((folder / MASK).read_bytes())
        tensor = model.graph.initializer[0].SerializeToString()
        del model.graph.initializer[0]
        graph_bytes = model.graph.SerializeToString() + message(5 << 3 | 2, tensor + hidden)
        model.ClearField("graph")
        (folder / MASK).write_bytes(model.SerializeToString() + message(7 << 3 | 2, graph_bytes))

    return forged(change)


LOCATION = onnx.StringStringEntryProto(key="location", value="/etc/passwd").SerializeToString()
WIDE = 2**32
"""Added to a key, it is cut off again by readers that keep 32 bits: TensorProto's fields 13 and 14 in disguise."""
OUTSIDE = varint(WIDE | 14 << 3) + varint(1) + message(WIDE | 13 << 3 | 2, LOCATION)


def operator(domain: str, name: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import.append(h.make_opsetid(domain, 1))
        model.graph.node.append(h.make_node(name, ["image"], ["loaded"], domain=domain))

    return change


def own_context(model: onnx.ModelProto) -> None:
    """A compiled context under the name of a harmless function of the file's own."""
    operator("com.microsoft", "EPContext")(model)
    node = h.make_node("Identity", ["in"], ["out"])
    model.functions.append(
        h.make_function("com.microsoft", "EPContext", ["in"], ["out"], [node], [h.make_opsetid("", 18)])
    )


def metadata(key: str, value: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        for entry in model.metadata_props:
            if entry.key == key:
                entry.value = value

    return change


def other_classes(folder: Path) -> None:
    classes = manifest_of(folder)["classes"]
    rewrite(folder, classes={**classes, "names": ["sky", "car", "road", "pole"]})


def other_rare(folder: Path) -> None:
    rewrite(folder, classes={**manifest_of(folder)["classes"], "rare": [0]})


def other_preprocess(folder: Path) -> None:
    """RGB turned to BGR in manifest and preprocess.json alike; only the network still knows better."""
    content = manifest_of(folder)["preprocess"]
    content |= {"mean": content["mean"][::-1], "std": content["std"][::-1]}
    (folder / "preprocess.json").write_text(json.dumps(content))
    rewrite(folder, preprocess=content, files=hash_files(folder))


def fewer_classes(folder: Path) -> None:
    """A manifest of three classes over networks of four that say nothing of themselves."""
    save_mask(folder / MASK, conv_weights())
    save_logits(folder / LOGITS, conv_weights())
    classes = manifest_of(folder)["classes"]
    shorter = {"names": classes["names"][:3], "palette": classes["palette"][:3], "rare": [2]}
    rewrite(folder, classes={**classes, **shorter}, files=hash_files(folder))


def specification(change: Callable[[str], str]) -> Callable[[Path], None]:
    def both(folder: Path) -> None:
        path = folder / "preprocess.json"
        path.write_text(change(path.read_text()))

    return forged(both)


def png(width: int, height: int, idat: bytes = b"", colour: int = 2) -> bytes:
    """A PNG that claims a size, whatever its data hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", idat) + chunk(b"IEND", b"")


def bomb(colour: int = 2) -> bytes:
    """1.6 gigapixels of zeros in a few kilobytes."""
    return png(40_000, 40_000, zlib.compress(bytes(2**22), 9), colour)


def references_bombed(folder: Path) -> None:
    for path in (folder / "reference").glob("*.png"):
        path.write_bytes(bomb(colour=0))


def device(path: Path) -> None:
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))
    except (PermissionError, OSError) as error:
        pytest.skip(f"no device can be made here ({error.strerror})")


class Runs:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch pickle-was-run",))


PICKLE = pickle.dumps(Runs())
MANY = {f"reference/{index:024x}.png": "0" * 64 for index in range(100_000)}

ATTACKS = (
    Attack(
        "listed pickle", OPEN, forged(written("models/model.pt", PICKLE)), r"unsafe file 'models/model\.pt': a pickle"
    ),
    Attack("listed checkpoint", OPEN, forged(written("sample/x.PKL", PICKLE)), r"unsafe file 'sample/x\.PKL'"),
    Attack(
        "pickle as network", LOAD, forged(written(MASK, PICKLE)), r"model\.mask\.onnx (is no|cannot be read as an) ONNX"
    ),
    Attack(
        "zip as network", LOAD, forged(written(MASK, b"PK\x03\x04" + bytes(60))), r"model\.mask\.onnx (is no|cannot)"
    ),
    Attack("empty network", LOAD, forged(written(MASK, b"")), r"is no ONNX model: it has no graph"),
    Attack("absolute path", OPEN, listed("/etc/passwd"), "unsafe path '/etc/passwd'"),
    Attack("path upwards", OPEN, listed("models/../../secret"), "unsafe path"),
    Attack("backslash", OPEN, listed("models\\model.onnx"), "unsafe path"),
    Attack("drive letter", OPEN, listed("C:/Windows/win.ini"), "unsafe path"),
    Attack(
        "linked file",
        OPEN,
        replaced("labels.txt", lambda path: path.symlink_to("/etc/hostname")),
        "labels.txt is a link",
    ),
    Attack("linked device", OPEN, replaced(MASK, lambda path: path.symlink_to("/dev/zero")), r"mask\.onnx is a link"),
    Attack("dangling link", OPEN, replaced(MASK, lambda path: path.symlink_to("nowhere")), r"mask\.onnx is a link"),
    Attack("link loop", OPEN, replaced(MASK, lambda path: path.symlink_to(path)), r"mask\.onnx is a link"),
    Attack("FIFO", OPEN, replaced(MASK, os.mkfifo), r"mask\.onnx is no regular file"),
    Attack(
        "FIFO as specification", OPEN, replaced("preprocess.json", os.mkfifo), r"preprocess\.json is no regular file"
    ),
    Attack("folder", OPEN, replaced(MASK, Path.mkdir), r"mask\.onnx is no regular file"),
    Attack("device", OPEN, replaced(MASK, device), r"mask\.onnx is no regular file"),
    Attack("changed byte", OPEN, flipped(LOGITS), r"model\.onnx has changed"),
    Attack("changed sample", OPEN, flipped("sample/mask.png"), r"mask\.png has changed"),
    Attack("truncated", OPEN, cut(MASK), r"mask\.onnx has changed"),
    Attack("truncated and forged", LOAD, forged(cut(MASK)), r"cannot be read as an ONNX model"),
    Attack(
        "100,000 files", OPEN, lambda folder: rewrite(folder, files=MANY | manifest_of(folder)["files"]), "995 more"
    ),
    Attack("deep path", OPEN, listed("/".join(["d"] * 30_000)), "lies too deep"),
    Attack("escape in a name", OPEN, listed("a\n\x1b[2J\u202eb"), r"a \\x1b\[2J\\u202eb is missing"),
    Attack(
        "linked manifest",
        OPEN,
        lambda folder: relinked(folder),
        r"manifest\.json cannot be read as a manifest: it is a link",
    ),
    Attack("FIFO as manifest", OPEN, replaced(MANIFEST, os.mkfifo), r"has no manifest\.json"),
    Attack("huge manifest", OPEN, sparse(MANIFEST), r"it has 1,024\.0 MiB, more than the 64 MiB allowed"),
    Attack("huge specification", OPEN, sparse("preprocess.json"), r"preprocess\.json has 1,024\.0 MiB"),
    Attack(
        "large specification",
        OPEN,
        specification(lambda text: text + " " * 2**21),
        r"preprocess\.json cannot be read: it has 2",
    ),
    Attack("huge reference", OPEN, sparse("reference/index.json"), r"index\.json has 1,024\.0 MiB"),
    Attack("huge picture", OPEN, sparse("sample/image.png"), r"image\.png has 1,024\.0 MiB"),
    Attack(
        "key twice",
        OPEN,
        manifest_text(lambda text: text.replace('"name"', '"name": "x", "name"', 1)),
        "key 'name' twice",
    ),
    Attack("NaN", OPEN, with_provenance("NaN"), "it holds NaN"),
    Attack("infinity", OPEN, with_provenance("-Infinity"), "it holds -Infinity"),
    Attack("huge integer", OPEN, with_provenance("9" * 5000), "it is no JSON"),
    Attack("huge opset", OPEN, lambda folder: rewrite(folder, opset=10**400), "opset: "),
    Attack("deep JSON", OPEN, with_provenance("[" * 100_000 + "]" * 100_000), "nested too deeply"),
    Attack("deep JSON that Python takes", OPEN, with_provenance("[" * 500 + "]" * 500), "recursion limit"),
    Attack("no UTF-8", OPEN, lambda folder: (folder / MANIFEST).write_bytes(b'{"name": "\xff\xfe"}'), "it is no UTF-8"),
    Attack("half a character", OPEN, lambda folder: rewrite(folder, name="\ud800"), r"manifest\.json cannot be read"),
    Attack("class name with an escape", OPEN, lambda folder: named(folder, "\x1b[31mred"), "control character"),
    Attack("class name of two lines", OPEN, lambda folder: named(folder, "a\nb"), "control character"),
    Attack(
        "specification: key twice",
        OPEN,
        specification(lambda text: text.replace('"size"', '"size":[9,9],"size"')),
        "'size' twice",
    ),
    Attack("specification: NaN", OPEN, specification(lambda text: text.replace("0.5", "NaN")), "it holds NaN"),
    Attack("specification: deep", OPEN, specification(lambda text: "[" * 100_000), "nested too deeply"),
    Attack(
        "specification: huge size",
        OPEN,
        specification(lambda text: text.replace("null", "[1000000,1000000]")),
        "in all",
    ),
    Attack(
        "other specification",
        OPEN,
        specification(lambda text: text.replace("0.5", "0.6")),
        "name different preprocessing",
    ),
    Attack("weights in /etc/passwd", LOAD, graph(MASK, weights_at("/etc/passwd")), "outside of itself"),
    Attack("weights beside", LOAD, graph(MASK, weights_at("weights.bin")), "outside of itself"),
    Attack("constant elsewhere", LOAD, graph(MASK, constant_at), "outside of itself"),
    Attack("branch elsewhere", LOAD, graph(MASK, branch_at), "outside of itself"),
    Attack("function elsewhere", LOAD, graph(MASK, function_at), "outside of itself"),
    Attack("weights elsewhere behind wide keys", LOAD, behind_a_tensor(OUTSIDE), "field number .* does not exist"),
    Attack("field number 0", LOAD, behind_a_tensor(varint(0) + varint(1)), "field number 0 does not exist"),
    Attack("number of 70 bits", LOAD, behind_a_tensor(varint(2 << 3) + varint(2**64 + 1)), "longer than 64 bits"),
    Attack(
        "foreign operator", LOAD, graph(MASK, operator("evil.library", "Shell")), "operator 'Shell' of 'evil.library'"
    ),
    Attack("compiled context", LOAD, graph(MASK, operator("com.microsoft", "EPContext")), "operator 'EPContext'"),
    Attack("compiled context as a function", LOAD, graph(MASK, own_context), "operator 'EPContext'"),
    Attack("forged class names", LOAD, other_classes, "carries other class names than the manifest"),
    Attack("forged rare classes", LOAD, other_rare, "carries other rare classes than the manifest"),
    Attack("forged preprocessing", LOAD, other_preprocess, "carries other preprocessing than the manifest"),
    Attack("metadata: no JSON", LOAD, graph(MASK, metadata("class_names", "[")), "metadata of .* cannot be read"),
    Attack("metadata: deep", LOAD, graph(MASK, metadata("class_names", "[" * 10**5)), "metadata of .* cannot be read"),
    Attack("metadata: long", LOAD, graph(MASK, metadata("class_names", " " * 2**21)), "has 2,097,152 characters"),
    Attack(
        "metadata twice",
        LOAD,
        graph(MASK, lambda model: model.metadata_props.add(key="preprocess")),
        "'preprocess' twice",
    ),
    Attack(
        "logits in /etc/passwd",
        VERIFY,
        graph(LOGITS, weights_at("/etc/passwd")),
        r"model\.onnx stores a tensor outside of itself",
    ),
    Attack("fewer classes", VERIFY, fewer_classes, r"has 4 classes and .* 3"),
    Attack("bomb as sample", VERIFY, forged(written("sample/image.png", bomb())), r"image\.png has too many pixels"),
    Attack(
        "bomb as expected mask", VERIFY, forged(written("sample/mask.png", bomb(0))), r"mask\.png has too many pixels"
    ),
    Attack("bombs as references", VERIFY, forged(references_bombed), r"reference/.* has too many pixels"),
    Attack(
        "pickle as sample",
        VERIFY,
        forged(written("sample/image.png", PICKLE)),
        r"image\.png cannot be read as an image",
    ),
    Attack(
        "short sample",
        VERIFY,
        forged(written("sample/image.png", png(32, 24))),
        r"image\.png cannot be read as an image",
    ),
)


def relinked(folder: Path) -> None:
    (folder / MANIFEST).rename(folder / "real.json")
    (folder / MANIFEST).symlink_to("real.json")


def named(folder: Path, name: str) -> None:
    classes = manifest_of(folder)["classes"]
    rewrite(folder, classes={**classes, "names": [name, *classes["names"][1:]]})
