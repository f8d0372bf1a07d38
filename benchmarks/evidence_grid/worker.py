"""The process of one cell: train, evaluate, store, tidy up. ``fill`` starts it; nobody types it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from dropclass_deploy.core.errors import DropclassError, TrainingInterruptedError, UserError, printable
from dropclass_deploy.core.progress import Advance
from evidence_grid.cell import run_cell
from evidence_grid.job import Job
from evidence_grid.parts import forget
from evidence_grid.root import Root
from evidence_grid.store import Store

DONE, FAILED, MISTAKE, STOPPED = 0, 1, 2, 75
"""Exit codes; the last is the system's own for "try again later"."""


@dataclass(frozen=True)
class Task:
    """What the process is told, as JSON on its command line.

    Attributes:
        root: the checkout with the store.
        job: what is trained.
        folder: of the run.
        threads: of one operator.
        keep_run: whether the run folder stays.
    """

    root: str
    job: Job
    folder: str
    threads: int
    keep_run: bool

    def to_json(self) -> str:
        """One argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Task:
        """What ``to_json`` wrote."""
        content = json.loads(text)
        return cls(**content | {"job": Job(**content["job"])})


class LogReporter:
    """A reporter whose lines go to standard output, which is the cell's log."""

    def note(self, text: str) -> None:
        """A line."""
        print(text, flush=True)

    @contextmanager
    def phase(self, title: str) -> Iterator[Advance]:
        """A line at each tenth of the work."""
        said = 0

        def advance(done: int, total: int, status: str = "", /) -> None:
            nonlocal said
            if 10 * done // max(1, total) > said:
                said = 10 * done // total
                print(f"{title}: {done} of {total}  {status}".rstrip(), flush=True)

        yield advance


def work(task: Task) -> None:
    """Fill one cell of the store."""
    torch.set_num_threads(task.threads)
    folder = Path(task.folder)
    content = run_cell(task.job, folder, LogReporter())
    # From here on it is a matter of milliseconds, and half of it would leave a folder that nobody needs.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Store(Root(Path(task.root)).results).write(task.job, content)
    if not task.keep_run:
        # The cell is stored: what cannot be tidied away is no failure.
        shutil.rmtree(folder, ignore_errors=True)
        forget(folder)


def end_with_parent() -> None:
    """From now on the end of standard input, which the parent holds open, is taken for SIGTERM: no orphan trains on."""

    def watch() -> None:
        # Not sys.stdin: its lock would be held when the interpreter shuts down.
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    """Work; the last line of the log says what went wrong."""
    try:
        work(Task.from_json(sys.argv[1]))
    except DropclassError as error:
        print(printable(str(error)), flush=True)
        stopped = isinstance(error, TrainingInterruptedError)
        return STOPPED if stopped else MISTAKE if isinstance(error, UserError) else FAILED
    return DONE


if __name__ == "__main__":
    end_with_parent()
    sys.exit(main())
