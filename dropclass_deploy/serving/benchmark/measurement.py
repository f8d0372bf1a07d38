"""``bench``: the latency of an artifact against its peers."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from dropclass_deploy.core.errors import ArtifactError, UserError
from dropclass_deploy.core.regular_files import MIB, RefusedFileError, read_json
from dropclass_deploy.serving.artifact import Artifact, open_artifact
from dropclass_deploy.serving.benchmark.contender import END_TO_END, Contender
from dropclass_deploy.serving.benchmark.environment import load_average, read_environment
from dropclass_deploy.serving.benchmark.options import BenchOptions
from dropclass_deploy.serving.benchmark.ours import OURS, Ours
from dropclass_deploy.serving.benchmark.report import BENCH_FILE, BenchReport, Ratio, Result, ratios_of, result_of
from dropclass_deploy.serving.benchmark.rounds import run_rounds
from dropclass_deploy.serving.evidence import check_writable, write_evidence
from dropclass_deploy.serving.parity.options import VerifyOptions
from dropclass_deploy.serving.segmenter import Segmenter

SAMPLE = "sample/image.png"
OUTPUT_OPTION = "-o"
MAX_PARITY = 64 * MIB


def bench(
    artifact: str | Path,
    *,
    encoded: bytes | None = None,
    contenders: Sequence[Contender] = (),
    output: str | Path | None = None,
    options: BenchOptions | None = None,
) -> BenchReport:
    """Time an artifact and its peers, interleaved round by round in one run, and write ``bench.json``.

    Args:
        artifact: folder.
        encoded: bytes of the image file to segment; by default the artifact's sample.
        contenders: the peers; the caller opens and closes them.
        output: file to write; by default ``evidence/bench.json`` of the artifact.
        options: queries, warm-up, threads and budget.

    Raises:
        UserError: for contenders of one name, or a file that cannot be written (ArtifactError, DataError as elsewhere).
    """
    options = options or BenchOptions()
    opened = open_artifact(artifact)
    target = Path(output) if output is not None else opened.evidence / BENCH_FILE
    check_writable(target, OUTPUT_OPTION)
    image = _sample(opened) if encoded is None else (f"sha256 {sha256(encoded).hexdigest()}", encoded)
    with Segmenter(
        opened, options.runtime, options.threads, precision=options.precision, head=options.head
    ) as segmenter:
        everyone: list[Contender] = [Ours(segmenter), *contenders]
        _check_names(everyone)
        report = _measure(segmenter, everyone, image, options)
    write_evidence(target, report.to_json(), OUTPUT_OPTION)
    return report


def _measure(
    segmenter: Segmenter, contenders: Sequence[Contender], image: tuple[str, bytes], options: BenchOptions
) -> BenchReport:
    title, encoded = image
    environment = read_environment(options.threads)
    queries = {contender.name: contender.prepare(encoded) for contender in contenders}
    timings = run_rounds(queries, options)
    environment["load_average_after"] = load_average()
    decoded = segmenter.read_image(encoded)
    inside = segmenter.network_image(decoded)
    by_name = {contender.name: contender for contender in contenders}
    results = tuple(
        result_of(by_name[name], scope, timing, _size(decoded if scope == END_TO_END else inside))
        for (scope, name), timing in timings.items()
    )
    ratios = ratios_of(timings, OURS)
    verdict, note = _parity(segmenter, _report_of(options))
    notes = (note, *_notes(results[0].queries, options))
    return BenchReport(_headline(results, ratios, note), environment, verdict, title, results, ratios, notes)


def _sample(artifact: Artifact) -> tuple[str, bytes]:
    """The artifact's sample image: its name and encoded bytes."""
    if SAMPLE not in artifact.manifest.files:
        raise ArtifactError(f"{artifact.folder} has no {SAMPLE}", remedy="name an image with --data")
    return SAMPLE, (artifact.folder / SAMPLE).read_bytes()


def _size(image: npt.NDArray[np.uint8]) -> tuple[int, int]:
    height, width = image.shape[:2]
    return height, width


def _check_names(contenders: Sequence[Contender]) -> None:
    names = [contender.name for contender in contenders]
    if len(set(names)) != len(names):
        raise UserError(f"the contenders are called {', '.join(names)}", expected="names that differ")


class _Parity(BaseModel):
    verdict: str
    candidate_sha256: str


def _report_of(options: BenchOptions) -> str:
    """Name of the gate's report on what is timed."""
    return VerifyOptions(runtime=options.runtime, precision=options.precision, head=options.head).evidence_file


def _parity(segmenter: Segmenter, file: str) -> tuple[str | None, str]:
    """The verdict that stands in the gate's report for exactly this mask file and engine, and a sentence about it."""
    artifact = segmenter.artifact
    try:
        found = _Parity.model_validate_json(read_json(artifact.evidence / file, MAX_PARITY))
    except FileNotFoundError:
        return None, f"parity is not proved: there is no evidence/{file} (run: dropclass verify)"
    except (ArtifactError, RefusedFileError, ValidationError, OSError):
        return None, f"parity is not proved: evidence/{file} cannot be read (run: dropclass verify)"
    if found.candidate_sha256 != artifact.manifest.files[segmenter.mask_file]:
        return None, f"parity is not proved: evidence/{file} speaks of another file (run: dropclass verify)"
    return found.verdict, f"parity verdict of the timed file: {found.verdict}"


def _notes(made: int, options: BenchOptions) -> tuple[str, ...]:
    if made == options.queries:
        return ()
    return (f"the budget of {options.budget_s} s ended the run after {made} of {options.queries} queries",)


def _headline(results: Sequence[Result], ratios: Sequence[Ratio], parity: str) -> str:
    own = next(item for item in results if item.contender == OURS and item.scope == END_TO_END)
    height, width = own.resolution
    main = f"{own.latency_ms['p50']:.1f} ms median from encoded bytes to the mask at {height}x{width}"
    against = [f"{item.against} takes {item.median:.2f} times as long" for item in ratios if item.scope == END_TO_END]
    return "; ".join([main, *against, parity])
