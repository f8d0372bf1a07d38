"""How a comparison is made."""

from __future__ import annotations

from dataclasses import dataclass

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.model_files import DENSE
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.progress import Advance
from dropclass_deploy.serving.evidence import parity_file
from dropclass_deploy.serving.parity.bootstrap import RESAMPLES


@dataclass(frozen=True)
class VerifyOptions:
    """Options of ``verify``; contradictions are refused at construction.

    Attributes:
        allow_insufficient: classes whose "insufficient" does not make the whole insufficient; recorded in the report.
        runtime: of the candidate and of a reference file.
        threads: of one operator; None leaves the choice to the runtime.
        precision: which of an artifact's network files is the candidate; see ``core.model_files``.
        head: the mask head of that file, "dense" or "sparse".
        seed: of the bootstrap.
        resamples: of the bootstrap.
        limit: at most so many images, the first ones; None for the whole split.
        preprocess: for ONNX files that carry none.
        progress: told after each image.
    """

    allow_insufficient: tuple[str, ...] = ()
    runtime: str = "auto"
    threads: int | None = None
    precision: str = "fp32"
    head: str = DENSE
    seed: int = 0
    resamples: int = RESAMPLES
    limit: int | None = None
    preprocess: Preprocess | None = None
    progress: Advance | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UserError(f"the limit is {self.limit} images", expected="at least 1")
        if self.resamples < 1:
            raise UserError(f"{self.resamples} bootstrap resamples were asked for", expected="at least 1")
        if self.seed < 0:
            raise UserError(f"the seed is {self.seed}", expected="0 or more")

    @property
    def evidence_file(self) -> str:
        """Name of the report below ``evidence/``."""
        return parity_file(self.precision, self.head, self.runtime)
