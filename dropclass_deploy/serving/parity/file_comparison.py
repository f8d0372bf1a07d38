"""Any ONNX file against any other."""

from __future__ import annotations

from pathlib import Path

from dropclass_deploy.core.classes import ClassTable, check_same_names
from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.files import sha256_of
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.serving.parity.comparison import Comparison, class_table
from dropclass_deploy.serving.parity.metadata import class_names_of, preprocess_of, rare_classes_of
from dropclass_deploy.serving.parity.network import NetworkSide, layout_of
from dropclass_deploy.serving.parity.options import VerifyOptions
from dropclass_deploy.serving.parity.report import Facts
from dropclass_deploy.serving.parity.rule import NON_INFERIORITY, STRICT
from dropclass_deploy.serving.runtimes import Runtime
from dropclass_deploy.serving.runtimes.base import fallback_problem
from dropclass_deploy.serving.runtimes.tensorrt_native.engine_record import PLAN, read_record
from dropclass_deploy.serving.versions import library_versions

DIGITS = 12
"""Of a preprocessing digest in a message: enough to tell two apart."""


def file_comparison(
    paths: tuple[Path, Path], runtimes: tuple[Runtime, Runtime], dataset: Dataset, options: VerifyOptions
) -> Comparison:
    """Reference and candidate, in this order, each in a loaded runtime.

    Raises:
        UserError: for a network of another layout, or when nobody names the preprocessing.
        ArtifactError: for metadata that cannot be read. DataError: when the numbers or the order of classes
            differ, or the value range of a network and that of the data.
    """
    titles = _titles(paths)
    reference, candidate = runtimes
    found = tuple(preprocess_of(runtime, title) for runtime, title in zip(runtimes, titles, strict=True))
    used = _settle(found, titles, runtimes, options.preprocess)
    classes, notes = _classes(dataset, runtimes, titles)
    for preprocess, title in zip(used, titles, strict=True):
        if preprocess is not None:
            preprocess.check_value_range(dataset.value_range, title, dataset.spec)
    same_engine = (reference.name, reference.provider) == (candidate.name, candidate.provider)
    strict = same_engine and reference.precision == candidate.precision == "fp32"
    facts = Facts(
        reference=titles[0],
        candidate=titles[1],
        candidate_sha256=sha256_of(paths[1]),
        reference_precision=reference.precision,
        precision=candidate.precision,
        provider=candidate.provider,
        preprocess_digest=used[1].digest() if used[1] else None,
        data=dataset.spec,
        split=dataset.split,
        seed=options.seed,
        resamples=options.resamples,
        versions=library_versions(),
    )
    sides = [
        NetworkSide(runtime, title, preprocess, len(dataset.classes))
        for runtime, title, preprocess in zip(runtimes, titles, used, strict=True)
    ]
    problems = (*filter(None, map(fallback_problem, runtimes)), *_conflict(found, titles, options.preprocess))
    notes = (*notes, *_built_from_another(paths))
    return Comparison(sides[0], sides[1], classes, STRICT if strict else NON_INFERIORITY, problems, notes, facts)


def _built_from_another(paths: tuple[Path, Path]) -> tuple[str, ...]:
    """One sentence when the candidate is an engine of another file than the reference (float16, say)."""
    reference, candidate = paths
    if candidate.suffix != PLAN or reference.suffix == PLAN:
        return ()
    request = read_record(candidate).request
    if request.onnx_sha256 == sha256_of(reference):
        return ()
    return (
        f"{candidate.name} was not built from {reference.name} but from {request.onnx} {request.onnx_sha256[:DIGITS]}",
    )


def _titles(paths: tuple[Path, Path]) -> tuple[str, str]:
    """File names, or whole paths where the names are equal."""
    first, second = paths
    return (first.name, second.name) if first.name != second.name else (str(first), str(second))


def _settle(
    found: tuple[Preprocess | None, ...],
    titles: tuple[str, str],
    runtimes: tuple[Runtime, Runtime],
    given: Preprocess | None,
) -> tuple[Preprocess | None, Preprocess | None]:
    """Each network's preprocessing: its own, else the caller's, else the other network's."""
    first, second = found
    used = (first or given or second, second or given or first)
    for runtime, title, preprocess in zip(runtimes, titles, used, strict=True):
        if preprocess is None and not layout_of(runtime, title).takes_bytes:
            raise UserError(
                f"{title} takes normalised images and no file says how to normalise them",
                expected="metadata 'preprocess' in one of the two files",
                remedy="name a file with mean, std and size: --preprocess FILE.json",
            )
    return used


def _conflict(
    found: tuple[Preprocess | None, ...], titles: tuple[str, str], given: Preprocess | None
) -> tuple[str, ...]:
    """One sentence when preprocessings with different digests are in play."""
    named = [
        (title, item.digest()) for title, item in zip((*titles, "--preprocess"), (*found, given), strict=True) if item
    ]
    if len({digest for _, digest in named}) <= 1:
        return ()
    told = ", ".join(f"{title} {digest[:DIGITS]}" for title, digest in named)
    return (f"the preprocessing differs (digests: {told})",)


def _classes(
    dataset: Dataset, runtimes: tuple[Runtime, Runtime], titles: tuple[str, str]
) -> tuple[ClassTable, tuple[str, ...]]:
    """The class table of the report, named by the candidate where it has names, else by the reference, else by the data."""
    names = [class_names_of(runtime, title) for runtime, title in zip(runtimes, titles, strict=True)]
    rare = [rare_classes_of(runtime, title) for runtime, title in zip(runtimes, titles, strict=True)]
    tables = [
        class_table(dataset, names[index], rare[index] or rare[1 - index], titles[index])
        for index in ((1, 0) if names[1] else (0, 1))
    ]
    between = check_same_names(names[0], names[1], *titles, allow_renamed=True) if all(names) else ""
    notes = dict.fromkeys(filter(None, (*tables[0][1], *tables[1][1], between)))
    return tables[0][0], tuple(notes)
