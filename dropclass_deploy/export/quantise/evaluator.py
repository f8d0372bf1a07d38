"""A converted network on the probe images, judged class by class as the gate judges.

What was measured is kept: a search that was interrupted finds its evaluations again, by the digest of the graph.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.files import atomic_path
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import array_digest
from dropclass_deploy.export import graphs
from dropclass_deploy.export.graphs import Model
from dropclass_deploy.serving.benchmark.environment import cpu_model
from dropclass_deploy.serving.parity.counts import PairedCounts
from dropclass_deploy.serving.parity.measure import measure
from dropclass_deploy.serving.parity.network import NetworkSide
from dropclass_deploy.serving.parity.rule import (
    ABSENT,
    INSUFFICIENT,
    NON_INFERIORITY,
    PASS,
    ClassVerdict,
    judge,
    measure_classes,
)
from dropclass_deploy.serving.parity.sides import Prediction, Sample
from dropclass_deploy.serving.runtimes import open_runtime
from dropclass_deploy.serving.versions import library_versions

Ids = npt.NDArray[np.integer[Any]]
_FIELDS = ("truth", "reference_tp", "reference_predicted", "candidate_tp", "candidate_predicted")


class Evaluator:
    """Holds candidates against the float32 network.

    Args:
        probes: labelled images.
        network: the float32 logits graph, the reference.
        classes: with the rare ones.
        preprocess: of the network.
        runtime: engine that runs both.
        threads: of the engine.
        cache: folder of earlier evaluations.
        allow_insufficient: classes that are left out where they are insufficient.
    """

    def __init__(
        self,
        probes: Dataset,
        network: Model,
        classes: ClassTable,
        preprocess: Preprocess,
        runtime: str,
        cache: Path,
        threads: int | None = None,
        allow_insufficient: Collection[str] = (),
    ) -> None:
        self._allowed = frozenset(allow_insufficient)
        self.runtime, self.preprocess, self.threads = runtime, preprocess, threads
        self._probes, self._classes, self._cache = probes, classes, cache
        self._reference = _Remembered(self._predictions(network))
        self._context = self._digest_of_context(network)
        self.evaluations = 0

    def __call__(self, candidate: Model) -> tuple[ClassVerdict, ...]:
        """One verdict a class of a candidate logits graph."""
        counts = self._counts(candidate)
        figures = measure_classes(counts, self._classes, resamples=500)
        verdicts = (judge(NON_INFERIORITY, item) for item in figures)
        return tuple(
            item for item in verdicts if not (item.verdict == INSUFFICIENT and item.figures.name in self._allowed)
        )

    def _counts(self, candidate: Model) -> PairedCounts:
        content = candidate.SerializeToString(deterministic=True)
        path = self._cache / f"{hashlib.sha256(self._context + content).hexdigest()[:32]}.npz"
        found = _read(path)
        if found is None:
            self.evaluations += 1
            with self._side(candidate) as side:
                found = measure(self._probes, self._reference, side.side).counts
            _write(path, found)
        return found

    def _side(self, network: Model) -> _OpenedSide:
        return _OpenedSide(network, self.preprocess, self.runtime, self.threads, len(self._classes))

    def _predictions(self, network: Model) -> dict[str, Ids]:
        probes = self._probes
        with self._side(network) as opened:
            samples = (
                Sample(probes.key(index), probes.image(index), probes.mask(index)) for index in range(len(probes))
            )
            return {sample.key: opened.side.predict(sample).mask for sample in samples}

    def _digest_of_context(self, network: Model) -> bytes:
        settings = [self.runtime, self.preprocess.digest(), str(self._classes.ignore_index), str(len(self._classes))]
        machine = [cpu_model(), *sorted(library_versions(("openvino",)).items())]
        parts = [network.SerializeToString(deterministic=True), repr((settings, machine)).encode()]
        for index in range(len(self._probes)):
            parts += [array_digest(self._probes.image(index)).encode(), array_digest(self._probes.mask(index)).encode()]
        return hashlib.sha256(b"".join(parts)).digest()


class _Remembered:
    """The reference's masks, made once."""

    title = "float32"

    def __init__(self, masks: dict[str, Ids]) -> None:
        self._masks = masks

    def predict(self, sample: Sample) -> Prediction:
        return Prediction(self._masks[sample.key])


class _OpenedSide:
    """A graph as a side of a comparison, as long as it is entered."""

    def __init__(self, network: Model, preprocess: Preprocess, runtime: str, threads: int | None, classes: int) -> None:
        # The mask comes straight from the engine where images run at their own size; else logits are resized to it.
        model = network if preprocess.size else graphs.with_mask_head(network, preprocess)
        self._folder = tempfile.TemporaryDirectory(prefix="dropclass-candidate-")
        path = Path(self._folder.name) / "model.onnx"
        graphs.write(model, path)
        self._runtime = open_runtime(path, runtime, threads)
        self.side = NetworkSide(self._runtime, "candidate", preprocess, classes)

    def __enter__(self) -> _OpenedSide:
        return self

    def __exit__(self, *unused: object) -> None:
        self._runtime.close()
        self._folder.cleanup()


def slack(verdict: ClassVerdict) -> float:
    """How far a class is on the safe side of its margin, as a fraction of IoU; above 0 passes.

    The lower end of the interval counts; for a class with too few images for one, ΔIoU itself.
    """
    figures = verdict.figures
    lower = figures.interval[0]
    return (figures.delta if np.isnan(lower) else lower) + verdict.margin


def judged(verdicts: Sequence[ClassVerdict]) -> list[ClassVerdict]:
    """Those whose class occurs in the labels."""
    return [item for item in verdicts if item.verdict != ABSENT]


def worst(verdicts: Sequence[ClassVerdict]) -> ClassVerdict:
    """The class with the least slack."""
    return min(judged(verdicts), key=slack)


def passes(verdicts: Sequence[ClassVerdict]) -> bool:
    """Every class that could be judged passes, and none that could not is below its margin."""
    return all(item.verdict == PASS or slack(item) > 0 for item in judged(verdicts))


def _read(path: Path) -> PairedCounts | None:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in _FIELDS}
            return PairedCounts(**arrays, differing=int(stored["differing"]), pixels=int(stored["pixels"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _write(path: Path, counts: PairedCounts) -> None:
    arrays = {name: getattr(counts, name) for name in _FIELDS}
    # A home that cannot be written to only costs the memory of what was measured.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as scrap, scrap.open("wb") as stream:
            np.savez(stream, **arrays, differing=counts.differing, pixels=counts.pixels)
