"""The parts of a bias card, each computed in its own room."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dropclass_deploy.analysis.bias_card.options import AnalysisOptions
from dropclass_deploy.analysis.subject import Section, Subject, sweep
from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.data.dataset import Dataset


def all_parts(
    subjects: Sequence[Subject],
    dataset: Dataset,
    indices: Sequence[int],
    options: AnalysisOptions,
    reporter: Reporter,
) -> tuple[list[npt.NDArray[np.int64]], dict[str, Section]]:
    """Each network's confusion matrices by image, and what every part found, by its key in ``analysis.json``."""
    confusions = []
    for subject in subjects:
        with reporter.phase(f"running {subject.name}") as advance:
            confusions.append(sweep(subject, dataset, indices, (), advance))
    return confusions, {"comparison": Section({"sentences": ["x"]})}
