"""Reading a run and an artifact for the page: what is missing is None, what is broken is a clear error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from dropclass_deploy.analysis.report.records import Bench, Evaluation, Parity, RunModel, TrainPoint, ValPoint
from dropclass_deploy.core.errors import ArtifactError, RunError, UserError
from dropclass_deploy.core.manifest import EVIDENCE, MANIFEST, Manifest, first_problem, read_manifest

T = TypeVar("T")
_ANY_OBJECT = TypeAdapter(dict[str, Any])


@dataclass(frozen=True)
class Sources:
    """Everything the page is made from; None is "not measured".

    Attributes:
        run: name of the run folder.
        artifact: name of the artifact folder.
        recipe: text of ``recipe.yaml``.
        model: ``model.json``.
        train: "train" lines of ``metrics.jsonl``.
        val: "val" lines of ``metrics.jsonl``.
        evaluation: ``evaluation.json``.
        manifest: ``manifest.json``.
        parity: ``evidence/parity.json``.
        bench: ``evidence/bench.json``.
    """

    run: str
    artifact: str
    recipe: str | None
    model: RunModel | None
    train: tuple[TrainPoint, ...]
    val: tuple[ValPoint, ...]
    evaluation: Evaluation | None
    manifest: Manifest | None
    parity: Parity | None
    bench: Bench | None


def read_sources(run: Path, artifact: Path) -> Sources:
    """Read what the two folders hold.

    Raises:
        RunError: when the run folder does not exist or one of its files is broken.
        ArtifactError: the same for the artifact.
    """
    for folder, kind, error in ((run, "run", RunError), (artifact, "artifact", ArtifactError)):
        if not folder.is_dir():
            raise error(f"there is no {kind} folder {folder}", expected="the folders of one run and its artifact")
    train, val = _journal(run / "metrics.jsonl")
    return Sources(
        run=run.resolve().name,
        artifact=artifact.resolve().name,
        recipe=_text(run / "recipe.yaml"),
        model=_record(run / "model.json", RunModel, RunError),
        train=train,
        val=val,
        evaluation=_record(run / "evaluation.json", Evaluation, RunError),
        manifest=read_manifest(artifact) if (artifact / MANIFEST).is_file() else None,
        parity=_record(artifact / EVIDENCE / "parity.json", Parity, ArtifactError),
        bench=_record(artifact / EVIDENCE / "bench.json", Bench, ArtifactError),
    )


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _record(path: Path, kind: type[T], error: type[UserError]) -> T | None:
    if not path.is_file():
        return None
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except ValidationError as problem:
        raise error(
            f"{path} cannot be read: {first_problem(problem)}",
            remedy="measure again, or remove the file to leave it out",
        ) from problem


def _journal(path: Path) -> tuple[tuple[TrainPoint, ...], tuple[ValPoint, ...]]:
    """Both kinds of lines; other kinds are passed over, and so is a last line that a kill cut short (no newline)."""
    train: list[TrainPoint] = []
    val: list[ValPoint] = []
    for number, line in enumerate(_whole_lines(path), start=1):
        try:
            record = _ANY_OBJECT.validate_json(line)
            if record.get("kind") == "train":
                train.append(TrainPoint.model_validate(record))
            elif record.get("kind") == "val":
                val.append(ValPoint.model_validate(record))
        except ValidationError as problem:
            raise RunError(
                f"{path} line {number} cannot be read: {first_problem(problem)}", remedy="train again"
            ) from problem
    return tuple(train), tuple(val)


def _whole_lines(path: Path) -> list[bytes]:
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [line for line in lines if line.strip()]
