"""Where the figures come from, and the commands that make them again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dropclass_deploy.analysis.report.formats import NOTHING, count
from dropclass_deploy.analysis.report.sources import Sources
from dropclass_deploy.core.manifest import Manifest

Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Provenance:
    """Facts by heading, then the files with their hashes."""

    run: Facts
    artifact: Facts
    machine: Facts
    versions: Facts
    files: Facts
    recipe: str | None
    commands: str


def provenance(sources: Sources) -> Provenance:
    """Everything the sources say about their own origin."""
    manifest, bench = sources.manifest, sources.bench
    run = _run(sources)
    return Provenance(
        run=run,
        artifact=_artifact(manifest, run) if manifest else (),
        machine=_flat(bench.environment) if bench else (),
        versions=_versions(sources),
        files=tuple(sorted(manifest.files.items())) if manifest else (),
        recipe=sources.recipe,
        commands=_commands(sources),
    )


def _run(sources: Sources) -> Facts:
    model, evaluation = sources.model, sources.evaluation
    if model is None:
        return ()
    return (
        ("Run", sources.run),
        ("Model", model.name or NOTHING),
        ("Weights", _text(model.weights)),
        ("Method", model.method or NOTHING),
        ("Data", evaluation.data if evaluation else NOTHING),
        ("Training images", count(model.train_images)),
        ("Steps", _text(model.steps)),
        ("Seed", _text(model.seed)),
    )


def _artifact(manifest: Manifest, run: Facts) -> Facts:
    """What the manifest says; of its provenance only what the run's own facts do not say already."""
    size = manifest.preprocess.size
    told = set(run)
    return (
        ("Artifact", manifest.name),
        ("Deploy head", manifest.deploy_head),
        ("Precision", manifest.precision),
        ("Input (N, H, W)", " × ".join("dynamic" if side is None else str(side) for side in manifest.shape)),
        ("ONNX opset", str(manifest.opset)),
        ("Mean", _text(manifest.preprocess.mean)),
        ("Standard deviation", _text(manifest.preprocess.std)),
        ("Resized to", f"{size[0]} × {size[1]}" if size else "not resized"),
        ("Preprocessing (sha256)", manifest.preprocess.digest()),
        *(fact for fact in _flat(manifest.provenance) if fact not in told),
    )


def _versions(sources: Sources) -> Facts:
    """Those of the artifact; those of the run stand beside them where they differ."""
    exported = _named(sources.manifest.versions if sources.manifest else {})
    trained = _named(sources.model.versions if sources.model else {})
    names = sorted(exported | trained)
    return tuple((name, _both(trained.get(name), exported.get(name))) for name in names)


def _named(versions: Mapping[str, Any]) -> dict[str, str]:
    """Versions by distribution name, in which a hyphen and an underscore are one."""
    return {name.replace("_", "-"): _text(value) for name, value in versions.items()}


def _both(trained: str | None, exported: str | None) -> str:
    if trained and exported and trained != exported:
        return f"{exported} (trained with {trained})"
    return exported or trained or NOTHING


def _flat(content: Mapping[str, Any], prefix: str = "") -> Facts:
    """Nested values as "outer: inner" facts, in their order."""
    facts: list[tuple[str, str]] = []
    for key, value in content.items():
        words = str(key).replace("_", " ")
        name = f"{prefix}{words}" if prefix else words[:1].upper() + words[1:]
        facts += _flat(value, f"{name}: ") if isinstance(value, Mapping) else [(name, _text(value))]
    return tuple(facts)


def _text(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return ", ".join(_text(entry) for entry in value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _commands(sources: Sources) -> str:
    run, artifact = shlex.quote(sources.run), shlex.quote(sources.artifact)
    evaluation = sources.evaluation
    data = shlex.quote(evaluation.data) if evaluation and evaluation.data else "FORMAT:PATH"
    split = shlex.quote(evaluation.split) if evaluation and evaluation.split else "val"
    return "\n".join(
        (
            f"dropclass train {run}/recipe.yaml -o {run}-again",
            f"dropclass evaluate {run}-again --data {data} --split {split}",
            f"dropclass export {run}-again -o {artifact}-again --data {data}",
            f"dropclass verify {artifact}-again --data {data} --split {split}",
            f"dropclass bench {artifact}-again --data {data}",
        )
    )
