from __future__ import annotations

import subprocess
import sys

import dropclass_deploy.serving as serving


def test_public_names() -> None:
    assert {"Segmenter", "Segmentation", "verify", "ParityReport", "bench"} <= set(serving.__all__)
    assert all(hasattr(serving, name) for name in serving.__all__)


def test_importing_serving_imports_neither_torch_nor_a_runtime() -> None:
    code = (
        "import sys, dropclass_deploy.serving\n"
        "heavy = {'torch', 'onnxruntime', 'onnx', 'matplotlib', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
