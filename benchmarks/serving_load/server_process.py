"""A server in a process of its own: started, watched from outside, ended."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import psutil

import dropclass_deploy
from serving_load.plain_http import READY, Address, Client

SERVE: tuple[str, ...] = (sys.executable, "-P", "-m", "dropclass_deploy", "serve")
"""The command that serves artifacts."""
_LISTENS = re.compile(r"^serving .* on https?://(\S+):(\d+)", re.MULTILINE)
# The modules that a child must import: ours, and the package that this process runs.
_IMPORTED = (Path(__file__).parents[1], Path(dropclass_deploy.__file__).parents[1])
_POLL_S = 0.005


class ServerFailedError(RuntimeError):
    """A server that did not start, with the end of what it wrote."""


def serve_command(artifact: Path, settings: Mapping[str, object]) -> list[str]:
    """``dropclass serve`` of an artifact on a free port."""
    pairs = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    return [*SERVE, str(artifact), "--port", "0", *pairs]


def module_command(module: str, *arguments: str) -> list[str]:
    """One of this folder's modules in a process of its own."""
    return [sys.executable, "-P", "-m", f"serving_load.{module}", *arguments]


def child_environment() -> dict[str, str]:
    """For processes that import what this one does."""
    paths = [*map(str, _IMPORTED), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time, user and system, of a process and of those it has started, ended ones included."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        times = one.cpu_times()
        total += times.user + times.system
    ended = process.cpu_times()
    return total + float(ended.children_user + ended.children_system)


class ServerProcess:
    """A context manager; inside, the server is ready.

    Attributes:
        address: where it listens.
        ready_after_s: from the start of the process to the first 200 of the readiness route.
    """

    address: Address
    ready_after_s: float

    def __init__(self, command: Sequence[str], timeout_s: float = 60.0) -> None:
        self._command, self._timeout_s = list(command), timeout_s
        self._files = ExitStack()

    def __enter__(self) -> ServerProcess:
        began = time.monotonic()
        # Files, not pipes: a pipe that nobody reads would stop the server.
        self._output: IO[bytes] = self._files.enter_context(tempfile.TemporaryFile())
        self._errors: IO[bytes] = self._files.enter_context(tempfile.TemporaryFile())
        self._child = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._errors,
            env=child_environment(),
            # Ctrl-C is for the measurement, which ends the server itself.
            start_new_session=True,
        )
        self.process = psutil.Process(self._child.pid)
        try:
            self._wait_ready(began + self._timeout_s)
        except BaseException:
            self.__exit__()
            raise
        self.ready_after_s = time.monotonic() - began
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.wait()
        self._files.close()

    def _wait_ready(self, last: float) -> None:
        while (found := _LISTENS.search(self.errors())) is None:
            self._pause(last)
        self.address = Address(found[1].strip("[]"), int(found[2]))
        while not self._answers_ready():
            self._pause(last)

    def _answers_ready(self) -> bool:
        try:
            with Client(self.address, timeout_s=5) as client:
                return client.get(READY).status == 200
        except OSError:
            return False

    def _pause(self, last: float) -> None:
        if self._child.poll() is not None:
            raise ServerFailedError(f"the server ended with {self._child.returncode}: {self.errors()[-600:].strip()}")
        if time.monotonic() > last:
            raise ServerFailedError(f"the server was not ready after {self._timeout_s:g} s: {self.errors()[-600:]}")
        time.sleep(_POLL_S)

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._child.poll() is None

    def output(self) -> str:
        """What it has written to its standard output."""
        return self._read(self._output)

    def errors(self) -> str:
        """What it has written to its standard error."""
        return self._read(self._errors)

    def cpu_s(self) -> float:
        """CPU seconds so far."""
        return cpu_seconds(self.process)

    def rss_kib(self) -> float:
        """Resident memory now, KiB, with that of its children."""
        everyone = (self.process, *self.process.children(recursive=True))
        return sum(one.memory_info().rss for one in everyone) / 1024

    def mapped_files(self) -> set[str]:
        """Paths of the files that are mapped into its memory, shared libraries among them."""
        lines = Path(f"/proc/{self.process.pid}/maps").read_text(encoding="utf-8").splitlines()
        fields = (line.split(maxsplit=5) for line in lines)
        return {parts[5] for parts in fields if len(parts) == 6 and parts[5].startswith("/")}

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._child.terminate()

    def wait(self, timeout_s: float) -> int | None:
        """The exit code, or None when it is still running by then."""
        try:
            return self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def _read(self, stream: IO[bytes]) -> str:
        # pread: the child writes through the same file offset.
        size = os.fstat(stream.fileno()).st_size
        return os.pread(stream.fileno(), size, 0).decode("utf-8", "replace")
