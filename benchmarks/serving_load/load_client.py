"""The client's process: an open loop at a fixed rate, or one request after another; every request is written down.

    python -m serving_load.load_client PLAN      the plan as JSON; the records as JSON on standard output

An open loop sends when it meant to, whatever the server does: a closed one would wait for a slow server and so spare it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from serving_load import pictures
from serving_load.figures import send_times
from serving_load.plain_http import Address, Connection, NoAnswerError, request_bytes
from serving_load.server_process import child_environment, module_command

OPEN, SEQUENTIAL = "open", "sequential"
NO_ANSWER = 0
"""In a status's place."""
IDLE_S = 1.0
"""For which an unused connection is kept: well below the time after which a server ends one at its own moment."""


@dataclass(frozen=True)
class LoadPlan:
    """What a client does.

    Attributes:
        host, port: of the server.
        mode: ``OPEN`` or ``SEQUENTIAL``.
        requests: of a sequential client.
        rate: requests a second of an open loop.
        duration_s: of an open loop.
        connections: at most; an open loop that needs more sends late, and the lag shows it.
        timeout_s: after which a request counts as unanswered.
    """

    host: str
    port: int
    mode: str
    requests: int = 0
    rate: float = 0.0
    duration_s: float = 0.0
    connections: int = 200
    timeout_s: float = 30.0


@dataclass
class Record:
    """One request; times in seconds since the client began.

    Attributes:
        intended_s: when it was to be sent. sent_s: when it was. done_s: when its answer was whole.
        status: of the answer, or ``NO_ANSWER``.
        retry_after: whether the answer had that header.
        problem: why there is no answer.
    """

    intended_s: float
    sent_s: float = 0.0
    done_s: float = 0.0
    status: int = NO_ANSWER
    retry_after: bool = False
    problem: str = ""


class LoadClient:
    """Sends tiny images over a pool of kept-alive connections.

    Attributes:
        records: of all requests, in their intended order.
    """

    def __init__(self, plan: LoadPlan) -> None:
        self._plan, self._address = plan, Address(plan.host, plan.port)
        self._request = request_bytes(self._address, pictures.tiny())
        self._idle: list[tuple[Connection, float]] = []
        self._free = asyncio.Semaphore(plan.connections)
        self._zero = time.perf_counter()
        self.records: list[Record] = []

    async def run(self) -> None:
        """All of the plan."""
        plan = self._plan
        if plan.mode == SEQUENTIAL:
            for _ in range(plan.requests):
                await self._one(self._now())
            return
        self._zero = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for intended in send_times(plan.rate, plan.duration_s):
                # Also when it is late already: answers that have come must be read.
                await asyncio.sleep(max(0.0, intended - self._now()))
                tasks.create_task(self._one(intended))

    async def _one(self, intended_s: float) -> None:
        record = Record(intended_s)
        self.records.append(record)
        async with self._free:
            try:
                await self._answered(record)
            except (NoAnswerError, OSError) as error:
                record.problem = str(error) or type(error).__name__
        record.done_s = self._now()

    async def _answered(self, record: Record) -> None:
        connection = self._taken() or await Connection.open(self._address)
        record.sent_s = self._now()
        answer = await connection.ask(self._request, self._plan.timeout_s)
        record.status, record.retry_after = answer.status, "retry-after" in answer.headers
        self._idle.append((connection, self._now()))

    def _taken(self) -> Connection | None:
        """The connection used last, if any is fit; so there is no need to send a request again, which would hide a loss."""
        while self._idle:
            connection, since_s = self._idle.pop()
            if connection.usable and self._now() - since_s < IDLE_S:
                return connection
            connection.close()
        return None

    def _now(self) -> float:
        return time.perf_counter() - self._zero

    async def close(self) -> None:
        """The connections."""
        for connection, _ in self._idle:
            await connection.ended()


@dataclass(frozen=True)
class LoadResult:
    """What a client's process wrote down.

    Attributes:
        records: of all requests.
        busy: share of the client's wall time that it used a CPU; near 1, its latencies are its own.
    """

    records: list[Record]
    busy: float


def run_client(plan: LoadPlan) -> LoadResult:
    """Carry a plan out in a process of its own."""
    done = subprocess.run(
        module_command("load_client", json.dumps(asdict(plan))),
        stdout=subprocess.PIPE,
        env=child_environment(),
        check=True,
        timeout=plan.duration_s + plan.requests + 2 * plan.timeout_s + 60,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return LoadResult([Record(**record) for record in found["records"]], found["busy"])


async def _main(plan: LoadPlan) -> None:
    client = LoadClient(plan)
    cpu, wall = time.process_time(), time.perf_counter()
    await client.run()
    busy = (time.process_time() - cpu) / (time.perf_counter() - wall)
    await client.close()
    records = [asdict(record) for record in client.records]
    json.dump({"records": records, "busy": busy}, sys.stdout)


if __name__ == "__main__":
    asyncio.run(_main(LoadPlan(**json.loads(sys.argv[1]))))
