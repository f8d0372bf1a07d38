"""The sparse mask head against the dense one: smooth, real and worst-case logits, at 512×1024 and 1024×2048.

    python benchmarks/sparse_head.py ARTIFACT --data camvid:data/camvid --output benchmarks/results/sparse_head.json

Heads alone, coarse logits in and mask out, timed turn by turn in one run. *Real* logits are the artifact's own on frames of
the data, enlarged to the resolution. The worst case is noise: no cell is uniform.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from PIL import Image

from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.export import graphs
from dropclass_deploy.export.graphs.nodes import Nodes
from dropclass_deploy.export.graphs.resize import final_resize
from dropclass_deploy.export.graphs.sparse_head import rounding_bound, sparse_mask
from dropclass_deploy.export.size_check import open_graph
from dropclass_deploy.serving.benchmark.environment import load_average, read_environment
from dropclass_deploy.serving.benchmark.interleaved import interleaved_ms
from dropclass_deploy.serving.runtimes import open_runtime

SIZES = ((512, 1024), (1024, 2048))
CLASSES = 19


def head(classes: int, scale: int, *, sparse: bool) -> Any:
    """``coarse`` (N, C, h, w) → ``mask`` uint8 (N, H, W)."""
    add = Nodes("mask")
    shape = add("Shape", "coarse")
    sizes = add("Mul", shape, add.ints(1, 1, scale, scale))
    if sparse:
        ids = sparse_mask(add, "coarse", sizes, "half_pixel", scale, classes, True)
    else:
        full = add("Resize", "coarse", "", "", sizes, mode="linear", coordinate_transformation_mode="half_pixel")
        ids = add.cast(add("ArgMax", full, axis=1, keepdims=0), "uint8")
    add("Identity", ids, out="mask")
    coarse = helper.make_tensor_value_info("coarse", TensorProto.FLOAT, ["n", classes, "h", "w"])
    mask = helper.make_tensor_value_info("mask", TensorProto.UINT8, ["n", "H", "W"])
    graph = helper.make_graph(add.nodes, "head", [coarse], [mask], add.initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def smooth(size: tuple[int, int], scale: int) -> np.ndarray:
    """Regions of about 128 pixels of the full image, 19 classes."""
    height, width = size[0] // scale, size[1] // scale
    rng = np.random.default_rng(0)
    planes = rng.normal(size=(CLASSES, max(size[0] // 128, 2), max(size[1] // 128, 2))).astype(np.float32) * 5
    enlarged = [
        np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC)) for plane in planes
    ]
    return np.stack(enlarged)[None]


def worst(size: tuple[int, int], scale: int) -> np.ndarray:
    """Noise: hardly two neighbours agree."""
    shape = (1, CLASSES, size[0] // scale, size[1] // scale)
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def real(artifact: Path, data: str, split: str, size: tuple[int, int], count: int) -> tuple[list[np.ndarray], int]:
    """The artifact's coarse logits on frames enlarged to ``size``, and its scale."""
    model = graphs.load(artifact / "models/model.onnx")
    resize = final_resize(model)
    if isinstance(resize, str):
        raise SystemExit(resize)
    session = open_graph(graphs.with_output(model, resize.coarse))
    preprocess = Preprocess.model_validate_json((artifact / "preprocess.json").read_bytes())
    dataset = open_dataset(data, split)
    found = []
    for index in np.linspace(0, len(dataset) - 1, count).round().astype(int):
        frame = Image.fromarray(dataset.image(int(index))).resize(size[::-1], Image.Resampling.BILINEAR)
        found.append(session.run([resize.coarse], {"image": preprocess.normalise(np.asarray(frame))})[0])
    return found, size[0] // found[0].shape[2]


