"""Fixtures of the analysis tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_folders import Folders, build


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return build(tmp_path)
