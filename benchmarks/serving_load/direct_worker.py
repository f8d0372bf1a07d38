"""The segmenter without a server, in a process of its own: bytes to PNG, so many times as each line of input says.

python -m serving_load.direct_worker ARTIFACT IMAGE
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from dropclass_deploy.data.images import encode_png
from dropclass_deploy.serving.segmenter import Segmenter
from serving_load.server_process import child_environment, cpu_seconds, module_command


class DirectWorker:
    """The process as its parent sees it; a context manager, inside which the network is open."""

    def __init__(self, artifact: Path, image: Path) -> None:
        self._command = module_command("direct_worker", str(artifact), str(image))

    def __enter__(self) -> DirectWorker:
        self._child = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=child_environment()
        )
        self._process = psutil.Process(self._child.pid)
        return self

    def __exit__(self, *_: object) -> None:
        # The end of its input ends it.
        self._child.communicate()

    def segment(self, count: int) -> None:
        """So many images, one after another.

        Raises:
            RuntimeError: when the process has ended; it said why on standard error.
        """
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.stdin.write(f"{count}\n")
            self._child.stdin.flush()
        except BrokenPipeError as error:
            raise RuntimeError("the direct worker has ended") from error
        if self._child.stdout.readline().strip() != str(count):
            raise RuntimeError("the direct worker has ended")

    def cpu_s(self) -> float:
        """CPU seconds so far."""
        return cpu_seconds(self._process)


def main(artifact: Path, image: Path) -> None:
    """Until the input ends."""
    encoded = image.read_bytes()
    with Segmenter.load(artifact) as segmenter:
        for line in sys.stdin:
            for _ in range(int(line)):
                encode_png(segmenter.segment_bytes(encoded).mask)
            print(line.strip(), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
