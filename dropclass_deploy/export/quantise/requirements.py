"""What lower precisions need, settled before any long work: data to judge with, data to calibrate with, an engine."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np

from dropclass_deploy.core.errors import DataError, MissingExtraError, UserError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.core.sliding_window import Window, central_window
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import Pixels
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.export.preparation import Job
from dropclass_deploy.export.quantise.calibration import choose_images

INTEGER = ("int8", "mixed")


def check_precisions(job: Job) -> None:
    """Refuse lower precisions that could not be made or judged.

    Raises:
        UserError: when there are no data, no reference masks are to be stored, or the preprocessing has both a size and
            a window. DataError: when the calibration split cannot be opened. MissingExtraError: without the converter.
    """
    lower = [name for name in job.options.precisions if name != "fp32"]
    if not lower:
        return
    if job.dataset is None or job.options.reference_limit == 0:
        raise UserError(
            f"precision {lower[0]} is asked for without {'data' if job.dataset is None else 'reference masks'}",
            expected="labelled images for the gate: no precision is shipped that it did not judge",
            remedy="name them with --data FORMAT:PATH",
        )
    if "fp16" in lower and find_spec("onnxconverter_common") is None:
        raise MissingExtraError("onnxconverter-common", "quantize")
    if set(lower) & set(INTEGER):
        calibration_data(job)
        if job.source.preprocess.window is not None and job.source.preprocess.size is not None:
            raise UserError(
                "INT8 is asked for with a size and a window", expected="one of the two in the preprocessing"
            )


def quantised_runtime() -> str:
    """The engine that INT8 is made for on this machine: OpenVINO where it is installed."""
    return "openvino" if find_spec("openvino") is not None else "onnxruntime"


def calibration_data(job: Job) -> Dataset:
    """Labelled images that the gate does not see.

    Raises:
        UserError: when nobody names them. DataError: when they cannot be opened.
    """
    given = job.options.calibration_data
    if given is not None:
        return given
    spec = job.options.data if isinstance(job.options.data, str) else job.source.data
    if spec is None:
        raise UserError(
            "INT8 is asked for with a data set in memory and no calibration data",
            expected="ExportOptions(calibration_data=…), labelled images that the gate does not see",
        )
    try:
        return open_dataset(spec, job.options.calibration_split)
    except DataError as error:
        raise DataError(
            f"the split {job.options.calibration_split!r} that calibrates INT8 cannot be opened: {error.found}",
            expected=error.expected,
            remedy="name another with --calibration-split",
        ) from error


def probe_images(job: Job, count: int, reporter: Reporter) -> Dataset:
    """``count`` calibration images that show every class, as the network sees them: windows where it slides one."""
    with reporter.phase("choosing calibration images: every class, the rare ones first") as advance:
        chosen = choose_images(calibration_data(job), count, advance)
    window = job.source.preprocess.window
    return chosen if window is None else CentralWindows(chosen, window, job.source.preprocess)


def network_preprocess(preprocess: Preprocess) -> Preprocess:
    """The preprocessing of one window, or of whole images where there is none."""
    return preprocess.model_copy(update={"window": None})


class CentralWindows(Dataset):
    """The window in the middle of every image of a data set; what lies outside is ignored."""

    def __init__(self, dataset: Dataset, window: Window, preprocess: Preprocess) -> None:
        self.spec, self.split, self.classes = dataset.spec, dataset.split, dataset.classes
        self.value_range = dataset.value_range
        self._dataset, self._window, self._fill = dataset, window, preprocess.mean

    def __len__(self) -> int:
        return len(self._dataset)

    def key(self, index: int) -> str:
        return self._dataset.key(index)

    def image(self, index: int) -> Pixels:
        return central_window(self._dataset.image(index), self._window, self._fill)

    def mask(self, index: int) -> Pixels:
        planes = np.repeat(self._dataset.mask(index)[..., None], 3, axis=2)
        return np.ascontiguousarray(central_window(planes, self._window, (1.0, 1.0, 1.0))[..., 0])  # 1.0: 255, ignore
