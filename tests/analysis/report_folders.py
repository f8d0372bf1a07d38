"""A run, its artifact and pictures, as the other rooms write them, with figures made up for the page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.manifest import Manifest, hash_files, write_manifest
from dropclass_deploy.core.metrics import Scores, scores, scores_json
from dropclass_deploy.core.preprocess import Preprocess

PIXELS = {"sky": 620_000, "road": 910_000, "building": 540_000, "car": 98_000, "pole": 21_000, "cyclist": 9_100}
CLASSES = ClassTable(names=tuple(PIXELS)).with_rare_from(list(PIXELS.values()))


@dataclass(frozen=True)
class Folders:
    """What ``write_report`` is called with."""

    run: Path
    artifact: Path
    predictions: Path

    def edit(self, file: str, **changes: Any) -> None:
        """Change top-level keys of a JSON file of the run or the artifact."""
        path = next(folder / file for folder in (self.run, self.artifact) if (folder / file).is_file())
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def build(root: Path) -> Folders:
    """Write all three folders below ``root``."""
    made = Folders(root / "run", root / "artifact", root / "predictions")
    write_run(made.run)
    write_artifact(made.artifact)
    write_pictures(made.predictions)
    return made


def made_up_scores(quality: float, seed: int) -> Scores:
    """Scores of a confusion matrix in which the share of hits falls with the class's rarity."""
    generator = np.random.default_rng(seed)
    pixels = np.array(list(PIXELS.values())) // 4
    count = len(pixels)
    confusion = np.zeros((count, count), dtype=np.int64)
    for index, total in enumerate(pixels):
        hits = int(total * quality * (0.97 if total > 50_000 else 0.8))
        confusion[index] = generator.multinomial(total - hits, np.full(count, 1 / count))
        confusion[index, index] += hits
    return scores(confusion, CLASSES.rare)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_run(run: Path) -> None:
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(
        "data: 'synthetic:'\nmodel: {name: lite0}\nmethod: {name: dropclass, alpha: 10.0}\n"
    )
    model = {
        "name": "lite0",
        "options": {},
        "num_classes": len(CLASSES),
        "classes": CLASSES.model_dump(mode="json"),
        "preprocess": Preprocess().model_dump(mode="json"),
        "class_pixels": list(PIXELS.values()),
        "train_images": 240,
        "method": "dropclass",
        "deploy_head": "plain",
        "weights": None,
        "seed": 0,
        "steps": 300,
        "versions": {"torch": "2.14.1", "numpy": "2.4.6"},
    }
    write_json(run / "model.json", model)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in journal()))
    heads = {"plain": made_up_scores(0.9, 0), "folded": made_up_scores(0.91, 1)}
    evaluation = {
        "data": "synthetic:",
        "split": "val",
        "images": 60,
        "selected": "plain",
        "heads": {name: scores_json(value, CLASSES) for name, value in heads.items()},
        "extra": [{"split": "unbiased", "heads": {"plain": scores_json(made_up_scores(0.8, 2), CLASSES)}}],
    }
    write_json(run / "evaluation.json", evaluation)


def journal() -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    for step in range(10, 301, 10):
        progress = step / 300
        ce = 1.9 * np.exp(-3 * progress) + 0.25 + 0.05 * generator.random()
        drop, suppression = ce * (1.1 + 0.2 * progress), 0.08 * np.exp(-progress)
        lines.append(
            {
                "kind": "train",
                "step": step,
                "progress": progress,
                "lr": 1e-3,
                "loss": ce + progress * (drop + suppression),
            }
            | {"ce": ce, "ce_drop": drop, "suppression": suppression, "dropped": step % 6 or None, "images_per_s": 40.0}
        )
        if step % 30 == 0 and step < 300:
            result = made_up_scores(0.9 * (1 - np.exp(-3 * progress)), step)
            iou = {name: float(result.iou[index]) for index, name in enumerate(CLASSES.names)}
            val = {"kind": "val", "step": step, "miou": result.miou, "rare_miou": result.rare_miou}
            lines.append(
                val
                | {
                    "pixel_accuracy": result.pixel_accuracy,
                    "iou": iou | {"cyclist": None if step < 60 else iou["cyclist"]},
                }
            )
    return lines


