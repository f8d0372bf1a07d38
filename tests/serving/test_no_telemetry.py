"""Nothing is reported to anybody: not by OpenVINO, not by NNCF, not at import and not at work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from serving_builders import conv_weights, save_logits

SCRIPT = """
import socket, sys
def refused(*arguments, **options):
    print("CONNECTED", arguments[:2])
    raise OSError("no network here")
socket.socket.connect = refused
socket.getaddrinfo = refused
import numpy as np
from dropclass_deploy.serving.runtimes import open_runtime
with open_runtime(sys.argv[1], "openvino") as runtime:
    runtime.run({runtime.inputs[0].name: np.zeros((1, 3, 32, 32), np.float32)})
from dropclass_deploy.export.graphs import load
from dropclass_deploy.export.quantise.static import quantised
from pathlib import Path
quantised(load(Path(sys.argv[1])), [np.zeros((1, 3, 32, 32), np.float32)] * 2, "nncf mixed")
print("quantised", "openvino_telemetry" in sys.modules)
"""


@pytest.mark.slow
def test_no_engine_reports_its_use(tmp_path: Path) -> None:
    """In a process of its own: NNCF keeps silent under pytest, and would here without reason."""
    network = save_logits(tmp_path / "model.onnx", conv_weights())
    home = tmp_path / "home"
    home.mkdir()
    hidden = ("PYTEST", "NNCF", "CI")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(hidden)} | {"HOME": str(home)}
    given = [sys.executable, "-c", SCRIPT, str(network)]
    result = subprocess.run(given, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.stdout.strip().splitlines()[-1] == "quantised False", result.stderr[-800:]
    assert "CONNECTED" not in result.stdout
    assert not (home / "intel").exists()