def mixed_share(coarse: np.ndarray) -> float:
    """Share of the cells between coarse pixels whose corners disagree."""
    ids = coarse.argmax(axis=1)
    corners = [ids[:, :-1, :-1], ids[:, 1:, :-1], ids[:, :-1, 1:], ids[:, 1:, 1:]]
    return float(np.mean(np.any([corner != corners[0] for corner in corners[1:]], axis=0)))


def near_ties(coarse: np.ndarray, scale: int) -> int:
    """Pixels whose two largest logits differ by less than the stated bound (float64)."""
    import torch
    import torch.nn.functional as F

    full = F.interpolate(torch.from_numpy(coarse).double(), scale_factor=scale, mode="bilinear", align_corners=False)
    top = full.topk(2, dim=1).values
    return int((top[:, 0] - top[:, 1] < rounding_bound(float(np.abs(coarse).max()), coarse.shape[2:])).sum())


def cases(arguments: argparse.Namespace) -> Iterator[tuple[str, tuple[int, int], int, list[np.ndarray]]]:
    """(name, resolution, scale, coarse logits of one image or several)."""
    for size in SIZES:
        for scale in (4, 8, 16):
            yield "smooth", size, scale, [smooth(size, scale)]
            yield "worst case", size, scale, [worst(size, scale)]
        frames, scale = real(arguments.artifact, arguments.data, arguments.split, size, arguments.frames)
        yield "real", size, scale, frames


def measured(
    name: str, size: tuple[int, int], scale: int, inputs: list[np.ndarray], arguments: Any
) -> list[dict[str, Any]]:
    """One row an engine."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for kind in ("dense", "sparse"):
            paths[kind] = Path(folder) / f"{kind}.onnx"
            graphs.write(head(inputs[0].shape[1], scale, sparse=kind == "sparse"), paths[kind])
        for engine in arguments.runtimes.split(","):
            with (
                open_runtime(paths["dense"], engine, arguments.threads) as dense,
                open_runtime(paths["sparse"], engine, arguments.threads) as sparse,
            ):
                times: dict[str, list[float]] = {"dense": [], "sparse": []}
                for coarse in inputs:
                    calls = {"dense": dense.bind({"coarse": coarse}), "sparse": sparse.bind({"coarse": coarse})}
                    for kind, values in interleaved_ms(calls, arguments.rounds).items():
                        times[kind] += values
                differing = sum(
                    int((dense.run({"coarse": item})["mask"] != sparse.run({"coarse": item})["mask"]).sum())
                    for item in inputs
                )
            ratios = [slow / quick for slow, quick in zip(times["dense"], times["sparse"], strict=True)]
            low, high = np.percentile(ratios, (10, 90))
            rows.append(
                {
                    "input": name, "resolution": list(size), "stride": scale, "classes": inputs[0].shape[1],
                    "runtime": engine, "images": len(inputs), "rounds": len(ratios),
                    "mixed_cells": round(float(np.mean([mixed_share(item) for item in inputs])), 4),
                    "dense_ms": round(median(times["dense"]), 3), "sparse_ms": round(median(times["sparse"]), 3),
                    "dense_over_sparse": round(median(ratios), 2),
                    "dense_over_sparse_p10_p90": [round(float(low), 2), round(float(high), 2)],
                    "pixels": len(inputs) * size[0] * size[1], "differing_pixels": differing,
                    "near_ties_below_the_bound": sum(near_ties(item, scale) for item in inputs),
                }
            )  # fmt: skip
    return rows


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runtimes", default="onnxruntime,openvino")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    environment = read_environment(arguments.threads)
    rows = []
    for case in cases(arguments):
        rows += measured(*case, arguments)
        for row in rows[-len(arguments.runtimes.split(",")) :]:
            print(
                row["input"],
                row["resolution"],
                row["stride"],
                row["runtime"],
                row["dense_ms"],
                row["sparse_ms"],
                row["dense_over_sparse"],
                row["differing_pixels"],
            )
    environment["load_average_after"] = load_average()
    arguments.output.write_text(json.dumps({"environment": environment, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
