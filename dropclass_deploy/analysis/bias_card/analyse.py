"""From runs and a split to a bias card: one pass of each network, the parts, then the files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dropclass_deploy import __version__
from dropclass_deploy.analysis.bias_card.options import AnalysisOptions, spread
from dropclass_deploy.analysis.bias_card.page import SECTIONS, environment, render
from dropclass_deploy.analysis.bias_card.parts import all_parts
from dropclass_deploy.analysis.grad_cam import named_pairs
from dropclass_deploy.analysis.subject import Subject, open_subjects
from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import DataError
from dropclass_deploy.core.files import atomic_folder, refuse_existing, write_bytes, write_json, write_text
from dropclass_deploy.core.metrics import scores, to_json
from dropclass_deploy.core.progress import Reporter, Silent
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.models.digest import network_digest

PAGE, FIGURES = "index.html", "analysis.json"
SCHEMA_VERSION = 1


def analyse(
    paths: Sequence[Path],
    dataset: Dataset,
    output: Path,
    *,
    options: AnalysisOptions | None = None,
    device: torch.device | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Write ``index.html``, ``analysis.json`` and the pictures of one network, or of several held against the first.

    The folder appears whole or not at all.

    Args:
        paths: run folders.
        dataset: the split to look at.
        output: folder to write.
        options: limit, fill, pairs, seed.
        device: where the networks run; default the CPU.
        reporter: told about the phases, and before the long one how long it will take.

    Returns:
        ``analysis.json`` as it was written.

    Raises:
        UserError: for anything that the caller can mend, an existing output included (RunError, DataError).
        MissingExtraError: when Jinja2 or OpenCV is not installed (extra "analysis").
    """
    options, reporter = options or AnalysisOptions(), reporter or Silent()
    refuse_existing(output, overwrite=options.overwrite, marker=FIGURES)
    if len(dataset) == 0:
        raise DataError(f"split {dataset.split!r} of {dataset.spec} holds no image", expected="at least one")
    environment()  # what the page needs is missed before the networks run, not after
    subjects = open_subjects(paths, dataset, weights=options.weights, device=device)
    options = _with_known_pairs(options, dataset.classes, subjects[0].classes)
    indices = spread(len(dataset), options.limit)
    confusions, parts = all_parts(subjects, dataset, indices, options, reporter)
    found = {
        **_head(subjects, confusions, dataset, indices),
        "command": _command(paths, dataset, options),
        **{name: parts[name].content for name in SECTIONS if name in parts},
    }
    # What the page is made of is what a reader of the file gets. Names of files need not be text.
    text = json.dumps(found, allow_nan=False, ensure_ascii=False)
    card: dict[str, Any] = json.loads(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    pictures = {path: content for part in parts.values() for path, content in part.pictures.items()}
    with atomic_folder(output, overwrite=options.overwrite, marker=FIGURES) as folder:
        write_text(folder / PAGE, render(card, pictures))
        for path, content in pictures.items():
            write_bytes(folder / path, content)
        write_json(folder / FIGURES, card)
    return card


def _with_known_pairs(options: AnalysisOptions, given: ClassTable, known: ClassTable) -> AnalysisOptions:
    """The pairs in the network's spelling, for those of the data's too; refused before the minutes that networks take."""
    spelling = dict(zip(given.names, known.names, strict=True))
    pairs = tuple((spelling.get(first, first), spelling.get(second, second)) for first, second in options.pairs)
    named_pairs(pairs, known)
    return replace(options, pairs=pairs)


def _head(
    subjects: Sequence[Subject], confusions: Sequence[npt.NDArray[np.int64]], dataset: Dataset, indices: Sequence[int]
) -> dict[str, Any]:
    names = [subject.name for subject in subjects]
    return {
        "schema_version": SCHEMA_VERSION,
        "title": names[0] if len(names) == 1 else f"{', '.join(names[1:])} against {names[0]}",
        "data": dataset.spec,
        "split": dataset.split,
        "images": len(indices),
        "images_of_split": len(dataset),
        "version": __version__,
        "classes": _classes(subjects[0]),
        "runs": [_run(*pair) for pair in zip(subjects, confusions, strict=True)],
    }


def _classes(subject: Subject) -> list[dict[str, Any]]:
    """In id order; pixels of the baseline's training data."""
    table, pixels = subject.classes, subject.class_pixels
    total = sum(pixels) if pixels else 0
    return [
        {
            "name": name,
            "colour": list(table.palette[index]),
            "rare": table.is_rare(index),
            "pixels": pixels[index] if pixels else None,
            "share": pixels[index] / total if pixels and total else None,
        }
        for index, name in enumerate(table.names)
    ]


def _run(subject: Subject, confusions: npt.NDArray[np.int64]) -> dict[str, Any]:
    run = subject.run
    found = scores(confusions.sum(axis=0), subject.classes.rare)
    return {
        "name": subject.name,
        "method": run.recipe.method.name,
        "components": list(run.recipe.method.components),
        "model": run.model_json.get("name", ""),
        "deploy_head": run.deploy_head,
        "weights": run.weights,
        "network_sha256": network_digest(subject.model),
        "preprocess_sha256": run.preprocess.digest(),
        "seed": run.recipe.train.seed,
        "steps": run.recipe.train.steps,
        "miou": to_json(found.miou),
        "rare_miou": to_json(found.rare_miou),
        "pixel_accuracy": to_json(found.pixel_accuracy),
    }


def _command(paths: Sequence[Path], dataset: Dataset, options: AnalysisOptions) -> str:
    words = ["dropclass", "analyze", *map(str, paths), "--data", dataset.spec, "--split", dataset.split]
    default = AnalysisOptions()
    given = {
        "--limit": (options.limit, default.limit),
        "--fill": (options.fill, default.fill),
        "--pairs": (",".join(":".join(pair) for pair in options.pairs), ""),
        "--seed": (options.seed, default.seed),
        "--weights": (options.weights, default.weights),
    }
    for option, (value, usual) in given.items():
        if value != usual:
            words += [option, str(value)]
    return shlex.join([*words, "-o", "card"])
