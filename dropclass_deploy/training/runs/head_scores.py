"""A finished run's figures on a split, by deploy head."""

from __future__ import annotations

from typing import Any

import torch

from dropclass_deploy.core.average_precision import PrecisionHistogram, precision_json
from dropclass_deploy.core.metrics import scores_json
from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.training.evaluate import evaluate_network
from dropclass_deploy.training.runs.run import LoadedRun


def evaluate_heads(
    run: LoadedRun,
    dataset: Dataset,
    reporter: Reporter,
    *,
    device: torch.device | None = None,
    where: str = "",
    average_precision: bool = False,
) -> dict[str, Any]:
    """Evaluate the plain network, and the folded one where there is one.

    Args:
        run: whose networks are moved to ``device``.
        dataset: the split.
        reporter: hears a phase a head, named with ``where`` at its end.
        device: default the CPU.
        average_precision: whether the classes' average precision is counted, too.

    Returns:
        The scores as JSON values by head.

    Raises:
        DataError: when classes or value range are not the run's.
    """
    run.classes.check_same(dataset.classes, f"the run {run.path}", dataset.spec)
    run.preprocess.check_value_range(dataset.value_range, f"the run {run.path}", dataset.spec)
    target = device or torch.device("cpu")
    heads = {}
    for head, network in {"plain": run.model, "folded": run.folded}.items():
        if network is None:
            continue
        ranking = PrecisionHistogram(len(run.classes), run.classes.ignore_index) if average_precision else None
        with reporter.phase(f"evaluating the {head} head{where}") as advance:
            result = evaluate_network(
                network.to(target),
                dataset,
                run.preprocess,
                device=target,
                rare=run.classes.rare,
                advance=advance,
                ranking=ranking,
            )
        heads[head] = scores_json(result, run.classes) | (precision_json(ranking, run.classes) if ranking else {})
    return heads
