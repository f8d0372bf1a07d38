"""Figures for Prometheus, under the names that a Triton server gives them.

Triton's counters and summaries keep their names (triton-inference-server/server, docs/user_guide/metrics.md);
where Triton has a summary ``X_summary_us``, here is a histogram of that name: its ``_sum`` and ``_count`` are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

MICROSECONDS = 1000.0
"""In a millisecond."""
BUCKETS_US = tuple(1000.0 * ms for ms in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000))
LABELS = ("model", "version")

COUNTERS = {
    "nv_inference_request_success": "Requests that got their masks",
    "nv_inference_request_failure": "Requests that were refused or failed, by reason",
    "nv_inference_count": "Images that the network has run on",
    "nv_inference_exec_count": "Runs of the network: images ÷ runs is the mean batch",
    "nv_inference_request_duration_us": "Microseconds of answered requests, from their first byte to their last",
    "nv_inference_queue_duration_us": "Microseconds that images of answered requests waited in the queue",
    "nv_inference_compute_input_duration_us": "Microseconds of preparing inputs, of answered requests: decode, preprocess",
    "nv_inference_compute_infer_duration_us": "Microseconds of the network's runs, of answered requests",
    "nv_inference_compute_output_duration_us": "Microseconds of making outputs, of answered requests: mask, encode",
}
HISTOGRAMS = {
    "nv_inference_request_summary_us": "A request, from its first byte to its last",
    "nv_inference_queue_summary_us": "Waiting in the queue",
    "nv_inference_compute_input_summary_us": "Decode and preprocess",
    "nv_inference_compute_infer_summary_us": "The network's run",
    "nv_inference_compute_output_summary_us": "Mask and encode",
    "dropclass_decode_us": "Decoding the image",
    "dropclass_preprocess_us": "Resizing and normalising",
    "dropclass_mask_us": "From the network's output to the mask",
    "dropclass_encode_us": "Encoding the answer",
}
GONE = 499
"""Status, in log and figures only, of a request whose client left."""
REASONS = {GONE: "CANCELED", 429: "REJECTED", 503: "REJECTED", 500: "BACKEND"}
"""Triton's values of the label ``reason``; all else is OTHER."""


class Observed(Protocol):
    """A model as the gauges see it."""

    name: str
    version: str

    @property
    def ready(self) -> bool: ...
    @property
    def waiting(self) -> int: ...


class Metrics:
    """The figures of one server, in a registry of its own."""

    def __init__(self, models: Sequence[Observed]) -> None:
        self._models = list(models)
        self._sums: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._histograms = {
            name: Histogram(name, text, LABELS, buckets=BUCKETS_US, registry=self._registry)
            for name, text in HISTOGRAMS.items()
        }
        for model in models:
            for name in COUNTERS:
                self._add(name, 0.0, model, **({"reason": "REJECTED"} if name.endswith("failure") else {}))
            for histogram in self._histograms.values():
                histogram.labels(model.name, model.version)

    def ran(self, model: Observed, images: int) -> None:
        """One run of a network. Called in the model's own thread."""
        self._add("nv_inference_count", images, model)
        self._add("nv_inference_exec_count", 1, model)

    def succeeded(self, model: Observed, stages_ms: dict[str, float], total_ms: float) -> None:
        """A request that was answered, with its stages: decode, queue, preprocess, infer, mask, encode."""
        stage = {name: MICROSECONDS * stages_ms.get(name, 0.0) for name in _STAGES}
        inputs, outputs = stage["decode"] + stage["preprocess"], stage["mask"] + stage["encode"]
        groups = {"queue": stage["queue"], "compute_input": inputs, "compute_infer": stage["infer"]}
        groups |= {"compute_output": outputs, "request": MICROSECONDS * total_ms}
        self._add("nv_inference_request_success", 1, model)
        for name, value in groups.items():
            self._add(f"nv_inference_{name}_duration_us", value, model)
            self._observe(f"nv_inference_{name}_summary_us", value, model)
        for name in ("decode", "preprocess", "mask", "encode"):
            self._observe(f"dropclass_{name}_us", stage[name], model)

    def refused(self, model: Observed, status: int) -> None:
        """A request of a model that got no mask."""
        self._add("nv_inference_request_failure", 1, model, reason=REASONS.get(status, "OTHER"))

    def text(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What the registry asks for: counters by Triton's names (the library would end them in ``_total``), gauges."""
        for name, text in COUNTERS.items():
            metric = Metric(name, text, "unknown")
            for (own, labels), value in sorted(self._sums.items()):
                if own == name:
                    metric.add_sample(name, dict(labels), value)
            yield metric
        waiting = GaugeMetricFamily(
            "nv_inference_pending_request_count", "Images waiting for the network", labels=LABELS
        )
        ready = GaugeMetricFamily("dropclass_model_ready", "1 when the model answers", labels=LABELS)
        for model in self._models:
            waiting.add_metric([model.name, model.version], model.waiting)
            ready.add_metric([model.name, model.version], model.ready)
        yield waiting
        yield ready

    def _add(self, name: str, value: float, model: Observed, **labels: str) -> None:
        key = (name, tuple({"model": model.name, "version": model.version, **labels}.items()))
        # One writer a key: the event loop, or the model's thread.
        self._sums[key] = self._sums.get(key, 0.0) + value

    def _observe(self, name: str, value: float, model: Observed) -> None:
        self._histograms[name].labels(model.name, model.version).observe(value)


_STAGES = ("decode", "queue", "preprocess", "infer", "mask", "encode")
