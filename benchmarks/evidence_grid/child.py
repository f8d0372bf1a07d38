"""A cell's process as its parent sees it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dropclass_deploy
from dropclass_deploy.core.errors import printable
from evidence_grid.plan import Cell
from evidence_grid.worker import Task

# The modules that the child must import: ours, and the package that this process runs.
_IMPORTED = (Path(__file__).parents[1], Path(dropclass_deploy.__file__).parents[1])


@dataclass
class Child:
    """A cell at work.

    Attributes:
        cell: which.
        process: of it.
        log: what the process writes.
        expected_s: how long it is expected to take, or None.
        began: by the parent's clock.
    """

    cell: Cell
    process: subprocess.Popen[bytes]
    log: Path
    expected_s: float | None
    began: float

    def close(self) -> None:
        """Of the pipe to a process that has ended."""
        if self.process.stdin is not None:
            self.process.stdin.close()

    def reason(self) -> str:
        """Of its end, in one line: the log's last."""
        code = self.process.returncode
        if code < 0:
            return f"killed by signal {-code}"
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return printable(lines[-1])[:600] if lines else f"exit code {code}"


def start(task: Task, log: Path) -> subprocess.Popen[bytes]:
    """Start a cell's process; what it writes is appended to its log."""
    paths = [*map(str, _IMPORTED), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": str(task.threads), "PYTHONPATH": os.pathsep.join(paths)}
    with log.open("ab") as stream:
        return subprocess.Popen(
            # -P: what happens to lie in the current folder is not imported.
            [sys.executable, "-P", "-m", "evidence_grid.worker", task.to_json()],
            # Nothing is written: its end tells the child that this process is gone.
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            # Ctrl-C reaches the parent alone, which passes it on once.
            start_new_session=True,
        )


def end(children: Sequence[Child], grace_s: float) -> None:
    """Ask processes to end, and end those that have not when the grace is over, or at Ctrl-C."""
    for child in children:
        child.process.terminate()
    last = time.monotonic() + grace_s
    try:
        for child in children:
            child.process.wait(max(0.0, last - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:
        for child in children:
            child.process.kill()
            child.process.wait()
            child.close()
