"""Markdown tables of a part of a grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evidence_grid import makers
from evidence_grid.cell import COMMAND
from evidence_grid.figures import BySeed, Difference, Mean, mean_over_seeds, paired_difference
from evidence_grid.part_cells import FOLDED, PLAIN, ClassRow, PartCells

NONE = "–"
RARE = "†"
HEADLINE_ROWS = 6

Column = tuple[str, Callable[[str, str], BySeed]]
"""Title, and the figure by setting and head."""


def not_run(part: PartCells) -> str:
    """What stands in place of a table of nothing."""
    return f"not run yet: `{COMMAND} {part.grid.name}`"


def main_table(part: PartCells) -> str:
    """A table a split, one row a setting and deploy head: figures, then differences to each baseline."""
    return "\n\n".join(_main_of_split(part, split) for split in part.grid.splits)


def headline_table(part: PartCells) -> str:
    """The compact one: plain head, first split, differences to the first baseline."""
    split, baseline = part.grid.splits[0], part.grid.baselines[0]
    part = part.only(part.grid.headline or part.settings[:HEADLINE_ROWS])
    columns = _columns(part, split)
    titles = ["setting", "seeds", *(title for title, _ in columns)]
    titles += [f"Δ {title} to {baseline}" for title, _ in columns]
    rows = [
        [
            setting,
            _seeds(part, setting, PLAIN, columns),
            *(_mean(mean_over_seeds(figure(setting, PLAIN))) for _, figure in columns),
            *(_difference(_paired(figure, setting, PLAIN, baseline), part.planned) for _, figure in columns),
        ]
        for setting in part.settings
    ]
    how = (
        "plain head; mean ± standard deviation over the seeds in %, Δ in points with the 95 % t-interval of the paired "
        "differences, bold where it excludes 0"
    )
    return f"{_caption(part, split, how)}\n\n{_markdown(titles, rows)}"


def methods_table(part: PartCells) -> str:
    """One row a setting: what it is and its source, its figures on the first split, differences to the first baseline."""
    split, baseline = part.grid.splits[0], part.grid.baselines[0]
    columns = _columns(part, split)
    titles = ["setting", "what it is", *(title for title, _ in columns)]
    titles += [f"Δ {title} to {baseline}" for title, _ in columns]
    rows = [
        [
            setting,
            part.grid.about.get(setting, NONE),
            *(_mean(mean_over_seeds(figure(setting, PLAIN))) for _, figure in columns),
            *(_points(_paired(figure, setting, PLAIN, baseline)) for _, figure in columns),
        ]
        for setting in part.settings
    ]
    how = "plain head; figures in %, Δ in points"
    return f"{_caption(part, split, how)}\n\n{_markdown(titles, rows, texts=2)}"


def classes_table(part: PartCells) -> str:
    """A table a split: IoU a class, the most frequent class first, one column a setting."""
    return "\n\n".join(_classes_of_split(part, split) for split in part.grid.splits)


def correlation_table(part: PartCells) -> str:
    """Signed and absolute row sums of the classifier's cosine similarities, one column a setting."""
    rows = [[_class_name(row), _share(row), *_sums(part, row.index)] for row in part.classes()]
    rows.append(["mean over classes", "", *_sums(part, None)])
    caption = _caption(part, None, f"signed / absolute row sum, mean over the seeds; {RARE} rare")
    return f"{caption}\n\n{_markdown(['class', 'pixels, %', *part.settings], rows)}"


def _main_of_split(part: PartCells, split: str) -> str:
    columns, baselines = _columns(part, split), part.grid.baselines
    titles = ["setting", "head", "seeds", *(title for title, _ in columns)]
    titles += [f"Δ {title} to {baseline}" for baseline in baselines for title, _ in columns]
    rows = [
        _main_row(part, setting, head, columns)
        for setting in part.settings
        for head in (PLAIN, FOLDED)
        if head == PLAIN or part.has_head(setting, split, head)
    ]
    how = "mean ± standard deviation over the seeds in %, Δ in points"
    return f"{_caption(part, split, how)}\n\n{_markdown(titles, rows)}"


def _main_row(part: PartCells, setting: str, head: str, columns: Sequence[Column]) -> list[str]:
    row = [setting, head, _seeds(part, setting, head, columns)]
    row += [_mean(mean_over_seeds(figure(setting, head))) for _, figure in columns]
    for baseline in part.grid.baselines:
        differences = [_paired(figure, setting, head, baseline) for _, figure in columns]
        row += [_difference(one, part.planned) + _relative(one) for one in differences]
    return row


def _seeds(part: PartCells, setting: str, head: str, columns: Sequence[Column]) -> str:
    count = len(columns[0][1](setting, head))
    return str(count) if count == part.planned else f"{count} of {part.planned}"


