"""The spurious-correlation probe: is a shortcut in the features, or only in the last layer?

A classifier learns composites in which, for some classes, a second image tells the class as well as the first (see
``composites``). Three networks are then compared on composites without that link: this one; its features, frozen, under a
new last layer; and the same network trained from scratch without the link. What the second lacks against the third is in the
features, which no new last layer mends. Class activation maps show where each looks, and the translation test shows whether
what was learned of the image is tied to its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dropclass_deploy.analysis.spurious.activation_maps import maps_of_labels, share_in_cells
from dropclass_deploy.analysis.spurious.classifier import SmallClassifier, built, last_layer, with_new_last_layer
from dropclass_deploy.analysis.spurious.composites import Composites, Layout, Link, compose
from dropclass_deploy.analysis.spurious.fitting import (
    Fitting,
    accuracy_by_class,
    predictions,
    train_network,
    tuned_last_layer,
)
from dropclass_deploy.analysis.spurious.pictures import comparison
from dropclass_deploy.analysis.spurious.result import (
    Accuracy,
    Attention,
    NetworkFindings,
    ProbeResult,
    Translation,
)
from dropclass_deploy.analysis.spurious.sources import Source, open_source
from dropclass_deploy.core.errors import DataError
from dropclass_deploy.core.files import atomic_folder, refuse_existing, write_json
from dropclass_deploy.core.metrics import mean_of
from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.data.images import write_png

RESULT = "probe.json"


@dataclass(frozen=True)
class ProbeOptions:
    """What is probed.

    Attributes:
        first: source of the images that give the class, ``digits:`` or ``mnist:PATH``.
        second: source of the others; with as many classes and images of the same size.
        link: between their classes in the biased composites.
        layout: of the grid.
        train_images: composites in each training set.
        test_images: composites in each test set.
        fitting: of the networks.
        seed: of everything that is drawn.
        pictures: composites shown beside their class activation maps.
    """

    first: str = "digits:"
    second: str = "digits:"
    link: Link = field(default_factory=lambda: Link(classes=(0, 1, 2, 3, 4), strength=1.0))
    layout: Layout = field(default_factory=Layout)
    train_images: int = 3000
    test_images: int = 2000
    fitting: Fitting = field(default_factory=Fitting)
    seed: int = 0
    pictures: int = 5

    def __post_init__(self) -> None:
        if min(self.train_images, self.test_images) < 10 or self.pictures < 0 or self.seed < 0:
            raise DataError(
                f"the probe is to have {self.train_images} composites for training, {self.test_images} for testing, "
                f"{self.pictures} pictures and the seed {self.seed}",
                expected="10 composites or more, and no negative number",
            )


@dataclass(frozen=True)
class _Sets:
    """The composites; ``moved``: without the link, the first source in other cells than in training."""

    biased: Composites
    unbiased: Composites
    moved: Composites


def run_probe(
    options: ProbeOptions,
    output: Path,
    reporter: Reporter,
    network: Callable[[int], nn.Module] = SmallClassifier,
    *,
    overwrite: bool = False,
) -> ProbeResult:
    """Train and compare the three networks, on the CPU; write ``probe.json`` and the pictures.

    Args:
        options: what is probed.
        output: folder for ``probe.json`` and ``cam_N.png``: the composite, then the map of its class by the biased, the
            tuned and the scratch network.
        reporter: hears a phase a network.
        network: called with the number of classes, gives a module as ``classifier`` describes.
        overwrite: whether an earlier probe's folder may be replaced.

    Raises:
        DataError: when sources and options do not fit.
        MissingExtraError: when ``digits:`` is asked for without scikit-learn.
        ModelError: when the network lacks what the maps need.
        UserError: when the output exists.
    """
    refuse_existing(output, overwrite=overwrite, marker=RESULT)
    first, second = open_source(options.first), open_source(options.second)
    draws = np.random.default_rng(options.seed)
    train = _sets(first.train, second.train, options, options.train_images, draws)
    test = _sets(first.test, second.test, options, options.test_images, draws)
    networks = _networks(train, first.train.num_classes, options, reporter, network)
    findings = []
    for name, model in networks.items():
        with reporter.phase(f"testing the {name} network") as advance:
            findings.append(_findings(model, train.moved, test, options))
            advance(1, 1)
    result = ProbeResult(*findings)
    with atomic_folder(output, overwrite=overwrite, marker=RESULT) as folder:
        write_json(folder / RESULT, {"options": asdict(options), **result.as_json()})
        _draw(list(networks.values()), test.unbiased, options, folder)
    return result


def _sets(first: Source, second: Source, options: ProbeOptions, count: int, draws: np.random.Generator) -> _Sets:
    layout, unlinked = options.layout, replace(options.link, strength=0.0)
    return _Sets(
        biased=compose(first, second, count, layout, options.link, draws),
        unbiased=compose(first, second, count, layout, unlinked, draws),
        moved=compose(first, second, count, layout, unlinked, draws, cells=layout.elsewhere()),
    )


def _networks(
    train: _Sets, num_classes: int, options: ProbeOptions, reporter: Reporter, network: Callable[[int], nn.Module]
) -> dict[str, nn.Module]:
    """The biased, the tuned and the scratch network; the first and the last start from the same weights."""
    first_weights = built(lambda: network(num_classes), torch.Generator().manual_seed(options.seed))
    last_layer(first_weights)  # a network that does not fit is refused before it is trained
    state = {name: value.clone() for name, value in first_weights.state_dict().items()}
    draws = torch.Generator().manual_seed(options.seed + 1)
    models = {}
    for name, composites in (("biased", train.biased), ("scratch", train.unbiased)):
        model = built(lambda: network(num_classes), draws)
        model.load_state_dict(state)
        with reporter.phase(f"training the {name} network") as advance:
            train_network(model, composites, options.fitting, draws, advance)
        models[name] = model
    with reporter.phase("training a new last layer") as advance:
        fresh = with_new_last_layer(models["biased"], draws)
        models["tuned"] = tuned_last_layer(fresh, train.unbiased, options.fitting, draws, advance)
    return {name: models[name] for name in ("biased", "tuned", "scratch")}


def _findings(model: nn.Module, train_moved: Composites, test: _Sets, options: ProbeOptions) -> NetworkFindings:
    linked = options.link.classes
    at_home = accuracy(model, test.unbiased, linked)
    one_epoch, draws = replace(options.fitting, epochs=1), torch.Generator().manual_seed(options.seed)
    tuned = tuned_last_layer(model, train_moved, one_epoch, draws, _silent)
    return NetworkFindings(
        biased=accuracy(model, test.biased, linked),
        unbiased=at_home,
        attention=attention(model, test.unbiased, options),
        translation=Translation(at_home, accuracy(model, test.moved, linked), accuracy(tuned, test.moved, linked)),
    )


def accuracy(model: nn.Module, composites: Composites, linked: tuple[int, ...]) -> Accuracy:
    """Of ``model`` on ``composites``."""
    predicted, classes = predictions(model, composites), int(composites.labels.max()) + 1
    misled = np.isin(composites.seconds, linked) & (composites.seconds != composites.labels)
    followed = mean_of((predicted == composites.seconds)[misled].astype(np.float64))
    return Accuracy(accuracy_by_class(predicted, composites.labels, classes), linked, followed)


def attention(model: nn.Module, composites: Composites, options: ProbeOptions) -> Attention:
    """Of ``model`` on the composites of linked classes (of all, when none is linked)."""
    linked = options.link.classes
    shown = composites.subset(np.isin(composites.labels, linked)) if linked else composites
    maps, grid = maps_of_labels(model, shown), options.layout.grid
    second = np.full_like(shown.cells, options.layout.second)
    return Attention(mean_of(share_in_cells(maps, shown.cells, grid)), mean_of(share_in_cells(maps, second, grid)))


def _draw(models: list[nn.Module], composites: Composites, options: ProbeOptions, folder: Path) -> None:
    """The first unbiased test composites of linked classes whose second source has another class."""
    wanted = np.isin(composites.labels, options.link.classes) & (composites.labels != composites.seconds)
    shown = composites.subset(np.flatnonzero(wanted)[: options.pictures])
    if not len(shown.labels):
        return
    maps = [maps_of_labels(model, shown) for model in models]
    for index, image in enumerate(shown.images):
        write_png(folder / f"cam_{index}.png", comparison(image, [one[index] for one in maps]))


def _silent(done: int, total: int, status: str = "", /) -> None:
    """One epoch of one layer is nothing to report."""
