"""``emit_triton``: a model repository for a Triton inference server, from an artifact."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dropclass_deploy.core.errors import ArtifactError, UserError
from dropclass_deploy.core.files import write_bytes, write_text
from dropclass_deploy.core.model_files import DENSE, model_file
from dropclass_deploy.data.images import read_image, resize_image
from dropclass_deploy.serving.artifact import Artifact, open_artifact
from dropclass_deploy.serving.emit.emission import emission
from dropclass_deploy.serving.emit.triton_config import Batching, config_text
from dropclass_deploy.serving.emit.triton_readme import LABELS, readme
from dropclass_deploy.serving.network_file import network_file
from dropclass_deploy.serving.runtimes.onnx_file.graph_io import GraphIO, read_graph_io, takes_planes
from dropclass_deploy.serving.runtimes.onnx_file.graph_safety import check_network_file

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
SAMPLE = "sample/image.png"
WARM_UP = "image.raw"
_SIZE_WITHOUT_SAMPLE = (256, 256)


@dataclass(frozen=True)
class TritonOptions:
    """What a repository is written for.

    Attributes:
        name: of the model; None: the artifact's folder name.
        precision: of the mask file to serve.
        max_batch_size: most images that are run together; only for a network of any batch.
        preferred_batch_sizes: sizes that are run at once without waiting for more; empty: half of the largest and the
            largest.
        max_queue_delay_us: longest wait for more images, microseconds.
        gpus: ids of the GPUs to run on; empty: the CPU.
        instances: copies of the model a device.
        overwrite: replace an earlier emission.

    Raises:
        UserError: for values that do not exist or contradict each other.
    """

    name: str | None = None
    precision: str = "fp32"
    max_batch_size: int = 8
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 2000
    gpus: tuple[int, ...] = ()
    instances: int = 1
    overwrite: bool = False

    def __post_init__(self) -> None:
        model_file(DENSE, self.precision)
        if self.max_batch_size < 1 or self.instances < 1 or self.max_queue_delay_us < 0:
            raise UserError(
                f"a batch of {self.max_batch_size}, {self.instances} instances and a delay of {self.max_queue_delay_us} µs "
                "are asked for",
                expected="at least 1, 1 and 0",
            )
        outside = [size for size in self.preferred_batch_sizes if not 1 <= size <= self.max_batch_size]
        if outside:
            raise UserError(
                f"the preferred batch size {outside[0]} is asked for", expected=f"sizes from 1 to {self.max_batch_size}"
            )
        if any(gpu < 0 for gpu in self.gpus) or len(set(self.gpus)) < len(self.gpus):
            raise UserError(f"the GPUs {self.gpus} are asked for", expected="ids from 0, each once")

    @property
    def preferred(self) -> tuple[int, ...]:
        """The sizes that are run at once, ascending."""
        return tuple(sorted(set(self.preferred_batch_sizes or (max(1, self.max_batch_size // 2), self.max_batch_size))))


def emit_triton(artifact: str | Path, output: str | Path, options: TritonOptions | None = None) -> Path:
    """Write a model repository: the dense mask file, its configuration, labels, a warm-up image and a README.

    Args:
        artifact: folder; every file in its manifest is checked first.
        output: folder to write, ``NAME/config.pbtxt`` and ``NAME/1/model.onnx`` in it.
        options: name, precision, batching, devices.

    Returns:
        ``output`` as a path.

    Raises:
        UserError: when the name is none that a URL can carry, or the output may not be replaced.
        ArtifactError: when the artifact is not whole, has no file of this precision, or one that serving refuses.
    """
    options, output = options or TritonOptions(), Path(output)
    opened = open_artifact(artifact)
    name = _checked_name(options.name or opened.folder.resolve().name)
    source = network_file(opened, DENSE, options.precision)
    io = _checked_io(source, read_graph_io(source))
    batching = None
    if io.inputs[0].shape[0] is None:
        batching = Batching(options.max_batch_size, options.preferred, options.max_queue_delay_us)
    image = _warm_up_image(opened, io, batched=batching is not None)
    config = config_text(
        name,
        io,
        batching=batching,
        gpus=options.gpus,
        instances=options.instances,
        warm_up=(WARM_UP, image.shape),
        parameters=_parameters(opened, options.precision, source),
    )
    about = {"artifact": opened.manifest.name, "model": name, "sha256": _digest(opened, source)}
    with emission(output, "triton", about, overwrite=options.overwrite) as folder:
        model = folder / name
        write_text(model / "config.pbtxt", config)
        write_text(model / LABELS, "".join(f"{_one_line(label)}\n" for label in opened.classes.names))
        write_bytes(model / "warmup" / WARM_UP, image.tobytes())
        (model / "1").mkdir()
        shipped = Path(shutil.copyfile(source, model / "1" / "model.onnx"))
        check_network_file(shipped, _digest(opened, source))
        largest = batching.largest if batching else None
        text = readme(name, opened.preprocess, io, largest=largest, gpus=bool(options.gpus))
        write_text(folder / "README.md", text)
    return output


def _one_line(label: str) -> str:
    """A class name as it is; export writes none with a line break, which would shift the names behind it."""
    return " ".join(label.splitlines())


def _checked_name(name: str) -> str:
    if NAME.fullmatch(name) is None:
        raise UserError(
            f"the model name {name[:80]!r} cannot stand in an address",
            expected="1 to 64 letters, digits, '_', '.' or '-', beginning with a letter or digit",
            remedy="give another with --name",
        )
    return name


def _checked_io(path: Path, io: GraphIO) -> GraphIO:
    if len(io.inputs) != 1 or len(io.outputs) != 1 or io.inputs[0].dtype != "uint8" or len(io.inputs[0].shape) != 4:
        found = ", ".join(str(spec) for spec in (*io.inputs, *io.outputs))
        raise ArtifactError(
            f"{path} has {found}",
            expected="one uint8 image (N, H, W, 3) in, one mask out",
            remedy="export without --no-bake-preprocess" if takes_planes(io) else "",
        )
    odd = [spec.name for spec in (*io.inputs, *io.outputs) if NAME.fullmatch(spec.name) is None]
    if odd:
        raise ArtifactError(f"{path} has a tensor named {odd[0][:80]!r}", expected="plain names: image and mask")
    return io


def _digest(artifact: Artifact, path: Path) -> str:
    return artifact.manifest.files[path.relative_to(artifact.folder).as_posix()]


def _warm_up_image(artifact: Artifact, io: GraphIO, *, batched: bool) -> Any:
    """The artifact's sample at the network's size, uint8 (H, W, 3), or (N, H, W, 3) for a network of one batch size."""
    batch, height, width, _ = io.inputs[0].shape
    if SAMPLE in artifact.manifest.files:
        image = read_image(artifact.folder / SAMPLE, artifact.preprocess.value_range)
    else:
        image = np.full((*_SIZE_WITHOUT_SAMPLE, 3), 127, np.uint8)
    size = (height, width) if height and width else artifact.preprocess.seen_size or image.shape[:2]
    if image.shape[:2] != size:
        image = resize_image(image, (size[0], size[1]))
    return np.ascontiguousarray(image if batched else np.repeat(image[None], batch or 1, axis=0))


def _parameters(artifact: Artifact, precision: str, source: Path) -> dict[str, str]:
    classes = artifact.classes
    return {
        "class_names": json.dumps(list(classes.names), ensure_ascii=False),
        "palette": json.dumps(classes.palette),
        "preprocess": artifact.preprocess.model_dump_json(),
        "precision": precision,
        "onnx_sha256": _digest(artifact, source),
    }
