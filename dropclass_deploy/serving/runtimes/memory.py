"""Running out of memory, in the words of the runtimes: none of them has an exception of its own for it."""

from __future__ import annotations

import re

from dropclass_deploy.core.errors import OutOfMemoryError

_WORDS = re.compile(
    r"failed to allocate memory|bad_alloc|out of memory|outofmemory|cannot allocate memory|cudaMalloc", re.IGNORECASE
)


def refuse_out_of_memory(runtime: str, error: BaseException) -> None:
    """Raises OutOfMemoryError when that is what a runtime's error says; an input that is refused is another thing."""
    if isinstance(error, MemoryError) or _WORDS.search(str(error)):
        raise OutOfMemoryError(f"{runtime} ran out of memory") from error
