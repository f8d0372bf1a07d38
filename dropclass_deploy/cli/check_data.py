"""``dropclass check-data``: the mask doctor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dropclass_deploy.cli.console import ConsoleReporter, print_json, print_line, print_table
from dropclass_deploy.cli.options import Json
from dropclass_deploy.core.errors import DropclassError, UserError
from dropclass_deploy.core.files import write_json
from dropclass_deploy.core.metrics import percent
from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.data.doctor.checks.duplicates import UNIONS
from dropclass_deploy.data.doctor.examine import examine, examine_datasets
from dropclass_deploy.data.doctor.fix_file import write_fix_map
from dropclass_deploy.data.doctor.report import KIND, Report
from dropclass_deploy.data.doctor.shares import ClassShare
from dropclass_deploy.data.layout import Layout
from dropclass_deploy.data.registry import open_dataset, survey
from dropclass_deploy.data.synthetic import SPLITS

REPORT, CHART = "report.json", "classes.png"
_FIRST = ("train", "val")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check-data", epilog="Example: dropclass check-data folder:my/data --fix-map -o data-check")(check_data)


def check_data(
    data: Annotated[str, typer.Argument(metavar="FORMAT:PATH", help="Data, for example camvid:data/camvid")],
    split: Annotated[list[str] | None, typer.Option("--split", help="A split, repeatable; default: every one.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the chart and report.json.")] = Path(
        "data-check"
    ),
    fix_map: Annotated[bool, typer.Option("--fix-map", help="Propose a classes.yaml in the output folder.")] = False,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Read every file again.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings end with exit code 2 too.")] = False,
    as_json: Json = False,
) -> None:
    """Look for what is wrong with images and masks, and show how often each class occurs.

    Ends with exit code 2 when training on the data would fail or silently learn something else.
    """
    reporter = ConsoleReporter()
    report = _examine(data, split, reporter, cached=not no_cache)
    charted = _write(report, output, reporter)
    proposed = _fix_map(report, output, reporter) if fix_map else None
    if as_json:
        print_json(report.to_json() | {"output": str(output), "fix_map": str(proposed) if proposed else None})
    else:
        _print(report, output, charted)
    report.raise_for_errors(strict=strict)


def _examine(spec: str, splits: list[str] | None, reporter: Reporter, *, cached: bool) -> Report:
    layout = survey(spec)
    if layout is None:
        return examine_datasets([open_dataset(spec, name) for name in splits or SPLITS], reporter)
    return examine(layout, splits or _default_splits(layout), reporter, cached=cached)


def _default_splits(layout: Layout) -> list[str]:
    """Every split, train and val first, without those that are made of others (unless there are no others)."""
    names = [name for name in layout.splits if name not in UNIONS] or list(layout.splits)
    return sorted(names, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name))


def _write(report: Report, folder: Path, reporter: Reporter) -> bool:
    """report.json and, where there are classes to draw, the chart; whether there is one."""
    _refuse_foreign(folder)
    write_json(folder / REPORT, report.to_json())
    # A chart of an earlier run would belong to another report.
    (folder / CHART).unlink(missing_ok=True)
    if not report.statistics:
        return False
    from dropclass_deploy.data.doctor.chart import write_chart

    try:
        write_chart(report, folder / CHART)
    except DropclassError as error:
        reporter.note(f"no chart: {error}")
        return False
    return True


def _refuse_foreign(folder: Path) -> None:
    """A report of ours may be replaced, files of the same names that are none may not."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"the output {folder} is a file", expected="a folder", remedy="choose another with -o")
    taken = [folder / name for name in (REPORT, CHART) if (folder / name).exists()]
    if taken and not _is_ours(folder / REPORT):
        raise UserError(
            f"the output {taken[0]} exists and is no report of ours", remedy="choose another folder with -o"
        )


def _is_ours(path: Path) -> bool:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("kind") == KIND


def _fix_map(report: Report, folder: Path, reporter: Reporter) -> Path | None:
    if report.evidence is None:
        reporter.note(f"no classes.yaml is proposed: {report.spec} has no files")
        return None
    path = write_fix_map(report.evidence, folder)
    reporter.note(f"proposed class table: {path} (check it, then use it: dropclass check-data folder:{path})")
    return path


def _print(report: Report, folder: Path, charted: bool) -> None:
    if report.classes is not None and report.statistics:
        _print_shares(report)
    for finding in report.findings:
        print_line(f"{finding.severity}: {finding}")
    counts = ", ".join(
        f"{len(found)} {name}{'' if len(found) == 1 else 's'}"
        for name, found in (("error", report.errors), ("warning", report.warnings), ("note", report.notes))
    )
    print_line(f"{counts}; {REPORT}{f' and {CHART}' if charted else ''} in {folder}")


def _print_shares(report: Report) -> None:
    """The table of shares, one row a class, two columns a split; then which classes are rare."""
    shares = {split: report.shares(split) for split in report.statistics}
    columns = ["class", *(f"{split} {what}" for split in shares for what in ("pixels %", "images %")), "weight"]
    rows = [_row(list(of_class)) for of_class in zip(*shares.values(), strict=True)]
    images = ", ".join(f"{split} {stats.num_images} images" for split, stats in report.statistics.items())
    print_table(f"{report.spec}: {images}", columns, rows)
    rare = ", ".join(row.name for row in next(iter(shares.values())) if row.rare) or "none"
    print_line(f"rare classes: {rare}; weight: median frequency balancing on {next(iter(shares))}")


def _row(shares: list[ClassShare]) -> list[str]:
    name = shares[0].name + (" (rare)" if shares[0].rare else "")
    figures = [percent(value, 2) for share in shares for value in (share.pixel_share, share.image_share)]
    return [name, *figures, f"{shares[0].weight:.3f}"]
