"""An artifact against the PyTorch network that it was exported from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import read_image, read_mask
from dropclass_deploy.serving.artifact import Artifact
from dropclass_deploy.serving.parity.comparison import Comparison, class_table
from dropclass_deploy.serving.parity.options import VerifyOptions
from dropclass_deploy.serving.parity.report import Facts, SampleCheck
from dropclass_deploy.serving.parity.rule import MAX_DISAGREEMENT, NON_INFERIORITY, STRICT
from dropclass_deploy.serving.parity.sides import ArtifactSide, FunctionSide, MaskFunction, StoredReference
from dropclass_deploy.serving.runtimes.base import fallback_problem
from dropclass_deploy.serving.runtimes.onnx_file.graph_precision import read_precision
from dropclass_deploy.serving.segmenter import Segmenter
from dropclass_deploy.serving.versions import library_versions

SAMPLE_IMAGE, SAMPLE_MASK = "sample/image.png", "sample/mask.png"


def artifact_comparison(
    artifact: Artifact,
    segmenter: Segmenter,
    dataset: Dataset,
    reference_masks: MaskFunction | None,
    options: VerifyOptions,
) -> Comparison:
    """Candidate: a mask file of the artifact. Reference: its stored masks, or ``reference_masks`` where there is none.

    Raises:
        DataError: when the classes or the value range of the data are not the artifact's.
    """
    names = artifact.classes.names
    rare = tuple(names[index] for index in artifact.classes.rare)
    classes, notes = class_table(dataset, names, rare, str(artifact.folder))
    artifact.preprocess.check_value_range(dataset.value_range, str(artifact.folder), dataset.spec)
    fallback = FunctionSide(reference_masks) if reference_masks is not None else None
    reference, candidate = StoredReference(artifact, fallback), ArtifactSide(segmenter)
    # Between float32 engines only ONNX Runtime is near enough to PyTorch for the strict rule to mean something.
    strict = segmenter.precision == "fp32" and segmenter.mask_runtime.name == "onnxruntime"
    file = artifact.model(options.head, options.precision)
    facts = Facts(
        reference=reference.title,
        candidate=candidate.title,
        candidate_sha256=artifact.manifest.files[segmenter.mask_file],
        reference_precision="fp32",
        precision=segmenter.precision,
        provider=segmenter.provider,
        preprocess_digest=artifact.preprocess.digest(),
        data=dataset.spec,
        split=dataset.split,
        seed=options.seed,
        resamples=options.resamples,
        versions=library_versions(),
    )
    rule = STRICT if strict else NON_INFERIORITY
    check = check_sample(artifact, segmenter, strict=strict)
    promised = artifact.manifest.precision if options.precision == "fp32" else options.precision
    problems = _problems(segmenter, file, promised)
    return Comparison(reference, candidate, classes, rule, problems, notes, facts, check)


def check_sample(artifact: Artifact, segmenter: Segmenter, *, strict: bool = True) -> SampleCheck:
    """``sample/image.png`` through the mask file against ``sample/mask.png``.

    Another CPU may round another way, so the strict rule's share of pixels may differ: none at all on a small sample. A
    lower precision or another engine may differ further; how far is counted, and the classes decide.
    """
    missing = [name for name in (SAMPLE_IMAGE, SAMPLE_MASK) if name not in artifact.manifest.files]
    if missing:
        return SampleCheck(0, 0, f"the artifact has no {missing[0]} to be checked with")
    image = segmenter.network_image(read_image(artifact.folder / SAMPLE_IMAGE))
    expected, found = read_mask(artifact.folder / SAMPLE_MASK), segmenter.network_mask(image)
    if expected.shape != found.shape:
        return SampleCheck(0, 0, f"{SAMPLE_MASK} has shape {expected.shape} and the network gives {found.shape}")
    differing = int(np.count_nonzero(expected != found))
    wrong = segmenter.precision == "fp32" and differing > MAX_DISAGREEMENT * expected.size
    problem = f"the sample's mask differs from {SAMPLE_MASK} at {differing} of {expected.size} pixels"
    return SampleCheck(differing, int(expected.size), problem if wrong and strict else "")


def _problems(segmenter: Segmenter, file: Path, precision: str) -> tuple[str, ...]:
    problems = [fallback_problem(segmenter.mask_runtime) or ""]
    found = read_precision(file)
    if found != precision:
        problems.append(f"{file.name} is {found} as read from its graph, and {precision} in the manifest")
    return tuple(filter(None, problems))
