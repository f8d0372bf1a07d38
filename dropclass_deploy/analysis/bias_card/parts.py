"""The parts of a bias card, each computed in its own room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import numpy.typing as npt

from dropclass_deploy.analysis.bias_card.options import AnalysisOptions
from dropclass_deploy.analysis.calibration import Calibration, calibration_section
from dropclass_deploy.analysis.co_location import (
    AuditPlan,
    AuditResult,
    CoLocationAudit,
    co_location_section,
    plan_audit,
    strongest_links,
)
from dropclass_deploy.analysis.co_location.audit import duration
from dropclass_deploy.analysis.comparison import comparison_section, headline
from dropclass_deploy.analysis.correlation import correlation_of, correlation_section
from dropclass_deploy.analysis.failures import ErrorsByPlace, failures_section
from dropclass_deploy.analysis.grad_cam import grad_cam_section
from dropclass_deploy.analysis.subject import Section, Subject, sweep
from dropclass_deploy.analysis.unravel import Options as Unravelling
from dropclass_deploy.analysis.unravel import unravel_section
from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import Pixels


@dataclass(frozen=True)
class Watched:
    """One run's pass over the images, and what was counted on the way.

    Attributes:
        confusions: int64 (N, C, C), each image's.
        audit: with one class erased after another.
        calibration: of the probabilities.
        places: errors by object and by distance to a border.
    """

    confusions: npt.NDArray[np.int64]
    audit: AuditResult
    calibration: Calibration
    places: ErrorsByPlace


def watched(subject: Subject, dataset: Dataset, indices: Sequence[int], plan: AuditPlan, reporter: Reporter) -> Watched:
    """Run one network over the images, as they are and with each class erased."""
    count, ignore = len(subject.classes), subject.classes.ignore_index
    audit = CoLocationAudit(subject, plan, reporter.note)
    calibration, places = Calibration(count, ignore), ErrorsByPlace(count, ignore)
    with reporter.phase(f"running {subject.name}") as advance:
        confusions = sweep(subject, dataset, indices, [audit, calibration, places], advance)
    return Watched(confusions, audit.result(), calibration, places)


def _outlook(subjects: Sequence[Subject], image: Pixels, plan: AuditPlan) -> str:
    """How long the predictions will take: each network's second pass over one image, the first being a warm-up."""
    seconds = 0.0
    for subject in subjects:
        subject.segment(image)
        began = perf_counter()
        subject.segment(image)
        seconds += plan.evaluations * (perf_counter() - began)
    return f"about {duration(seconds)}, as one image goes, and the rest of the card comes after it"


def all_parts(
    subjects: Sequence[Subject],
    dataset: Dataset,
    indices: Sequence[int],
    options: AnalysisOptions,
    reporter: Reporter,
) -> tuple[list[npt.NDArray[np.int64]], dict[str, Section]]:
    """Each network's confusion matrices by image, and what every part found, by its key in ``analysis.json``."""
    with reporter.phase("reading the images") as advance:
        plan = plan_audit(dataset, indices, options.fill, options.seed, advance)
    reporter.note(f"{plan.told(len(subjects))}; {_outlook(subjects, dataset.image(indices[0]), plan)}")
    passes = [watched(subject, dataset, indices, plan, reporter) for subject in subjects]
    confusions = [one.confusions for one in passes]
    comparison = comparison_section(subjects, dataset, indices, confusions, seed=options.seed).content
    calibration = calibration_section(subjects, [one.calibration for one in passes])
    sentences = headline({"comparison": comparison, "calibration": calibration.content})
    parts = {"comparison": Section({**comparison, "sentences": sentences}), "calibration": calibration}
    audits = [one.audit for one in passes]
    with reporter.phase("explaining"):
        links = strongest_links(subjects, dataset, plan, audits)
        parts["co_location"] = co_location_section(plan, audits, subjects[0].classes, links)
        parts["correlation"] = correlation_section(
            [correlation_of(subject) for subject in subjects], subjects[0].classes, subjects[0].class_pixels
        )
        places = [one.places for one in passes]
        parts["failures"] = failures_section(subjects, dataset, indices, confusions, places)
    with reporter.phase("mapping confused classes") as advance:
        pairs = options.pairs or None
        parts["grad_cam"] = grad_cam_section(subjects, dataset, indices, confusions, pairs, advance=advance)
    with reporter.phase("unravelling objects") as advance:
        patches = Unravelling(seed=options.seed)
        parts["unravel"] = unravel_section(subjects, dataset, indices, confusions, patches, advance=advance)
    return confusions, parts
