"""The tests' own folder is importable, as a user's is: ``python:factories_for_tests:tiny``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