def write_artifact(artifact: Path) -> None:
    (artifact / "models").mkdir(parents=True)
    (artifact / "models" / "model.onnx").write_bytes(b"onnx")
    (artifact / "labels.txt").write_text("\n".join(CLASSES.names))
    manifest = Manifest(
        name="artifact",
        model="lite0",
        deploy_head="plain",
        precision="fp32",
        shape=(None, None, None),
        opset=18,
        classes=CLASSES,
        preprocess=Preprocess(),
        files=hash_files(artifact),
        versions={"torch": "2.14.1", "onnx": "1.23.2"},
        provenance={"run": "run", "seed": 0, "method": "dropclass"},
    )
    write_manifest(artifact, manifest)
    write_json(artifact / "evidence" / "parity.json", parity())
    write_json(artifact / "evidence" / "bench.json", bench())


def parity() -> dict[str, Any]:
    ious = made_up_scores(0.9, 0).iou
    deltas = (0.0, 1e-6, -0.00011, 0.00021, -0.00042, -0.00064)
    return {
        "verdict": "pass",
        "rule": "strict",
        "unit": "fraction",
        "classes": [
            {
                "name": name,
                "iou_reference": float(ious[index]),
                "iou_candidate": float(ious[index]) + deltas[index],
                "delta": deltas[index],
                "interval": [deltas[index] - 0.0002, deltas[index] + 0.00015],
                "margin": 0.001,
                "images": 60 - 6 * index,
                "pixels": PIXELS[name] // 4,
                "rare": CLASSES.is_rare(index),
                "verdict": "pass",
            }
            for index, name in enumerate(CLASSES.names)
        ],
        "reasons": [],
        "notes": ["Class names of the data and of the artifact agree."],
        "pixel_disagreement": 3.2e-6,
        "miou": {"reference": 0.71, "candidate": 0.70998},
        "rare_miou": {"reference": 0.62, "candidate": 0.6198},
        "images": 60,
        "data": "synthetic:",
        "split": "val",
        "provider": "CPUExecutionProvider",
        "precision": "fp32",
        "reference": "reference/",
        "candidate": "models/model.mask.onnx",
    }


def bench() -> dict[str, Any]:
    times = {
        "end_to_end": {"ours": 7.9, "naive": 14.2, "torch eager": 31.6},
        "transfer": {"ours": 6.1, "naive": 12.0, "torch eager": 29.8},
        "model": {"ours": 5.8, "naive": 9.4, "torch eager": 27.2},
    }
    results, ratios = [], []
    for scope, contenders in times.items():
        for name, p50 in contenders.items():
            results.append(
                {"contender": name, "scenario": "single-stream", "scope": scope}
                | {"runtime": "torch" if "torch" in name else "onnxruntime", "precision": "fp32"}
                | {"resolution": [96, 128], "batch": 1, "queries": 100, "throughput_per_s": 1000 / p50}
                | {"latency_ms": {"p50": p50, "p90": 1.2 * p50, "p99": 1.5 * p50}}
                | {"stages_ms": {"decode": 1.1, "infer": 5.8, "mask": 0.2} if scope == "end_to_end" else {}}
            )
            if name != "ours":
                ratio = p50 / contenders["ours"]
                ratios.append(
                    {"scope": scope, "against": name, "median": ratio, "p10": 0.9 * ratio, "p90": 1.1 * ratio}
                )
    environment = {"cpu": "Example CPU", "cores": 2, "threads": None, "versions": {"onnxruntime": "1.31.1"}}
    return {
        "environment": environment,
        "parity_verdict": "pass",
        "notes": ["100 rounds were timed."],
        "results": results,
        "ratios": ratios,
    }


def write_pictures(folder: Path) -> None:
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(3):
        for kind in ("image", "truth", "prediction"):
            Image.fromarray(picture(generator)).save(folder / f"{index:03d}.{kind}.png")
    Image.fromarray(picture(generator)).save(folder / "alone.overlay.png")


def picture(generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    colours = np.array(CLASSES.palette, dtype=np.uint8)
    return np.kron(colours[generator.integers(0, len(colours), (6, 8))], np.ones((4, 4, 1), np.uint8))
