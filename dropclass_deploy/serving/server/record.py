"""What is written down of one request while it is answered."""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from dropclass_deploy.serving.server.hosting import HostedModel

_KEY = "dropclass.record"
# A number of the process and one of the request: as unique as drawing 16 bytes a request, and no system call.
_PROCESS, _COUNT = secrets.token_hex(8), itertools.count()
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass
class Record:
    """One request.

    Attributes:
        request_id: the client's own when it is plain text of at most 64 signs, else a new one.
        model: asked for, once that is known.
        stages_ms: by stage: decode, queue, preprocess, infer, mask, encode.
        images: in the request.
        began: ``time.perf_counter()`` at its arrival.
    """

    request_id: str
    model: HostedModel | None = None
    stages_ms: dict[str, float] = field(default_factory=dict)
    images: int = 0
    began: float = field(default_factory=time.perf_counter)

    @property
    def elapsed_s(self) -> float:
        """Since the request's arrival."""
        return time.perf_counter() - self.began

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Clock a stage, waiting for a free thread included."""
        began = time.perf_counter()
        yield
        self.stages_ms[name] = self.stages_ms.get(name, 0.0) + 1e3 * (time.perf_counter() - began)


def begin_record(scope: MutableMapping[str, Any], given_id: str | None) -> Record:
    """A new record in an ASGI scope."""
    own = given_id if given_id is not None and _REQUEST_ID.fullmatch(given_id) else f"{_PROCESS}{next(_COUNT):08x}"
    scope[_KEY] = Record(own)
    return cast(Record, scope[_KEY])


def record_of(scope: Mapping[str, Any]) -> Record:
    """The record of the request of an ASGI scope."""
    return cast(Record, scope[_KEY])
