"""One engine on one file in a process of its own: a crash, a hang or a hunger for memory is a result, not an accident."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from portability_engines.outcome import one_line

TIMEOUT_S = 300
MEMORY_GIB = 8
"""Of private memory that is written to: browsers reserve far more than they use, and that is not counted."""

ERROR, RAN, BUILT = "error", "ran", "built"


@dataclass(frozen=True)
class Answer:
    """What came back from the process.

    Attributes:
        kind: ``RAN`` (with a mask), ``BUILT`` (without one) or ``ERROR`` (``text`` says why).
        version: of the engine, "" when it did not come so far.
        text: the engine's note, or the error in one line.
        seconds: the process took, start and loading included.
    """

    kind: str
    version: str
    text: str
    seconds: float
    mask: npt.NDArray[Any] | None = None


def ask(engine: str, model: Path, images: npt.NDArray[np.uint8], timeout_s: float = TIMEOUT_S) -> Answer:
    """Run ``engine`` on ``model`` in a process of its own, with limits on time and memory."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "images.npy", Path(folder) / "mask.npy"
        np.save(source, images)
        command = [sys.executable, "-m", "portability_engines.worker", engine, str(model), str(source), str(target)]
        begin = time.perf_counter()
        code, output = _run(command, timeout_s)
        seconds = round(time.perf_counter() - begin, 1)
        if code is None:
            return Answer(ERROR, "", f"no answer within {timeout_s:g} s", seconds)
        report = _report(output)
        if report is None:
            return Answer(ERROR, "", f"the process died ({_death(code)})", seconds)
        mask = np.load(target) if target.is_file() else None
    kind = ERROR if report["error"] else BUILT if mask is None else RAN
    return Answer(kind, report["version"], report["error"] or report["note"], seconds, mask)


def _run(command: list[str], timeout_s: float) -> tuple[int | None, str]:
    """Exit code (None: too late) and standard output."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        start_new_session=True,
    )
    # Set from outside: no code of ours runs between fork and exec.
    limit = MEMORY_GIB * 2**30
    resource.prlimit(process.pid, resource.RLIMIT_DATA, (limit, limit))
    try:
        output, _ = process.communicate(timeout=timeout_s)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        # The whole group: a browser is several processes.
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None, ""


def _report(output: str) -> dict[str, str] | None:
    """The worker's last line; libraries may have printed before it."""
    lines = [line for line in output.splitlines() if line.startswith('{"version"')]
    return json.loads(lines[-1]) if lines else None


def _death(code: int) -> str:
    return one_line(signal.Signals(-code).name if code < 0 else f"exit code {code}")
