"""Before anything imports torch: one thread an operator; before anything imports Triton: its interpreter, without a GPU.

The tests' networks are tiny: a second thread costs more in waiting than it computes, above all on a busy machine. Triton
asks once, when it is first imported (torch.compile does that too), whether its kernels are to be interpreted on the CPU.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from importlib.util import find_spec

os.environ.setdefault("OMP_NUM_THREADS", "1")
# What the mask doctor learns about the tests' files stays out of the user's cache.
os.environ["DROPCLASS_CACHE"] = tempfile.mkdtemp(prefix="dropclass-cache-")
atexit.register(shutil.rmtree, os.environ["DROPCLASS_CACHE"], ignore_errors=True)

if find_spec("torch"):
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")