def _classes_of_split(part: PartCells, split: str) -> str:
    def cell(setting: str, row: ClassRow) -> str:
        iou = part.class_iou(setting, split, PLAIN, row.name)
        mean = mean_over_seeds(iou)
        difference = paired_difference(iou, part.class_iou(baseline, split, PLAIN, row.name))
        shown = NONE if mean is None else f"{100 * mean.mean:.1f}"
        return shown if setting == baseline or difference is None else f"{shown} ({100 * difference.mean:+.1f})"

    baseline = part.grid.baselines[0]
    rows = [
        [_class_name(row), _share(row), *(cell(setting, row) for setting in part.settings)] for row in part.classes()
    ]
    caption = _caption(part, split, f"IoU in %, plain head, mean over the seeds (Δ to {baseline}); {RARE} rare")
    return f"{caption}\n\n{_markdown(['class', 'pixels, %', *part.settings], rows)}"


def _columns(part: PartCells, split: str) -> list[Column]:
    def means(key: str) -> Callable[[str, str], BySeed]:
        return lambda setting, head: part.figure(setting, split, head, key)

    columns: list[Column] = [("mIoU", means("miou")), ("rare mIoU", means("rare_miou"))]
    watch = part.grid.watch
    if watch is not None:
        columns.append((f"{watch} IoU", lambda setting, head: part.class_iou(setting, split, head, watch)))
    return columns


def _paired(figure: Callable[[str, str], BySeed], setting: str, head: str, baseline: str) -> Difference | None:
    """To the baseline's plain head; None for that head itself."""
    if (setting, head) == (baseline, PLAIN):
        return None
    return paired_difference(figure(setting, head), figure(baseline, PLAIN))


def _sums(part: PartCells, index: int | None) -> list[str]:
    """A cell a setting: signed / absolute."""
    cells = []
    for setting in part.settings:
        found = [mean_over_seeds(part.correlation(setting, kind, index)) for kind in ("signed", "absolute")]
        shown = [NONE if one is None else f"{one.mean:.2f}" for one in found]
        cells.append(NONE if shown == [NONE, NONE] else " / ".join(shown))
    return cells


def _caption(part: PartCells, split: str | None, how: str) -> str:
    where = f"{part.title}, split `{split}`" if split is not None else part.title
    sentences = [f"**{where}**, {part.seeds}; {how}."]
    if part.grid.reduced is not None:
        sentences.append(part.grid.reduced)
    if retired := {setting: part.grid.retired[setting] for setting in part.settings if setting in part.grid.retired}:
        gone = ", ".join(f"{setting} ({commit[:7]})" for setting, commit in retired.items())
        sentences.append(f"Options that did not pay and are gone, with the last commit that has them: {gone}.")
    made = makers.sentence(part.stored)
    if made is not None:
        sentences.append(made)
    if part.missing:
        cells = len(part.stored) + part.missing
        sentences.append(f"Not complete: {part.missing} of {cells} cells are missing (`{COMMAND} {part.grid.name}`).")
    if part.waiting:
        sentences.append(f"Not run yet: {', '.join(part.waiting)}.")
    return " ".join(sentences)


def _mean(value: Mean | None) -> str:
    if value is None:
        return NONE
    return f"{100 * value.mean:.2f}" + ("" if value.std is None else f" ± {100 * value.std:.2f}")


def _difference(value: Difference | None, planned: int) -> str:
    """With the number of pairs where it is below that of the seeds planned, and so wherever it is below the row's own."""
    if value is None:
        return NONE
    if value.low is None or value.high is None:
        shown = f"{100 * value.mean:+.2f} [{NONE}]"
    else:
        shown = f"{100 * value.mean:+.2f} [{100 * value.low:+.2f}, {100 * value.high:+.2f}]"
    shown = f"**{shown}**" if value.excludes_zero else shown
    if value.seeds < planned:
        shown += f" ({value.seeds} {'pair' if value.seeds == 1 else 'pairs'})"
    return shown


def _points(value: Difference | None) -> str:
    """Without an interval: for one seed there is none."""
    return NONE if value is None else f"{100 * value.mean:+.2f}"


def _relative(value: Difference | None) -> str:
    return "" if value is None or value.relative is None else f"<br>{100 * value.relative:+.1f} %"


def _class_name(row: ClassRow) -> str:
    return f"{row.name} {RARE}" if row.rare else row.name


def _share(row: ClassRow) -> str:
    return f"{100 * row.share:.2f}"


def _markdown(titles: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """``texts`` columns of words, then figures."""
    lines = [titles, [*["---"] * texts, *["---:"] * (len(titles) - texts)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
