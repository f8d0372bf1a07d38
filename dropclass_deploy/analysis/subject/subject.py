"""A run as the analysis sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import ModelError, RunError
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.training import LoadedRun, TorchSegmenter, load_run
from dropclass_deploy.training.dropclass import Classifier, find_classifier
from dropclass_deploy.training.dropclass.probe_run import noise_images


@dataclass(frozen=True)
class Subject:
    """A trained network and what is known of it.

    Attributes:
        name: how figures and pictures call it; unique among those compared.
        segment: the deployed network as image → logits and mask; in eval mode, frozen.
        classes: with the rare classes of the first run's training pixels, so that all are judged on the same ones.
        run: where it comes from.
        classifier: of the network; None when none can be found.
        no_classifier: why, in one sentence; "" with a classifier.
    """

    name: str
    segment: TorchSegmenter
    classes: ClassTable
    run: LoadedRun
    classifier: Classifier | None
    no_classifier: str = ""

    @property
    def model(self) -> nn.Module:
        """(N, 3, H, W) → logits."""
        return self.segment.model

    @property
    def class_pixels(self) -> tuple[int, ...] | None:
        """(C,) training pixels; None when they were not counted."""
        counted = self.run.model_json.get("class_pixels")
        return None if counted is None else tuple(int(pixels) for pixels in counted)


def open_subjects(
    paths: Sequence[Path], dataset: Dataset, *, weights: str = "last", device: torch.device | None = None
) -> tuple[Subject, ...]:
    """Load the runs to analyse, their networks those that they deploy.

    Args:
        paths: run folders; the first is what the others are held against.
        dataset: the split, whose classes and value range must be theirs.
        weights: which of each run's networks.
        device: default the CPU.

    Raises:
        RunError: for a folder that is no finished run, or twice the same.
        DataError: when classes or value range are not a run's.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise RunError(
            f"a run is named twice: {', '.join(map(str, paths))}", expected="different runs, or one run alone"
        )
    runs = [load_run(path, weights=weights) for path in paths]
    for run in runs:
        run.classes.check_same(dataset.classes, f"the run {run.path}", dataset.spec)
        run.preprocess.check_value_range(dataset.value_range, f"the run {run.path}", dataset.spec)
    names = _names([path.resolve() for path in paths])
    target = device or torch.device("cpu")
    rare = runs[0].classes.rare
    return tuple(_subject(name, run, rare, target) for name, run in zip(names, runs, strict=True))


def _subject(name: str, run: LoadedRun, rare: tuple[int, ...], device: torch.device) -> Subject:
    model = run.network().to(device).eval()
    classifier, reason = _classifier_of(model, run)
    classes = run.classes.model_copy(update={"rare": rare})
    return Subject(name, TorchSegmenter(model, run.preprocess, device), classes, run, classifier, reason)


def _classifier_of(model: nn.Module, run: LoadedRun) -> tuple[Classifier | None, str]:
    # A name given in the recipe is of the plain network as it was built; the folded head and the extra block change paths.
    own = run.deploy_head == "plain" and run.recipe.method.name != "ce+block"
    path = run.model_json.get("classifier") if own else None
    reason = ""
    for example in (None, *_examples(model, run)):
        try:
            return find_classifier(model, path, example), ""
        except ModelError as error:
            reason = reason or str(error).splitlines()[0]
    return None, reason


def _examples(model: nn.Module, run: LoadedRun) -> Iterator[Tensor]:
    """Inputs for a network that takes one size only: the one it was probed with in training, the one it is used with."""
    for size in (run.model_json.get("probe_size"), run.preprocess.seen_size):
        if size is not None:
            height, width = size
            yield noise_images(model, (int(height), int(width)))


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' names; with as much of what is above them as tells them apart."""
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
