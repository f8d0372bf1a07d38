"""Everything that the checks look at: which files belong together, and the facts of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.data.doctor.cache import Facts, FactsCache, stamp_of
from dropclass_deploy.data.doctor.facts import ImageFacts, MaskFacts
from dropclass_deploy.data.doctor.scan import scan_image, scan_mask
from dropclass_deploy.data.layout import Layout, SplitFiles

# Pillow releases the interpreter's lock while it decodes; more threads than this wait for the disk only, and each may
# hold one decoded picture.
_MAX_THREADS = 8


@dataclass(frozen=True)
class Sample:
    """An image and its mask in a split; either may be missing."""

    split: str
    stem: str
    image: Path | None
    mask: Path | None


@dataclass(frozen=True)
class Evidence:
    """The files of the splits that were looked at, and what each holds.

    Attributes:
        layout: of the data set.
        splits: the files of each split that could be listed, in the order asked for.
        unlisted: the error of each split whose files could not be listed.
        images: facts by image file.
        masks: facts by mask file.
    """

    layout: Layout
    splits: Mapping[str, SplitFiles]
    unlisted: Mapping[str, DataError]
    images: Mapping[Path, ImageFacts]
    masks: Mapping[Path, MaskFacts]

    @cached_property
    def samples(self) -> tuple[Sample, ...]:
        """Of all splits, in order."""
        return tuple(sample for split in self.splits for sample in self.of_split(split))

    def of_split(self, split: str) -> list[Sample]:
        """The samples of one split, in order."""
        return _samples(split, self.splits[split])

    def splits_of(self, path: Path) -> set[str]:
        """The splits that a file belongs to."""
        return self._owners.get(path, set())

    @cached_property
    def _owners(self) -> dict[Path, set[str]]:
        owners: dict[Path, set[str]] = {}
        for sample in self.samples:
            for path in (sample.image, sample.mask):
                if path is not None:
                    owners.setdefault(path, set()).add(sample.split)
        return owners


def gather(layout: Layout, splits: Sequence[str], reporter: Reporter, cache: FactsCache) -> Evidence:
    """List the splits and read every file that the cache does not know; each file once.

    Raises:
        DataError: when there is no such split.
    """
    listed, unlisted = _list_splits(layout, splits)
    samples = [sample for split, files in listed.items() for sample in _samples(split, files)]
    images = list(dict.fromkeys(sample.image for sample in samples if sample.image is not None))
    masks = list(dict.fromkeys(sample.mask for sample in samples if sample.mask is not None))
    try:
        image_facts = _read(
            ImageFacts, images, partial(scan_image, value_range=layout.value_range), cache, reporter, "reading images"
        )
        mask_facts = _read(MaskFacts, masks, scan_mask, cache, reporter, "reading masks")
    finally:
        # What was read before an interruption need not be read again.
        cache.save()
    return Evidence(layout, listed, unlisted, image_facts, mask_facts)


def _list_splits(layout: Layout, splits: Iterable[str]) -> tuple[dict[str, SplitFiles], dict[str, DataError]]:
    listed: dict[str, SplitFiles] = {}
    unlisted: dict[str, DataError] = {}
    for split in dict.fromkeys(splits):
        try:
            listed[split] = layout.files(split)
        except DataError as error:
            if split not in layout.splits:
                raise
            unlisted[split] = error
    return listed, unlisted


def _samples(split: str, files: SplitFiles) -> list[Sample]:
    return [Sample(split, stem, files.images.get(stem), files.masks.get(stem)) for stem in files.stems]


def _read(
    kind: type[Facts],
    paths: Sequence[Path],
    scan: Callable[[Path], Facts],
    cache: FactsCache,
    reporter: Reporter,
    title: str,
) -> dict[Path, Facts]:
    """Facts by path, from the cache where the file has not changed."""
    stamps = {path: stamp_of(path) for path in paths}
    facts = {path: known for path in paths if (known := cache.get(kind, path, stamps[path])) is not None}
    unread = [path for path in paths if path not in facts]
    if not unread:
        return facts
    with (
        reporter.phase(title) as advance,
        ThreadPoolExecutor(max_workers=min(_MAX_THREADS, os.cpu_count() or 1)) as pool,
    ):
        try:
            for done, (path, found) in enumerate(zip(unread, pool.map(scan, unread), strict=True), start=1):
                facts[path] = found
                cache.put(path, stamps[path], found)
                advance(done, len(unread))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return facts
