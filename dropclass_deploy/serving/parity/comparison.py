"""A comparison ready to be measured, and the decision once it was."""

from __future__ import annotations

from dataclasses import dataclass

from dropclass_deploy.core.classes import ClassTable, check_same_names
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.serving.parity.measure import Measurement, measure
from dropclass_deploy.serving.parity.options import VerifyOptions
from dropclass_deploy.serving.parity.report import Facts, ParityReport, SampleCheck
from dropclass_deploy.serving.parity.rule import (
    FAIL,
    INSUFFICIENT,
    MAX_DISAGREEMENT,
    SAME_NETWORK,
    STRICT,
    ClassVerdict,
    check_allowed,
    judge,
    measure_classes,
    overall,
)
from dropclass_deploy.serving.parity.sides import Side


@dataclass(frozen=True)
class Comparison:
    """Two sides, the rule, and what was already found before the first image.

    Attributes:
        reference: makes the masks to be held to.
        candidate: makes the masks that are judged.
        classes: names and rare classes for the report; as many as the data have.
        rule: "strict" or "non-inferiority".
        problems: sentences that make the gate fail whatever the figures say.
        notes: sentences that do not change the verdict.
        facts: for the report.
        sample_check: of an artifact.
    """

    reference: Side
    candidate: Side
    classes: ClassTable
    rule: str
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    facts: Facts
    sample_check: SampleCheck | None = None


def compare(comparison: Comparison, dataset: Dataset, options: VerifyOptions) -> ParityReport:
    """Measure every image and decide.

    Raises:
        UserError: for an allowed class that does not exist. DataError: for data that do not fit the networks.
    """
    check_allowed(options.allow_insufficient, comparison.classes)
    measured = measure(
        dataset, comparison.reference, comparison.candidate, limit=options.limit, progress=options.progress
    )
    figures = measure_classes(measured.counts, comparison.classes, resamples=options.resamples, seed=options.seed)
    classes = tuple(judge(comparison.rule, item) for item in figures)
    problems = _problems(comparison, measured)
    verdict = overall(
        classes, options.allow_insufficient, failed=bool(problems) or any(item.verdict == FAIL for item in classes)
    )
    return ParityReport(
        verdict=verdict,
        rule=comparison.rule,
        classes=classes,
        reasons=(*problems, *_class_reasons(classes, options.allow_insufficient)),
        notes=(*comparison.notes, *measured.notes),
        images=int(measured.counts.truth.shape[0]),
        pixel_disagreement=measured.counts.disagreement,
        logits_disagreement=measured.logits_disagreement,
        sample_check=comparison.sample_check,
        allow_insufficient=options.allow_insufficient,
        facts=comparison.facts,
    )


def class_table(
    dataset: Dataset, names: tuple[str, ...], rare: tuple[str, ...], title: str
) -> tuple[ClassTable, tuple[str, ...]]:
    """The data's class table with a network's own names and rare classes, and notes on what differs.

    Args:
        dataset: whose labels are compared with.
        names: of the network's classes in id order; empty where it does not say.
        rare: names of the rare classes; empty where it does not say.
        title: of the network, for messages.

    Raises:
        DataError: when the numbers of classes differ, or a name stands at another id. A class of another name at the same
            id is a note: the gate compares two networks, and both see the same labels.
    """
    table = dataset.classes
    difference = check_same_names(names, table.names, title, dataset.spec, allow_renamed=True) if names else ""
    notes = [difference] if difference else []
    known = names or table.names
    ids = tuple(index for index, name in enumerate(known) if name in rare) or table.rare
    if not ids:
        notes.append("the rare classes are not known: none is marked or judged as one")
    return table.model_copy(update={"names": known, "rare": ids}), tuple(notes)


def _problems(comparison: Comparison, measured: Measurement) -> tuple[str, ...]:
    problems = [*comparison.problems, *measured.problems]
    if comparison.sample_check and comparison.sample_check.problem:
        problems.append(comparison.sample_check.problem)
    if comparison.rule == STRICT and measured.counts.disagreement > MAX_DISAGREEMENT:
        problems.append(
            f"the masks differ at {measured.counts.disagreement:.3g} of the pixels, and {MAX_DISAGREEMENT:g} is allowed"
        )
    # Two files of one lowered network round apart in other engines' fused kernels, but they are one network.
    allowed = MAX_DISAGREEMENT if comparison.rule == STRICT else SAME_NETWORK
    if (measured.logits_disagreement or 0.0) > allowed:
        problems.append(
            f"the argmax of the logits file differs from {comparison.candidate.title} at "
            f"{measured.logits_disagreement:.3g} of the pixels, and {allowed:g} is allowed"
        )
    return tuple(problems)


def _class_reasons(classes: tuple[ClassVerdict, ...], allowed: tuple[str, ...]) -> tuple[str, ...]:
    reasons = tuple(
        item.reason
        for item in classes
        if item.reason and not (item.verdict == INSUFFICIENT and item.figures.name in allowed)
    )
    if any(item.figures.pixels for item in classes):
        return reasons
    return (*reasons, "no class occurs in the labels, so that none could be judged")
