"""Tiny networks, artifacts and data sets for the tests of serving; every number in them is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.files import write_json, write_text
from dropclass_deploy.core.manifest import Manifest, hash_files, write_manifest
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import array_digest, write_png

NAMES = ("sky", "road", "car", "pole")
CLASSES = ClassTable(names=NAMES, rare=(2, 3))
PLAIN = Preprocess(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))

Shape = tuple[int | None, int | None, int | None]
DYNAMIC: Shape = (None, None, None)


def conv_weights(seed: int = 0, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """A 3×3 convolution, float32 (C, 3, 3, 3) and (C,)."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(classes, 3, 3, 3)).astype(np.float32), (0.3 * rng.normal(size=classes)).astype(np.float32)


def dims(shape: Shape) -> list[Any]:
    return [size if size is not None else name for size, name in zip(shape, "NHW", strict=True)]


def save(
    model_path: Path,
    nodes: Sequence[Any],
    image: Any,
    output: Any,
    weights: dict[str, np.ndarray],
    metadata: dict[str, str],
) -> Path:
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    model = h.make_model(
        h.make_graph(list(nodes), "tiny", [image], [output], stored), opset_imports=[h.make_opsetid("", 18)]
    )
    model.ir_version = 10
    h.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    model_path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, model_path)
    return model_path


def metadata_of(
    preprocess: Preprocess | None, names: Sequence[str] | None = NAMES, rare: Sequence[str] = ()
) -> dict[str, str]:
    found = {"preprocess": preprocess.model_dump_json()} if preprocess else {}
    if names is not None:
        found |= {"class_names": json.dumps(list(names)), "rare_classes": json.dumps(list(rare))}
    return found


def save_logits(
    path: Path,
    weights: tuple[np.ndarray, np.ndarray],
    *,
    shape: Shape = DYNAMIC,
    metadata: dict[str, str] | None = None,
    dtype: int = T.FLOAT,
    stride: int = 1,
) -> Path:
    """image (N, 3, H, W) → logits (N, C, H/stride, W/stride): one 3×3 convolution."""
    n, height, width = dims(shape)
    numpy_type = h.tensor_dtype_to_np_dtype(dtype)
    conv = h.make_node("Conv", ["image", "w", "b"], ["logits"], pads=[1, 1, 1, 1], strides=[stride, stride])
    return save(
        path,
        [conv],
        h.make_tensor_value_info("image", dtype, [n, 3, height, width]),
        h.make_tensor_value_info("logits", dtype, [n, len(weights[1]), None, None]),
        {"w": weights[0].astype(numpy_type), "b": weights[1].astype(numpy_type)},
        metadata or {},
    )


def save_mask(
    path: Path,
    weights: tuple[np.ndarray, np.ndarray],
    preprocess: Preprocess = PLAIN,
    *,
    shape: Shape = DYNAMIC,
    metadata: dict[str, str] | None = None,
    dtype: int = T.UINT8,
    order: str = "NHW",
    baked: bool = True,
) -> Path:
    """image uint8 (N, H, W, 3) → mask uint8 (N, H, W): the same network with both ends inside.

    ``dtype`` and ``order`` are the mask's ("NHWC": (N, H, W, 1)); not ``baked``: image float32 (N, 3, H, W), normalised.
    """
    scale, shift = preprocess.scale_and_shift()
    normalising = [
        h.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        h.make_node("Cast", ["planes"], ["floats"], to=T.FLOAT),
        h.make_node("Mul", ["floats", "scale"], ["scaled"]),
        h.make_node("Add", ["scaled", "shift"], ["normalised"]),
    ]
    nodes = [
        *(normalising if baked else []),
        h.make_node("Conv", ["normalised" if baked else "image", "w", "b"], ["logits"], pads=[1, 1, 1, 1]),
        h.make_node("ArgMax", ["logits"], ["ids"], axis=1, keepdims=int(order != "NHW")),
        h.make_node("Transpose", ["ids"], ["ordered"], perm=[0, 2, 3, 1])
        if order == "NHWC"
        else h.make_node("Identity", ["ids"], ["ordered"]),
        # Last: TensorRT takes uint8 at a network's border only.
        h.make_node("Cast", ["ordered"], ["mask"], to=dtype),
    ]
    n, height, width = dims(shape)
    image = h.make_tensor_value_info("image", T.UINT8, [n, height, width, 3])
    planes = h.make_tensor_value_info("image", T.FLOAT, [n, 3, height, width])
    constants = {"scale": scale.reshape(1, 3, 1, 1), "shift": shift.reshape(1, 3, 1, 1)} if baked else {}
    return save(
        path,
        nodes,
        image if baked else planes,
        h.make_tensor_value_info(
            "mask", dtype, {"NHW": [n, height, width], "NCHW": [n, 1, height, width]}.get(order, [n, height, width, 1])
        ),
        {**constants, "w": weights[0], "b": weights[1]},
        metadata or {},
    )


