"""What a person sees: progress and notes on stderr, results on stdout (tables, or one JSON object)."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from dropclass_deploy.core.metrics import percent
from dropclass_deploy.core.progress import Advance

_PLAIN_EVERY_S = 10.0
_SILENCE_S = 30.0


class ConsoleReporter:
    """Progress bars with a remaining time on a terminal, a plain line now and then elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    def note(self, text: str) -> None:
        """A line on stderr."""
        self._console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def phase(self, title: str) -> Iterator[Advance]:
        """A bar, or plain lines."""
        if self._console.is_terminal:
            with _bar(self._console) as progress:
                task = progress.add_task(title, total=None, status="")

                def advance(done: int, total: int, status: str = "", /) -> None:
                    changes: dict[str, Any] = {"status": status} if status else {}
                    progress.update(task, completed=done, total=total, **changes)

                yield advance
        else:
            with _PlainPhase(title, self._console) as phase:
                yield phase


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
        console=console,
    )


class _PlainPhase:
    """A line at the start, every ten seconds, and at the end; a line every half minute where the work itself is silent."""

    def __init__(self, title: str, console: Console) -> None:
        self._title = title
        self._console = console
        self._begin = self._last = time.monotonic()
        self._over = threading.Event()
        self._pulse = threading.Thread(target=self._tell_time, daemon=True)
        console.print(f"{title} …", markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._pulse.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._over.set()
        self._pulse.join()

    def _tell_time(self) -> None:
        """Tracing a large network takes minutes in which nothing can be counted: say that it is still at work."""
        while not self._over.wait(_SILENCE_S):
            if time.monotonic() - self._last >= _SILENCE_S:
                elapsed = time.monotonic() - self._begin
                self._console.print(f"{self._title}: at work for {elapsed:.0f} s", markup=False, soft_wrap=True)

    def __call__(self, done: int, total: int, status: str = "", /) -> None:
        now = time.monotonic()
        if done < total and now - self._last < _PLAIN_EVERY_S:
            return
        self._last = now
        elapsed = now - self._begin
        left = "" if done >= total or not done else f", about {elapsed / done * (total - done):.0f} s left"
        self._console.print(
            f"{self._title}: {done}/{total} after {elapsed:.0f} s{left}{'  ' + status if status else ''}",
            markup=False,
            soft_wrap=True,
        )


class _Output(Console):
    """Stdout, whose reader may go away (``| head``): the command still ends with the exit code of what it found."""

    def __init__(self, width: int | None = None) -> None:
        super().__init__(highlight=False, width=width)

    def on_broken_pipe(self) -> None:
        """Say the rest to nobody; rich would end the process with code 1."""
        leave_stdout()


def leave_stdout() -> None:
    """Point stdout at nothing, so that neither we nor the interpreter's last flush meet the closed pipe again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_json(content: Any) -> None:
    """One JSON object on stdout."""
    try:
        sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        leave_stdout()


def print_line(text: str) -> None:
    """A line on stdout."""
    _Output().print(text, markup=False, soft_wrap=True)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; the first column left, the others right."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = _Output()
    # A pipe has no width of its own; 80 columns would fold figures in the middle.
    if not console.is_terminal:
        console = _Output(width=140)
    console.print(table)


def score_rows(classes: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Rows of a per-class table from ``scores_json(...)["classes"]``."""
    return [
        [
            row["name"] + (" (rare)" if row["rare"] else ""),
            percent(row["iou"]),
            percent(row["precision"]),
            percent(row["recall"]),
            f"{row['pixels']:,}",
        ]
        for row in classes
    ]


def print_scores(title: str, content: dict[str, Any]) -> None:
    """The per-class table and the means of ``scores_json``."""
    print_table(title, ["class", "IoU %", "precision %", "recall %", "pixels"], score_rows(content["classes"]))
    absent = ", ".join(content["left_out"])
    left_out = f"; left out (in neither truth nor prediction): {absent}" if absent else ""
    worst = content["worst_precision_class"]
    print_line(
        f"mIoU {percent(content['miou'], 2)}  rare mIoU {percent(content['rare_miou'], 2)}  "
        f"pixel accuracy {percent(content['pixel_accuracy'], 2)}  "
        f"worst class precision {percent(content['worst_class_precision'], 2)}{f' ({worst})' if worst else ''}{left_out}"
    )


def print_average_precision(title: str, content: dict[str, Any]) -> None:
    """The per-class table and the means of ``precision_json``."""
    rows = [
        [row["name"], percent(row["ap"], 2), percent(row["from"], 2), percent(row["to"], 2)] for row in content["ap"]
    ]
    print_table(title, ["class", "average precision %", "at least", "at most"], rows)
    worst = content["wgap_class"]
    print_line(f"MAP {percent(content['map'], 2)}  WGAP {percent(content['wgap'], 2)}{f' ({worst})' if worst else ''}")
