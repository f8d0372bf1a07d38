"""What an export settles before any long work: preprocessing, data, contradictions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dropclass_deploy.core.errors import DataError, UserError
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.export.bias_card import check_bias_card
from dropclass_deploy.export.options import ExportOptions, check_window
from dropclass_deploy.export.shapes import fixed_size
from dropclass_deploy.export.source import Source


@dataclass(frozen=True)
class Job:
    """One export.

    Attributes:
        source: the network, with the preprocessing that the artifact will have.
        options: how.
        name: of the artifact.
        dataset: for the sample and the reference masks, or None.
        notes: sentences about what was decided by itself; they go into the model card.
        imposed_size: (height, width) that the export's shape forces on images which used to run at their own size.
    """

    source: Source
    options: ExportOptions
    name: str
    dataset: Dataset | None
    notes: tuple[str, ...]
    imposed_size: tuple[int, int] | None = None


def prepared(source: Source, options: ExportOptions, name: str) -> Job:
    """Settle preprocessing and data.

    Raises:
        UserError: when the shape contradicts the preprocessing, the provenance is not JSON, or the bias card is another's.
        DataError: when the data cannot be opened, are empty, or have other classes or another value range than the model.
    """
    check_json(source.provenance)
    source = _with_window(source, options)
    settled, size_note = _with_size(source, options)
    card_note = check_bias_card(options.bias_card, source.network, settled.preprocess)
    dataset, data_note = _dataset(source, options)
    if dataset is not None:
        _check_dataset(dataset, source)
    imposed = settled.preprocess.size if size_note else None
    return Job(
        settled, options, name, dataset, tuple(note for note in (size_note, data_note, card_note) if note), imposed
    )


def check_json(provenance: Mapping[str, Any]) -> None:
    """Raise UserError when ``provenance`` cannot be written as JSON."""
    try:
        json.dumps(dict(provenance), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"the provenance cannot be written as JSON: {error}", expected="plain JSON values") from error


def _with_window(source: Source, options: ExportOptions) -> Source:
    """The source whose preprocessing has the window of the options, when there is one."""
    if options.window is not None:
        source = replace(source, preprocess=source.preprocess.model_copy(update={"window": options.window}))
    check_window(source.preprocess.window, options.shape)
    return source


def _with_size(source: Source, options: ExportOptions) -> tuple[Source, str]:
    """The source whose preprocessing resizes to the fixed shape, when there is one, and the note that says so."""
    size, given = fixed_size(options.shape), source.preprocess.size
    # With a window the shape is the window's, and images keep whatever size they have.
    if size is None or size == given or source.preprocess.window is not None:
        return source, ""
    if given:
        raise UserError(
            f"the shape fixes {size[0]}×{size[1]} but the preprocessing resizes to {given[0]}×{given[1]}",
            expected="one size",
            remedy=f"export with --shape {options.shape[0] or 'N'}x{given[0]}x{given[1]}, or with dynamic shapes",
        )
    preprocess = source.preprocess.model_copy(update={"size": size})
    note = f"The network takes only {size[0]}×{size[1]}: preprocess.json says that every image is resized to it."
    return replace(source, preprocess=preprocess), note


def _dataset(source: Source, options: ExportOptions) -> tuple[Dataset | None, str]:
    """The data for sample and references, or None and the reason."""
    if isinstance(options.data, Dataset):
        return options.data, ""
    if options.data is not None:
        return open_dataset(options.data, options.split), ""
    if source.data is None:
        return None, "No data were given: the sample is a drawn picture and no reference masks are stored."
    try:
        return open_dataset(source.data, options.split), ""
    except DataError as error:
        # A run may be exported where its data are not; the artifact then says in its card that it has no references.
        return None, f"The run's data could not be opened ({error}): no reference masks are stored."


def _check_dataset(dataset: Dataset, source: Source) -> None:
    source.classes.check_same(dataset.classes, "the model", dataset.spec)
    source.preprocess.check_value_range(dataset.value_range, "the model", dataset.spec)
    if len(dataset) == 0:
        raise DataError(f"split {dataset.split!r} of {dataset.spec} holds no image", expected="at least one")
