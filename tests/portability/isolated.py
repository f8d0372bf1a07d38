"""Run an example as somebody would who has the artifact and not this package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples" / "embed"

# A None in sys.modules makes every import of that name fail; the package is installed where the tests run.
_ALONE = (
    "import runpy, sys; sys.modules.update(dropclass_deploy=None, torch=None, onnx=None); "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


def run_alone(folder: Path, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``examples/embed/SCRIPT`` in ``folder`` where dropclass_deploy, torch and onnx cannot be imported."""
    command = [sys.executable, "-I", "-c", _ALONE, str(EXAMPLES / script), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
