from __future__ import annotations

import subprocess
import sys

import pytest

import dropclass_deploy.data as data
from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data.registry import FORMATS


@pytest.mark.parametrize("spec", ["", "camvid", "/some/path"])
def test_a_missing_colon_is_explained(spec: str) -> None:
    with pytest.raises(DataError, match=f"has no colon; expected FORMAT:PATH.*{', '.join(FORMATS)}"):
        data.open_dataset(spec)


@pytest.mark.parametrize("spec", ["nifti:x", "C:\\data", ":x", "Folder:x"])
def test_an_unknown_format_lists_the_known(spec: str) -> None:
    with pytest.raises(DataError, match=f"unknown format.*{', '.join(FORMATS)}"):
        data.open_dataset(spec)


def test_the_public_names_exist() -> None:
    assert all(hasattr(data, name) for name in data.__all__)
    assert {"Dataset", "open_dataset", "count_classes", "median_frequency_weights"} <= set(data.__all__)


def test_reading_data_imports_no_torch() -> None:
    code = "import sys, dropclass_deploy.data; sys.exit('torch' in sys.modules or 'torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
