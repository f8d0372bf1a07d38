"""Running the parity gate with a PyTorch reference at hand, when the artifact has no stored masks for the data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.errors import DropclassError
from dropclass_deploy.core.progress import Reporter

if TYPE_CHECKING:
    from dropclass_deploy.serving import ParityReport

Masks = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]


def run_gate(
    artifact: Path | None,
    *,
    data: str,
    split: str,
    reporter: Reporter,
    evidence: Path | None = None,
    reference: Path | None = None,
    candidate: Path | None = None,
    **options: Any,
) -> ParityReport:
    """``serving.verify`` with progress; ``options`` are those of ``VerifyOptions``."""
    from dropclass_deploy.serving import VerifyOptions, verify

    with reporter.phase("verifying") as advance:
        return verify(
            artifact,
            data=data,
            split=split,
            reference=reference,
            candidate=candidate,
            reference_masks=None if artifact is None else LazyReference(artifact, reporter),
            evidence=evidence,
            options=VerifyOptions(progress=advance, **options),
        )


class LazyReference:
    """image → mask by the artifact's own weights in PyTorch; built at the first call.

    An artifact stores its reference masks for the split it was exported with; any other data need the network itself.
    """

    def __init__(self, artifact: Path, reporter: Reporter) -> None:
        self._artifact = artifact
        self._reporter = reporter
        self._segment: Masks | None = None

    def __call__(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Mask uint8 (H, W) of an RGB image uint8 (H, W, 3)."""
        if self._segment is None:
            self._reporter.note("no stored reference masks for these images: running the PyTorch network")
            self._segment = self._build()
        return self._segment(image)

    def _build(self) -> Masks:
        try:
            from dropclass_deploy.export.from_artifact import reference_from_artifact
        except ModuleNotFoundError as error:
            raise DropclassError(
                f"{self._artifact} holds no reference masks for these images, and torch is not installed to make them; "
                "export with --data, or pip install 'dropclass-deploy[export]'"
            ) from error
        return reference_from_artifact(self._artifact)