class MemoryDataset(Dataset):
    """Images and masks in lists."""

    def __init__(
        self, images: Sequence[np.ndarray], masks: Sequence[np.ndarray], classes: ClassTable = CLASSES
    ) -> None:
        self.spec, self.split, self.classes = "memory:", "val", classes
        self.images, self.masks = list(images), list(masks)

    def __len__(self) -> int:
        return len(self.images)

    def key(self, index: int) -> str:
        return f"image{index}"

    def image(self, index: int) -> np.ndarray:
        return self.images[index]

    def mask(self, index: int) -> np.ndarray:
        return self.masks[index]


def random_images(count: int, size: tuple[int, int] = (24, 32), seed: int = 1) -> list[np.ndarray]:
    """Blocks of random colours with noise: structure that survives a resize, so that several classes win."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (count, -(-size[0] // 6), -(-size[1] // 6), 3)).repeat(6, axis=1).repeat(6, axis=2)
    noise = rng.integers(-20, 21, (count, *size, 3))
    return list(np.clip(blocks[:, : size[0], : size[1]] + noise, 0, 255).astype(np.uint8))


def dense_masks(
    images: Sequence[np.ndarray], weights: tuple[np.ndarray, np.ndarray], preprocess: Preprocess = PLAIN
) -> list[np.ndarray]:
    """What the network gives at each image's own size, computed by torch in float64."""
    import torch

    masks = []
    for image in images:
        pixels = (image.astype(np.float64) / 255 - np.array(preprocess.mean)) / np.array(preprocess.std)
        planes = torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())
        kernel, bias = (torch.from_numpy(value.astype(np.float64)) for value in weights)
        logits = torch.nn.functional.conv2d(planes, kernel, bias, padding=1)
        masks.append(logits[0].argmax(0).numpy().astype(np.uint8))
    return masks


def noisy(masks: Sequence[np.ndarray], share: float = 0.1, seed: int = 2, classes: int = 4) -> list[np.ndarray]:
    """Labels near to predictions: so many of the pixels get another class."""
    rng = np.random.default_rng(seed)
    labels = []
    for mask in masks:
        label = mask.copy()
        chosen = rng.random(mask.shape) < share
        label[chosen] = rng.integers(0, classes, int(chosen.sum()), dtype=np.uint8)
        labels.append(label)
    return labels


def write_artifact(
    folder: Path,
    *,
    weights: tuple[np.ndarray, np.ndarray] | None = None,
    preprocess: Preprocess = PLAIN,
    shape: Shape = DYNAMIC,
    logits_weights: tuple[np.ndarray, np.ndarray] | None = None,
    references: tuple[Dataset, Sequence[np.ndarray]] | None = None,
    precision: str = "fp32",
    mask_options: dict[str, Any] | None = None,
    edit: Callable[[Path], None] | None = None,
) -> Path:
    """An artifact folder as export writes it; ``edit`` may change files before they are hashed."""
    weights = weights or conv_weights()
    metadata = metadata_of(preprocess)
    mask_file = folder / "models/model.mask.onnx"
    save_mask(mask_file, weights, preprocess, shape=shape, metadata=metadata, **(mask_options or {}))
    save_logits(folder / "models/model.onnx", logits_weights or weights, shape=shape, metadata=metadata_of(preprocess))
    write_text(folder / "preprocess.json", preprocess.model_dump_json())
    size = (shape[1] or (preprocess.size or (24, 32))[0], shape[2] or (preprocess.size or (24, 32))[1])
    sample = random_images(1, size, seed=9)
    write_png(folder / "sample/image.png", sample[0])
    write_png(folder / "sample/mask.png", dense_masks(sample, weights, preprocess)[0])
    if references is not None:
        write_references(folder, *references)
    if edit is not None:
        edit(folder)
    manifest = Manifest(
        name=folder.name,
        model="tiny",
        deploy_head="plain",
        precision=precision,
        shape=shape,
        opset=18,
        classes=CLASSES,
        preprocess=preprocess,
        files=hash_files(folder),
        versions={},
        provenance={},
    )
    write_manifest(folder, manifest)
    return folder


def write_references(folder: Path, dataset: Dataset, masks: Sequence[np.ndarray]) -> None:
    index = {}
    for position, mask in enumerate(masks):
        digest = array_digest(dataset.image(position))
        name = f"reference/{digest[:24]}.png"
        write_png(folder / name, mask)
        index[digest] = {"label": array_digest(dataset.mask(position)), "file": name}
    write_json(
        folder / "reference/index.json",
        {"data": dataset.spec, "split": dataset.split, "images": len(masks), "masks": index},
    )
