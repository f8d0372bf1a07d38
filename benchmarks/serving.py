"""A running server's cost, its behaviour under overload, its memory and its faults.

    python benchmarks/serving.py cpu ARTIFACT --image FILE     CPU seconds a request against the segmenter called directly
    python benchmarks/serving.py overload                      four times the load that a network of 20 ms can carry
    python benchmarks/serving.py memory ARTIFACT               resident memory over 10,000 requests of mixed sizes
    python benchmarks/serving.py faults ARTIFACT               SIGTERM, clients that leave or crawl, a bomb, the start
    python benchmarks/serving.py report                        the tables of docs/serving.md

Each writes benchmarks/results/serving/NAME.json. Exit codes: 0 success, 3 a bar that was missed, 2 a mistake in what was
given, 1 a measurement that failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from argument_types import count, positive
from serving_load import cpu, faults, memory, overload, report
from serving_load.outcome import Outcome, environment_now, store

from dropclass_deploy.core.errors import DropclassError, UserError

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "serving"
DOCUMENT = ROOT / "docs" / "serving.md"
OK, FAILED, MISTAKE, MISSED = 0, 1, 2, 3


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="of the JSON files")
    actions = made.add_subparsers(dest="action", required=True)
    one = actions.add_parser("cpu", help="CPU seconds a request")
    one.add_argument("artifact", type=Path)
    one.add_argument("--image", type=Path, required=True, help="file that every request sends")
    one.add_argument("--requests", type=count, default=500, help="of each side (default 500)")
    one.add_argument("--blocks", type=count, default=10, help="turns of each side (default 10)")
    one = actions.add_parser("overload", help="four times the capacity")
    one.add_argument("--seconds", type=positive, default=20.0, help="of the overload (default 20)")
    one.add_argument("--unloaded", type=count, default=300, help="requests before it (default 300)")
    one = actions.add_parser("memory", help="resident memory over many requests")
    one.add_argument("artifact", type=Path)
    one.add_argument("--requests", type=count, default=10_000)
    one.add_argument("--sample-every", type=count, default=250, help="requests (default 250)")
    one = actions.add_parser("faults", help="signals, bad clients, start")
    one.add_argument("artifact", type=Path)
    one.add_argument("--starts", type=count, default=5, help="of the server (default 5)")
    one.add_argument("--slow-connections", type=count, default=50, help="of the slow-loris client (default 50)")
    one.add_argument("--header-timeout-s", type=positive, default=3.0, help="the server's meanwhile (default 3)")
    one.add_argument("--disconnects", type=count, default=25, help="rounds of eight (default 25)")
    one = actions.add_parser("report", help="write the tables")
    one.add_argument("--document", type=Path, default=DOCUMENT)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for; the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    given = parser().parse_args(words)
    try:
        if given.action == "report":
            changed = report.write(given.document, given.results)
            print(f"{given.document.name}: {'written' if changed else 'nothing new'}")
            return OK
        environment = environment_now()
        outcome = MEASUREMENTS[given.action](given)
        store(given.results / f"{given.action}.json", _command(given), environment, outcome)
    except (DropclassError, RuntimeError) as error:
        sys.stderr.write(f"serving: {error}\n")
        return MISTAKE if isinstance(error, UserError) else FAILED
    for bar in outcome.bars:
        print(f"{'met   ' if bar.met else 'MISSED'} {bar.what}: {bar.value} (expected {bar.expected})")
    return OK if outcome.met else MISSED


def _cpu(given: argparse.Namespace) -> Outcome:
    return cpu.measure(cpu.CpuOptions(given.artifact, given.image, given.requests, given.blocks))


def _overload(given: argparse.Namespace) -> Outcome:
    return overload.measure(overload.OverloadOptions(duration_s=given.seconds, unloaded=given.unloaded))


def _memory(given: argparse.Namespace) -> Outcome:
    return memory.measure(memory.MemoryOptions(given.artifact, given.requests, given.sample_every))


def _faults(given: argparse.Namespace) -> Outcome:
    options = faults.FaultOptions(
        given.artifact,
        starts=given.starts,
        slow_connections=given.slow_connections,
        header_timeout_s=given.header_timeout_s,
        disconnects=given.disconnects,
    )
    return faults.measure(options)


MEASUREMENTS: dict[str, Callable[[argparse.Namespace], Outcome]] = {
    "cpu": _cpu,
    "overload": _overload,
    "memory": _memory,
    "faults": _faults,
}


def _command(given: argparse.Namespace) -> str:
    """What repeats the measurement; paths as words, for they are somebody's own."""
    words = ["python benchmarks/serving.py", given.action]
    for name, value in vars(given).items():
        if name == "artifact":
            words.append("ARTIFACT")
        elif name not in ("action", "results"):
            words.append(f"--{name.replace('_', '-')} {'FILE' if isinstance(value, Path) else value}")
    return " ".join(words)


if __name__ == "__main__":
    sys.exit(main())
