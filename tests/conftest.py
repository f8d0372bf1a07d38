"""Before anything imports torch: one thread an operator.

The tests' networks are tiny: a second thread costs more in waiting than it computes, above all on a busy machine.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
