"""The evidence: does a method help? A grid of training runs, data × setting × seed, each stored by itself.

    python benchmarks/evidence.py                                   what there is, and what is missing
    python benchmarks/evidence.py synthetic --minutes 60 --jobs 2   fill what is missing; the same command goes on
    python benchmarks/evidence.py camvid_small --data camvid_small=camvid:PATH --settings ce ce+block --seeds 0 1
    python benchmarks/evidence.py --cell synthetic/ce/10            repeat a cell and compare it with what is stored
    python benchmarks/evidence.py --report                          tables and curves from what is stored

Grids and settings: benchmarks/evidence.yaml. Stored cells: benchmarks/results/evidence/. Tables: docs/evidence.md.
Exit codes: 0 success, 2 a mistake in what was given, 1 a cell that failed, or a document that --check finds changed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from argument_types import count, positive
from evidence_grid.root import Root

ROOT = Path(__file__).parents[1]
# What only some of the actions use; given without them it would be ignored.
_OF_FILL = ("minutes", "jobs", "settings", "seeds")
_OF_RUNS = ("threads", "device", "runs", "data", "keep_runs")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("grid", nargs="?", help="the grid to fill; without it all grids are listed")
    made.add_argument("--cell", metavar="GRID/SETTING/SEED", help="repeat this cell in a new folder")
    made.add_argument("--store", action="store_true", help="with --cell: store the new figures")
    made.add_argument("--report", action="store_true", help="write the tables and curves")
    made.add_argument(
        "--check", action="store_true", help="with --report: write nothing, exit 1 when something differs"
    )
    made.add_argument("--minutes", type=positive, help="the time budget; none means until all is done")
    made.add_argument("--jobs", type=count, help="cells at a time (default 1)")
    made.add_argument("--settings", nargs="+", metavar="SETTING", help="only these")
    made.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="only these")
    made.add_argument("--threads", type=count, help="of one cell (default 1; with --cell those of the stored one)")
    made.add_argument("--device", metavar="auto|cpu|cuda|cuda:N", help="default auto")
    made.add_argument("--runs", type=Path, metavar="FOLDER", help="of the run folders (default runs/evidence)")
    made.add_argument("--data", metavar="GRID=FORMAT:PATH", action="append", help="where a grid's data lie")
    made.add_argument("--keep-runs", action="store_true", default=None, help="leave finished run folders")
    made.add_argument("--root", type=Path, default=ROOT, help="checkout with plan, stored cells and documents")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for; the exit code."""
    command = parser()
    given = command.parse_args(arguments)
    _refuse_idle(command, given)
    if given.threads is not None or given.cell is None:
        # Before torch is imported; the children get their own.
        os.environ.setdefault("OMP_NUM_THREADS", str(given.threads or 1))
    from evidence_grid import actions

    from dropclass_deploy.core.errors import DropclassError, UserError

    root = Root(given.root.resolve())
    try:
        if given.report:
            return actions.report(root, check=given.check)
        if given.cell is None and given.grid is None:
            return actions.show(root)
        asked = actions.Asked(
            runs=given.runs or root.runs,
            minutes=given.minutes,
            jobs=given.jobs or 1,
            threads=given.threads,
            device=given.device or "auto",
            data=tuple(given.data or ()),
            keep_runs=bool(given.keep_runs),
        )
        if given.cell is not None:
            return actions.repeat(root, given.cell, asked, store=given.store)
        return actions.fill(root, given.grid, asked, given.settings or (), given.seeds or ())
    except DropclassError as error:
        sys.stderr.write(f"evidence: {error}\n")
        return 2 if isinstance(error, UserError) else 1
    except KeyboardInterrupt:
        sys.stderr.write("evidence: interrupted\n")
        return 1


def _refuse_idle(command: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Refuse what would be ignored."""
    if sum([given.grid is not None, given.cell is not None, given.report]) > 1:
        command.error("a grid, --cell and --report exclude one another")
    runs = given.grid is not None or given.cell is not None
    needed = [(name, given.grid is not None, "a grid") for name in _OF_FILL]
    needed += [(name, runs, "a grid or --cell") for name in _OF_RUNS]
    needed += [("store", given.cell is not None, "--cell"), ("check", given.report, "--report")]
    for name, there, what in needed:
        if getattr(given, name) not in (None, False) and not there:
            command.error(f"--{name.replace('_', '-')} needs {what}")


if __name__ == "__main__":
    sys.exit(main())
