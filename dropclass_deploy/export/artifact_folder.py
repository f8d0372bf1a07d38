"""The files of an artifact, written into a folder that is still hidden from readers."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dropclass_deploy import __version__
from dropclass_deploy.core.files import write_json, write_text
from dropclass_deploy.core.manifest import Manifest, hash_files, write_manifest
from dropclass_deploy.core.model_files import DENSE, LOGITS, SPARSE, model_file
from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.data.images import write_png
from dropclass_deploy.export.bias_card import write_bias_card
from dropclass_deploy.export.graphs import onnx_version
from dropclass_deploy.export.labels import write_labels
from dropclass_deploy.export.model_card import CardFacts, model_card
from dropclass_deploy.export.monai_bundle import bundle_metadata
from dropclass_deploy.export.monai_inference import inference_config
from dropclass_deploy.export.network_files import write_network
from dropclass_deploy.export.networks import ResizedLogits
from dropclass_deploy.export.options import NOT_STATED, ExportOptions
from dropclass_deploy.export.preparation import Job
from dropclass_deploy.export.quantise.precisions import add_precisions
from dropclass_deploy.export.reference import TorchReference, write_references
from dropclass_deploy.export.sample import SampleCheck, check_sample, sample_image
from dropclass_deploy.export.source import Source
from dropclass_deploy.export.to_onnx import Traced
from dropclass_deploy.training.runs.run import save_module

LOGITS_FILE, MASK_FILE, SPARSE_FILE = (model_file(head) for head in (LOGITS, DENSE, SPARSE))
WEIGHTS_FILE = "models/model.safetensors"
PREPROCESS_FILE = "preprocess.json"
CARD_FILE = "docs/README.md"


def write_artifact(folder: Path, job: Job, traced: Traced, reporter: Reporter) -> tuple[str, ...]:
    """Write every file of an artifact into an empty ``folder``, the manifest last.

    Returns:
        A sentence for each precision that the gate refused: its files are not there.

    Raises:
        GateRefusedError: when ONNX Runtime and torch disagree on the sample.
        ModelError: when the ONNX files cannot be written.
    """
    source, options = job.source, job.options
    versions = library_versions()
    with reporter.phase("writing the networks"):
        sparse_note = _write_networks(folder, job, traced)
        check = _write_sample(folder, job)
    notes = job.notes
    if sparse_note:
        reporter.note(sparse_note)
        notes = (*notes, sparse_note)
    references = _write_reference_masks(folder, job, reporter)
    write_bias_card(folder, options.bias_card)
    write_text(folder / "LICENSE", _licence_text(options))
    write_json(folder / PREPROCESS_FILE, source.preprocess.model_dump(mode="json"))
    write_labels(folder, source.classes, options.codes)
    facts = CardFacts(job.name, check, references, notes, job.imposed_size)
    write_text(folder / CARD_FILE, model_card(source, options, facts))
    write_json(folder / "configs" / "metadata.json", _bundle(job, versions))
    write_json(folder / "configs" / "inference.json", inference_config(source.preprocess, options.shape))
    write_manifest(folder, _manifest(folder, job, versions))
    outcome = add_precisions(folder, job, traced, onnx_metadata(source, options), reporter)
    if outcome.shipped:
        write_text(folder / CARD_FILE, model_card(source, options, replace(facts, shipped=outcome.shipped)))
        write_manifest(folder, _manifest(folder, job, versions))
    return outcome.refused


def _write_networks(folder: Path, job: Job, traced: Traced) -> str:
    """The network's files; a note when it has no place for the sparse head."""
    metadata, preprocess, form = onnx_metadata(job.source, job.options), job.source.preprocess, job.options.mask_format
    reason = write_network(folder, traced, "fp32", preprocess, metadata, form)
    save_module(folder / WEIGHTS_FILE, job.source.network)
    return f"There is no file with the sparse mask head, only the dense one: {reason}." if reason else ""


def _write_sample(folder: Path, job: Job) -> SampleCheck:
    preprocess = job.source.preprocess
    image = sample_image(job.dataset, preprocess)
    network = ResizedLogits(job.source.network).eval()
    masks = [folder / name for name in (MASK_FILE, SPARSE_FILE) if (folder / name).exists()]
    check = check_sample(network, preprocess, job.options.shape, image, folder / LOGITS_FILE, masks)
    write_png(folder / "sample" / "image.png", image)
    write_png(folder / "sample" / "mask.png", check.mask)
    return check


def _write_reference_masks(folder: Path, job: Job, reporter: Reporter) -> int:
    if job.dataset is None or job.options.reference_limit == 0:
        return 0
    reference = TorchReference(job.source.network, job.source.preprocess)
    with reporter.phase("storing the reference masks") as advance:
        return write_references(folder, job.dataset, reference, advance, job.options.reference_limit)


def _licence_text(options: ExportOptions) -> str:
    if options.licence == NOT_STATED:
        return "The licence of this model's weights was not stated when it was exported.\n"
    return f"Licence of this model's weights, as its author states it: {options.licence}\n"


def onnx_metadata(source: Source, options: ExportOptions) -> dict[str, str]:
    """``metadata_props`` of both ONNX files: what is needed to use one without the folder around it."""
    classes = source.classes
    return {
        "class_names": _json(list(classes.names)),
        "palette": _json([list(colour) for colour in classes.palette]),
        "preprocess": _json(source.preprocess.model_dump(mode="json")),
        "ignore_index": _json(classes.ignore_index),
        "rare_classes": _json([classes.names[index] for index in classes.rare]),
        "model_author": options.author,
        "model_license": options.licence,
        "provenance": _json({"model": source.model, "deploy_head": source.deploy_head, **source.provenance}),
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def library_versions() -> dict[str, str]:
    """Versions of what takes part in an export."""
    versions = {
        "dropclass-deploy": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnx": onnx_version(),
        "numpy": np.__version__,
    }
    for package in ("onnxscript", "onnxruntime", "onnxruntime-gpu"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _bundle(job: Job, versions: dict[str, str]) -> dict[str, Any]:
    source, options = job.source, job.options
    description = f"Network {source.model} with its {source.deploy_head} head, for use in ONNX runtimes"
    return bundle_metadata(
        job.name,
        description,
        source.classes,
        source.preprocess,
        options.shape,
        versions,
        author=options.author,
        licence=options.licence,
    )


def _manifest(folder: Path, job: Job, versions: dict[str, str]) -> Manifest:
    source, options = job.source, job.options
    return Manifest(
        name=job.name,
        model=source.model,
        deploy_head=source.deploy_head,
        precision="fp32",
        shape=options.shape,
        opset=options.opset,
        classes=source.classes,
        preprocess=source.preprocess,
        files=hash_files(folder),
        versions=versions,
        provenance={**source.provenance, "author": options.author, "licence": options.licence},
    )
