"""Looking at a whole data set: read every file once, then run every check."""

from __future__ import annotations

from collections.abc import Sequence

from dropclass_deploy.core.cache import cache_folder
from dropclass_deploy.core.progress import Reporter, Silent
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.doctor.cache import FactsCache
from dropclass_deploy.data.doctor.checks import CHECKS
from dropclass_deploy.data.doctor.checks.presence import absent_classes
from dropclass_deploy.data.doctor.counts import count_split
from dropclass_deploy.data.doctor.evidence import Evidence, gather
from dropclass_deploy.data.doctor.findings import Finding
from dropclass_deploy.data.doctor.report import Report
from dropclass_deploy.data.doctor.shares import with_rare
from dropclass_deploy.data.layout import Layout
from dropclass_deploy.data.statistics import ClassStatistics, count_classes

_ORDER = ("error", "warning", "note")


def examine(
    layout: Layout,
    splits: Sequence[str] = ("train", "val"),
    reporter: Reporter | None = None,
    *,
    cached: bool = True,
) -> Report:
    """Examine the files of a data set.

    Args:
        layout: of the data set, from ``registry.survey``.
        splits: to look at, the training split first: its pixels say which classes are rare.
        reporter: told how far the reading is.
        cached: believe what is known about unchanged files (see ``doctor.cache``); what is found is kept either way.

    Raises:
        DataError: when there is no such split. Whatever is wrong with the files is in the report.
    """
    cache = FactsCache(cache_folder("doctor"), layout.place, layout.value_range, believed=cached)
    evidence = gather(layout, splits, reporter or Silent(), cache)
    findings = [finding for check in CHECKS for finding in check(evidence)]
    return _report(layout.spec, evidence, findings)


def examine_datasets(datasets: Sequence[Dataset], reporter: Reporter | None = None) -> Report:
    """Examine splits that have no files of their own (``synthetic:``): counts, and classes that never occur."""
    statistics: dict[str, ClassStatistics] = {}
    for dataset in datasets:
        with (reporter or Silent()).phase(f"counting classes in {dataset.split}") as advance:
            statistics[dataset.split] = count_classes(dataset, advance)
    classes = datasets[0].classes
    absent = [absent_classes(split, classes, stats) for split, stats in statistics.items()]
    findings = tuple(finding for finding in absent if finding is not None)
    return Report(datasets[0].spec, with_rare(classes, statistics), findings, statistics)


def _report(spec: str, evidence: Evidence, findings: list[Finding]) -> Report:
    classes = evidence.layout.classes
    statistics = {split: count_split(evidence, split) for split in evidence.splits} if classes is not None else {}
    return Report(
        spec=spec,
        classes=with_rare(classes, statistics) if classes is not None else None,
        findings=tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.severity))),
        statistics=statistics,
        evidence=evidence,
    )
