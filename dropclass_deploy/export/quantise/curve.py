"""The trade curve of a mixed-precision search: latency against the worst class, as JSON and as a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from dropclass_deploy.core.files import write_json
from dropclass_deploy.export import graphs
from dropclass_deploy.export.graphs import Model
from dropclass_deploy.export.quantise.evaluator import Evaluator
from dropclass_deploy.export.quantise.mixed import Point, Search, point_json
from dropclass_deploy.serving.benchmark.environment import read_environment
from dropclass_deploy.serving.benchmark.interleaved import interleaved_ms
from dropclass_deploy.serving.runtimes import open_runtime

FLOAT = "fp32"
ROUNDS, BUDGET_S = 30, 60.0


def write_curve(
    folder: Path,
    search: Search,
    gates: list[dict[str, Any]],
    model_of: Callable[[Sequence[str]], Model],
    network: Model,
    evaluator: Evaluator,
    image: np.ndarray,
) -> None:
    """Time every configuration of the walk against float32, turn by turn, and write ``mixed.json`` and ``mixed.png``.

    Args:
        folder: where to.
        search: what was found.
        gates: the gate's verdicts on the configurations that were put through it, in order.
        model_of: blocks kept → logits graph.
        network: the float32 logits graph.
        evaluator: knows the engine and the preprocessing.
        image: uint8 (H, W, 3) to time with.
    """
    points = list(dict.fromkeys(point.kept for point in search.path))
    models = {FLOAT: network, **{_key(kept): model_of(kept) for kept in points}}
    timings = _timings(folder, models, evaluator, image)
    by_kept = {point.kept: point for point in search.path}
    rows = [_row(by_kept[kept], timings[_key(kept)], timings[FLOAT]) for kept in points]
    content = {
        "environment": read_environment(evaluator.threads),
        "runtime": evaluator.runtime,
        "resolution": list(image.shape[:2]),
        "rounds": len(timings[FLOAT]),
        "float32_latency_ms": round(median(timings[FLOAT]), 3),
        "blocks": list(search.blocks),
        "effects_points": {
            block: {name: round(100 * value, 4) for name, value in effect.items()}
            for block, effect in search.effects.items()
        },
        "curve": rows,
        "gates": gates,
        "cut_short": search.cut_short,
    }
    write_json(folder / "mixed.json", content)
    _draw(folder / "mixed.png", rows, {tuple(gate["kept_in_float32"]): gate["verdict"] for gate in gates})


def _key(kept: Sequence[str]) -> str:
    return "int8 but " + ", ".join(kept) if kept else "int8"


def _timings(folder: Path, models: dict[str, Model], evaluator: Evaluator, image: np.ndarray) -> dict[str, list[float]]:
    with ExitStack() as stack:
        calls: dict[str, Callable[[], object]] = {}
        for index, (name, model) in enumerate(models.items()):
            path = folder / f".timed{index}.onnx"
            stack.callback(path.unlink, missing_ok=True)
            graphs.write(graphs.with_mask_head(model, evaluator.preprocess), path)
            runtime = stack.enter_context(open_runtime(path, evaluator.runtime, evaluator.threads))
            batch = np.repeat(image[None], runtime.inputs[0].shape[0] or 1, axis=0)
            calls[name] = runtime.bind({runtime.inputs[0].name: batch})
        return interleaved_ms(calls, ROUNDS, budget_s=BUDGET_S)


def _row(point: Point, own: list[float], plain: list[float]) -> dict[str, Any]:
    ratios = [slow / quick for slow, quick in zip(plain, own, strict=True)]
    low, high = np.percentile(ratios, (10, 90))
    return {
        **point_json(point),
        "latency_ms": round(median(own), 3),
        "float32_over_this": round(median(ratios), 3),
        "float32_over_this_p10_p90": [round(float(low), 3), round(float(high), 3)],
    }


def _draw(path: Path, rows: list[dict[str, Any]], gates: Mapping[tuple[str, ...], str]) -> None:
    """Speed-up against the slack of the worst class; a ring for what went through the gate, filled or crossed by verdict."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.axhline(0, color="0.6", linewidth=1)
    for label, marker, colour, wanted in (
        ("probe images only", ".", "0.5", None),
        ("refused by the gate", "x", "#c0392b", False),
        ("passed the gate", "o", "#1f7a4d", True),
    ):
        chosen = [row for row in rows if _passed(gates.get(tuple(row["kept_in_float32"]))) is wanted]
        places = [(row["float32_over_this"], row["worst_slack_points"]) for row in chosen]
        axes.scatter(
            *(zip(*places, strict=True) if places else ((), ())), marker=marker, s=60, color=colour, label=label
        )
        for index, (row, place) in enumerate(zip(chosen, places, strict=True)):
            text = f"{len(row['kept_in_float32'])}, {row['worst_class']}"
            axes.annotate(text, place, xytext=(5, 5 if index % 2 else -11), textcoords="offset points", fontsize=8)
    axes.set_xlabel("float32 latency ÷ latency of this")
    axes.set_ylabel("slack of the worst class, points of IoU")
    axes.set_title("Number of blocks in float32, and the class with the least slack on the probe images", fontsize=9)
    axes.legend(fontsize=8)
    axes.margins(0.15)
    figure.savefig(path, dpi=120)


def _passed(verdict: str | None) -> bool | None:
    return None if verdict is None else verdict == "pass"
