"""Before anything imports torch: one thread an operator.

The tests' networks are tiny: a second thread costs more in waiting than it computes, above all on a busy machine.
"""

from __future__ import annotations

import os
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
# What the mask doctor learns about the tests' files stays out of the user's cache.
os.environ["DROPCLASS_CACHE"] = tempfile.mkdtemp(prefix="dropclass-cache-")
