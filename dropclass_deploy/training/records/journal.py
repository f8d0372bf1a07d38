"""``metrics.jsonl``: one JSON object a line, every loss term by name."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from dropclass_deploy.core.files import write_text
from dropclass_deploy.training.methods import StepLoss
from dropclass_deploy.training.parallel.processes import Processes
from dropclass_deploy.training.runs.run import METRICS


class Journal:
    """Appends records; on resuming, those after the checkpoint are dropped first, so that no step stands twice."""

    def __init__(self, folder: Path, start: int, *, enabled: bool = True) -> None:
        self._path = folder / METRICS
        self._enabled = enabled
        if enabled:
            write_text(self._path, "".join(line + "\n" for line in _lines_up_to(self._path, start)))

    def write(self, record: dict[str, Any]) -> None:
        """Append one record."""
        if self._enabled:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record, allow_nan=False) + "\n")

    def sync(self) -> None:
        """Bring what was written to the disk: a checkpoint must not know of steps that the journal may lose."""
        if self._enabled:
            with self._path.open("rb") as stream:
                os.fsync(stream.fileno())

    def records(self, kind: str) -> list[dict[str, Any]]:
        """All records of a kind so far, those of before a resume included."""
        return [record for record in read_journal(self._path) if record.get("kind") == kind]


def _lines_up_to(path: Path, step: int) -> list[str]:
    return [json.dumps(record) for record in read_journal(path) if record.get("step", 0) <= step]


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a ``metrics.jsonl``; a line that a kill cut short is left out, a missing file is empty."""
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


class Meter:
    """Means of the loss terms, images a second and the share of time spent waiting for data, since the last flush.

    The terms are summed where they are: reading them would make a GPU wait at each step. The share is that of the process
    that waits most, for the others wait for it. On CUDA, ``memory_gib`` is the most that torch ever held on the device.

    Args:
        batch_size: images of a step, over all processes.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._sums: dict[str, Any] = {}
        self._dropped: int | None = None
        self._clear()

    def restart(self) -> None:
        """Leave out the time since the last step (validation, saving) from the rates."""
        self._mark = time.perf_counter()

    def data_ready(self) -> None:
        """Called when a batch has arrived."""
        now = time.perf_counter()
        self._waiting += now - self._mark
        self._busy += now - self._mark
        self._mark = now

    def add(self, loss: StepLoss) -> None:
        """Count a finished step."""
        for name, value in {"loss": loss.total.detach(), **loss.terms}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.double()
        self._dropped = loss.dropped
        self._steps += 1
        self._timed += 1
        now = time.perf_counter()
        self._busy += now - self._mark
        self._mark = now

    def flush(self, step: int, steps: int, lr: float, processes: Processes) -> dict[str, Any]:
        """The record of the steps since the last flush; loss terms are those of all processes' images."""
        count = max(1, self._steps) * processes.count
        sums = self._totals(processes)
        # The rates are clocked when the device has done its work, which reading the sums has waited for.
        now = time.perf_counter()
        busy = max(self._busy + now - self._mark, 1e-9)
        record = {
            "kind": "train",
            "step": step,
            "progress": (step - 1) / steps,
            "lr": lr,
            **{name: value / count for name, value in sums.items()},
            "dropped": self._dropped,
            "images_per_s": self._batch_size * self._timed / busy,
            "data_share": max(processes.gathered(self._waiting / busy)),
            **_memory(processes.device),
        }
        self._clear()
        return record

    def state_dict(self, processes: Processes) -> dict[str, Any]:
        """What the next record will hold of the steps so far, over all processes (all must call it)."""
        return {"sums": self._totals(processes), "steps": self._steps, "dropped": self._dropped}

    def load_state_dict(self, state: dict[str, Any], processes: Processes) -> None:
        """Go on from a checkpoint; the rates begin anew."""
        share = 1.0 if processes.rank == 0 else 0.0
        device = processes.device
        self._sums = {
            name: torch.tensor(share * s, dtype=torch.float64, device=device) for name, s in state["sums"].items()
        }
        self._steps, self._dropped = state["steps"], state["dropped"]

    def _totals(self, processes: Processes) -> dict[str, float]:
        if not self._sums:
            return {}
        totals = processes.total(torch.stack([torch.as_tensor(value) for value in self._sums.values()]))
        return dict(zip(self._sums, totals.tolist(), strict=True))

    def _clear(self) -> None:
        self._sums = {}
        self._steps = self._timed = 0
        self._dropped = None
        self._waiting = 0.0
        self._busy = 0.0
        self._mark = time.perf_counter()


def _memory(device: torch.device) -> dict[str, float]:
    if device.type != "cuda":
        return {}
    return {"memory_gib": torch.cuda.max_memory_allocated(device) / 2**30}
