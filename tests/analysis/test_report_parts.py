"""The parts of the page by hand-worked figures."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_folders import PIXELS, Folders

from dropclass_deploy.analysis.report import chart_svg, formats
from dropclass_deploy.analysis.report.chart_svg import Line, draw_lines, thinned
from dropclass_deploy.analysis.report.class_looks import class_looks
from dropclass_deploy.analysis.report.class_table import class_table
from dropclass_deploy.analysis.report.curves import training_curves
from dropclass_deploy.analysis.report.headline import headline
from dropclass_deploy.analysis.report.latency_table import scope_tables
from dropclass_deploy.analysis.report.parity_table import parity_table
from dropclass_deploy.analysis.report.pictures import MAX_SAMPLES, MAX_SIDE, gallery
from dropclass_deploy.analysis.report.records import Bench, Parity
from dropclass_deploy.analysis.report.sources import Sources, read_sources
from dropclass_deploy.core.errors import ArtifactError, DataError, RunError
from dropclass_deploy.serving.benchmark import report as bench_files
from dropclass_deploy.serving.parity import report as parity_files
from dropclass_deploy.serving.parity.rule import ClassFigures, judge

STYLE = Path(chart_svg.__file__).parent / "templates" / "style.css"


def sources_of(folders: Folders) -> Sources:
    return read_sources(folders.run, folders.artifact)


# Formats


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (formats.percent, 0.61234, "61.2"),
        (formats.percent, 0.0, "0.0"),
        (formats.points, -0.0034, "−0.34"),
        (formats.points, 0.0034, "+0.34"),
        (formats.points, -0.000001, "0.00"),
        (formats.milliseconds, 0.1234, "0.12"),
        (formats.milliseconds, 12.34, "12.3"),
        (formats.milliseconds, 1234.4, "1,234"),
        (formats.times, 2.254, "2.25×"),
        (formats.per_million, 3.2e-6, "3.2 in a million"),
        (formats.per_million, 0.0, "none"),
    ],
)
def test_figures_as_text(function: Any, value: float, text: str) -> None:
    assert function(value) == text


@pytest.mark.parametrize(
    "function", [formats.percent, formats.points, formats.milliseconds, formats.times, formats.per_million]
)
@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), float("-inf")])
def test_what_is_no_figure_is_a_dash(function: Any, value: float | None) -> None:
    assert function(value) == "–"


def test_counts_have_separators() -> None:
    assert (formats.count(1234567), formats.count(None)) == ("1,234,567", "–")


# Reading


@pytest.mark.parametrize("file", ["model.json", "evaluation.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"{", b"[" * 100_000])
def test_a_broken_file_of_the_run_is_named(folders: Folders, file: str, content: bytes) -> None:
    (folders.run / file).write_bytes(content)
    with pytest.raises(RunError, match=rf"{file} cannot be read: ") as caught:
        sources_of(folders)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["parity.json", "bench.json"])
def test_a_broken_file_of_the_artifact_is_named(folders: Folders, file: str) -> None:
    (folders.artifact / "evidence" / file).write_text('{"verdict": 3, "results": 4}')
    with pytest.raises(ArtifactError, match=rf"{file} cannot be read: (verdict|results): Input should be"):
        sources_of(folders)


def test_a_broken_manifest_is_refused(folders: Folders) -> None:
    (folders.artifact / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"manifest\.json cannot be read"):
        sources_of(folders)


def test_a_broken_line_of_the_journal_is_named_by_its_number(folders: Folders) -> None:
    (folders.run / "metrics.jsonl").write_text('{"kind": "train", "step": 1}\n{"kind": "val"}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl line 2 cannot be read: step: Field required"):
        sources_of(folders)


def test_a_last_line_cut_short_and_foreign_lines_are_passed_over(folders: Folders) -> None:
    (folders.run / "metrics.jsonl").write_text(
        '{"kind": "train", "step": 1, "loss": 2.0}\n\n{"kind": "note"}\n{"kind": "train", "st'
    )
    sources = sources_of(folders)
    assert [point.step for point in sources.train] == [1]
    assert sources.val == ()


def test_a_recipe_that_is_not_utf8_is_still_shown(folders: Folders) -> None:
    (folders.run / "recipe.yaml").write_bytes(b"name: caf\xe9\n")
    assert (sources_of(folders).recipe or "").startswith("name: caf")


# Classes


def test_classes_stand_by_training_pixels_with_their_share(folders: Folders) -> None:
    looks = class_looks(sources_of(folders))
    assert [look.name for look in looks] == ["road", "sky", "building", "car", "pole", "cyclist"]
    assert [look.rare for look in looks] == [False, False, False, True, True, True]
    assert looks[0].share == PIXELS["road"] / sum(PIXELS.values())


@pytest.mark.parametrize("pixels", [None, [1, 2]])
def test_classes_stand_in_id_order_without_counts_that_fit(folders: Folders, pixels: list[int] | None) -> None:
    folders.edit("model.json", class_pixels=pixels)
    looks = class_looks(sources_of(folders))
    assert [look.name for look in looks] == list(PIXELS)
    assert {look.share for look in looks} == {None}


def test_without_a_run_the_artifact_names_the_classes(folders: Folders) -> None:
    (folders.run / "model.json").unlink()
    assert [look.name for look in class_looks(sources_of(folders))] == list(PIXELS)


def test_the_class_table_has_a_column_a_head_and_one_for_each_further_split(folders: Folders) -> None:
    sources = sources_of(folders)
    table = class_table(sources.evaluation, class_looks(sources))
    assert table is not None
    assert table.columns == (("plain", "val"), ("folded", "val"), ("plain", "unbiased"))
    evaluation = json.loads((folders.run / "evaluation.json").read_text())
    places = [evaluation["heads"]["plain"], evaluation["heads"]["folded"], evaluation["extra"][0]["heads"]["plain"]]
    cyclist = [next(entry for entry in place["classes"] if entry["name"] == "cyclist") for place in places]
    assert [bar.text for bar in table.rows[-1].iou] == [f"{100 * entry['iou']:.1f}" for entry in cyclist]
    assert table.rows[-1].precision == f"{100 * cyclist[0]['precision']:.1f}"


def test_a_class_left_out_of_the_means_is_named(folders: Folders) -> None:
    evaluation = json.loads((folders.run / "evaluation.json").read_text())
    evaluation["heads"]["plain"]["left_out"] = ["pole"]
    (folders.run / "evaluation.json").write_text(json.dumps(evaluation))
    table = class_table(sources_of(folders).evaluation, ())
    assert table is not None
    assert table.summary[0].left_out == ("pole",)


# Parity


def parity_of(rule: str, **fields: Any) -> Parity:
    entry = {"name": "a", "delta": -0.002, "interval": [-0.004, 0.001], "margin": 0.005, "verdict": "pass"} | fields
    return Parity.model_validate({"verdict": "pass", "rule": rule, "classes": [entry]})


def test_the_interval_is_drawn_to_scale() -> None:
    part = parity_table(parity_of("strict"), ())
    assert part is not None
    drawing = part.rows[0].drawing
    assert drawing is not None
    # The widest figure is the margin, 0.005; with a tenth of air 0.0055 points reach ±50.
    assert drawing.centre == pytest.approx(-50 * 0.002 / 0.0055)
    assert drawing.low == pytest.approx(-50 * 0.004 / 0.0055)
    assert drawing.high == pytest.approx(50 * 0.001 / 0.0055)
    assert (drawing.band_low, drawing.band_high) == (pytest.approx(-50 / 1.1), pytest.approx(50 / 1.1))


def test_not_worse_has_no_upper_margin() -> None:
    part = parity_table(parity_of("non-inferiority"), ())
    assert part is not None
    assert part.rows[0].drawing is not None
    assert part.rows[0].drawing.band_high == 50.0


@pytest.mark.parametrize("interval", [None, [None, None], [float("nan"), 0.1]])
def test_without_an_interval_only_the_difference_is_drawn(interval: list[float | None] | None) -> None:
    part = parity_table(parity_of("strict", interval=interval), ())
    assert part is not None
    assert part.rows[0].interval == "–"
    assert part.rows[0].drawing is not None
    assert part.rows[0].drawing.low == part.rows[0].drawing.centre


def test_an_absent_class_is_reported_and_not_drawn() -> None:
    part = parity_table(parity_of("strict", delta=None, interval=None, margin=None, verdict="absent"), ())
    assert part is not None
    assert (part.rows[0].delta, part.rows[0].drawing, part.rows[0].verdict.word) == ("–", None, "absent")


def test_parity_shows_figures_with_two_decimals_and_their_difference(folders: Folders) -> None:
    part = parity_table(sources_of(folders).parity, ())
    assert part is not None
    assert part.means == (("mIoU", "71.00", "71.00", "0.00"), ("mIoU, rare classes", "62.00", "61.98", "−0.02"))


def test_a_pass_with_allowed_gaps_says_so(folders: Folders) -> None:
    parity = json.loads((folders.artifact / "evidence" / "parity.json").read_text())
    parity["classes"][4]["verdict"], parity["classes"][0]["verdict"] = "insufficient", "absent"
    (folders.artifact / "evidence" / "parity.json").write_text(json.dumps(parity))
    sentence = headline(sources_of(folders)).sentence
    assert "4 of 5 classes keep their IoU" in sentence
    assert "allowed by name: pole" in sentence


# Latency


def test_the_whole_path_comes_first_and_ours_leads(folders: Folders) -> None:
    tables = scope_tables(sources_of(folders).bench)
    assert [table.title for table in tables] == ["End to end", "Transfer", "Model"]
    assert [row.name for row in tables[0].rows] == ["ours", "naive", "torch eager"]
    assert [row.ratio for row in tables[0].rows] == ["–", "1.80×", "4.00×"]
    assert tables[0].rows[2].p50.width == 100.0
    assert tables[0].input == "96×128, batch 1"


def test_contenders_with_different_inputs_say_so_each() -> None:
    results = [
        {"contender": name, "scope": "model", "resolution": [size, size]}
        for name, size in (("ours", 64), ("naive", 96))
    ]
    table = scope_tables(Bench.model_validate({"results": results}))[0]
    assert (table.input, [row.how for row in table.rows]) == ("", ["64×64", "96×96"])


def test_results_without_names_take_the_first_as_ours() -> None:
    results = [
        {"scope": "odd", "runtime": "onnxruntime", "precision": p, "latency_ms": {"p50": 2.0}} for p in ("fp32", "int8")
    ]
    table = scope_tables(Bench.model_validate({"results": results}))[0]
    assert table.title == "odd"
    assert [(row.name, row.ours) for row in table.rows] == [("onnxruntime fp32", True), ("onnxruntime int8", False)]


def test_the_headline_takes_the_widest_scope_that_was_timed(folders: Folders) -> None:
    bench = json.loads((folders.artifact / "evidence" / "bench.json").read_text())
    bench["results"] = [result for result in bench["results"] if result["scope"] == "model"]
    (folders.artifact / "evidence" / "bench.json").write_text(json.dumps(bench))
    tile = next(tile for tile in headline(sources_of(folders)).tiles if tile.label == "Median latency")
    assert (tile.figure, tile.note) == ("5.80", "model; naive export 9.40 ms")


def test_nothing_changed_names_no_class(folders: Folders) -> None:
    folders.edit("evidence/parity.json", classes=[{"name": "sky", "delta": 0.0, "margin": 0.001, "verdict": "pass"}])
    tile = headline(sources_of(folders)).tiles[2]
    assert (tile.figure, tile.note) == ("0.00", "no class changed, margin 0.1")


def test_the_headline_says_how_the_other_head_and_split_did(folders: Folders) -> None:
    evaluation = json.loads((folders.run / "evaluation.json").read_text())
    folded, unbiased = evaluation["heads"]["folded"]["miou"], evaluation["extra"][0]["heads"]["plain"]["miou"]
    note = headline(sources_of(folders)).tiles[0].note
    assert note == f"split val, 60 images; folded head {100 * folded:.1f}; unbiased {100 * unbiased:.1f}"


# What other rooms write is what this one reads


def test_the_benchs_own_report_can_be_read() -> None:
    result = bench_files.Result(
        contender="ours",
        scenario="single-stream",
        scope="end_to_end",
        runtime="onnxruntime",
        provider="CPUExecutionProvider",
        precision="fp32",
        resolution=(96, 128),
        batch=1,
        queries=20,
        latency_ms={"p50": 2.0, "p90": 3.0, "p99": None},
        throughput_per_s=500.0,
        stages_ms={"decode": 0.5},
        cv=0.1,
    )
    ratio = bench_files.Ratio("end_to_end", "naive", 1.5, 1.2, 1.8, 20)
    report = bench_files.BenchReport("", {"cpu": None}, "pass", "image", (result,), (ratio,), ("a note",))
    read = Bench.model_validate_json(json.dumps(report.to_json()))
    assert scope_tables(read)[0].rows[0].p50.text == "2.00"
    assert (read.ratios[0].against, read.ratios[0].median, read.notes) == ("naive", 1.5, ("a note",))


def test_the_gates_own_report_can_be_read() -> None:
    present = ClassFigures("sky", False, 0.8, 0.79, (-0.02, 0.0), 30, 4000)
    absent = ClassFigures("pole", True, float("nan"), float("nan"), (float("nan"), float("nan")), 0, 0)
    facts = parity_files.Facts("a", "b", "0", "fp32", "fp32", "CPU", None, "synthetic:", "val", 0, 2000, {})
    report = parity_files.ParityReport(
        verdict="fail",
        rule="strict",
        classes=(judge("strict", present), judge("strict", absent)),
        reasons=("sky moved",),
        notes=(),
        images=30,
        pixel_disagreement=2e-4,
        logits_disagreement=None,
        sample_check=None,
        allow_insufficient=(),
        facts=facts,
    )
    part = parity_table(Parity.model_validate_json(json.dumps(report.to_json())), ())
    assert part is not None
    assert [(row.delta, row.verdict.word) for row in part.rows] == [("−1.00", "fail"), ("–", "absent")]
    assert part.rows[0].interval == "−2.00 … 0.00"
    assert ("Pixels that differ", "200 in a million") in part.facts


# Curves


def test_charts_are_made_of_numbers_only(folders: Folders) -> None:
    sources = sources_of(folders)
    charts = training_curves(sources, class_looks(sources))
    assert [chart.title for chart in charts] == ["Loss terms", "Validation IoU", "IoU of the rare classes"]
    for chart in charts:
        words = re.findall(r"<text[^>]*>([^<]*)</text>", chart.svg)
        assert words
        assert [word for word in words if not re.fullmatch(r"[−\d.]+", word)] == []


def test_every_loss_term_of_the_journal_is_drawn(folders: Folders) -> None:
    with (folders.run / "metrics.jsonl").open("a") as stream:
        stream.write('{"kind": "train", "step": 300, "boundary": 0.5, "dropped": 3}\n')
    chart = training_curves(sources_of(folders), ())[0]
    labels = ["total", "cross-entropy", "cross-entropy, class dropped", "suppression", "boundary"]
    assert [key.label for key in chart.keys] == labels
    assert chart.keys[-1].last == "0.500"


def test_the_last_validation_point_is_the_final_evaluation(folders: Folders) -> None:
    chart = training_curves(sources_of(folders), ())[1]
    miou = json.loads((folders.run / "evaluation.json").read_text())["heads"]["plain"]["miou"]
    assert chart.keys[0].last == f"{100 * miou:.1f} %"
    assert "at step 300." in chart.description


def test_lines_beyond_the_dash_patterns_are_counted_not_drawn(folders: Folders) -> None:
    terms = json.dumps({f"term {index}": 1.0 + index for index in range(9)})
    (folders.run / "metrics.jsonl").write_text(f'{{"kind": "train", "step": 1, {terms[1:]}\n')
    chart = training_curves(sources_of(folders), ())[0]
    assert (len(chart.keys), chart.left_out) == (6, 3)


def test_points_that_are_no_numbers_are_skipped(folders: Folders) -> None:
    lines = [
        {"kind": "train", "step": step, "loss": value} for step, value in enumerate((1.0, float("nan"), None, 2.0))
    ]
    (folders.run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "from 1.000 at step 0 to 2.000 at step 3." in training_curves(sources_of(folders), ())[0].description


def test_colours_of_a_chart_are_variables_of_the_page() -> None:
    svg = draw_lines([Line(((0.0, 1.0), (1.0, 2.0))), Line(((0.0, 2.0), (1.0, 1.0)))], salt="x")
    assert "var(--chart-0)" in svg
    assert "var(--chart-1)" in svg
    assert "#f0000" not in svg
    assert set(re.findall(r"var\((--[\w-]+)\)", svg)) <= set(re.findall(r"(--[\w-]+):", STYLE.read_text()))


def test_a_single_point_can_be_drawn() -> None:
    assert "<svg" in draw_lines([Line(((1.0, 1.0),))], salt="x")


def test_thinning_keeps_short_lines_and_averages_long_ones() -> None:
    short = [(float(x), float(x * x)) for x in range(240)]
    assert thinned(short) == short
    long = [(float(x), float(x)) for x in range(480)]
    assert thinned(long) == [(x + 0.5, x + 0.5) for x in range(0, 480, 2)]


# Pictures


def decoded(data: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_pictures_stand_side_by_side_in_order(folders: Folders) -> None:
    shown = gallery(folders.predictions)
    assert shown is not None
    assert [sample.name for sample in shown.samples] == ["000", "001", "002", "alone"]
    assert [picture.kind for picture in shown.samples[0].pictures] == ["image", "truth", "prediction"]
    assert [picture.kind for picture in shown.samples[3].pictures] == ["overlay"]


def test_pixels_arrive_unchanged(folders: Folders) -> None:
    shown = gallery(folders.predictions)
    assert shown is not None
    with Image.open(folders.predictions / "000.truth.png") as source:
        np.testing.assert_array_equal(np.asarray(decoded(shown.samples[0].pictures[1].data)), np.asarray(source))


def test_large_pictures_are_made_smaller_in_proportion(tmp_path: Path) -> None:
    Image.new("RGB", (3000, 1000), (9, 9, 9)).save(tmp_path / "big.overlay.png")
    shown = gallery(tmp_path)
    assert shown is not None
    assert decoded(shown.samples[0].pictures[0].data).size == (MAX_SIDE, round(MAX_SIDE / 3))


def test_the_rest_is_counted(tmp_path: Path) -> None:
    for index in range(MAX_SAMPLES + 2):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{index:02d}.image.png")
    shown = gallery(tmp_path)
    assert shown is not None
    assert (len(shown.samples), shown.left_out) == (MAX_SAMPLES, 2)


def test_other_files_are_not_shown(tmp_path: Path) -> None:
    for name in ("mask.png", ".image.png", "a.other.png", "a.image.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert gallery(tmp_path) is None


def test_a_picture_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.image.png").write_text("no picture")
    with pytest.raises(DataError, match=r"a\.image\.png"):
        gallery(tmp_path)


def test_a_folder_of_pictures_that_does_not_exist_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder of predictions"):
        gallery(tmp_path / "nowhere")


# Colours


def themes() -> dict[str, dict[str, str]]:
    style = STYLE.read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)[:2]
    return {
        name: dict(re.findall(r"--([\w-]+): (#\w{6});", block)) for name, block in (("light", light), ("dark", dark))
    }


def luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_is_readable_on_its_ground(theme: str) -> None:
    """WCAG 2.2, 1.4.3: 4.5 for text; 1.4.11: 3 for the lines of a chart."""
    colours = themes()[theme]
    texts = [(ink, ground) for ink in ("ink", "muted", "accent") for ground in ("page", "surface", "raised")]
    texts += [(name, f"{name}-tint") for name in ("good", "bad", "unsure", "quiet")]
    assert [pair for pair in texts if contrast(colours[pair[0]], colours[pair[1]]) < 4.5] == []
    lines = [f"chart-{index}" for index in range(chart_svg.MAX_LINES)]
    assert [name for name in lines if contrast(colours[name], colours["surface"]) < 3] == []


def test_both_themes_name_the_same_colours() -> None:
    light, dark = themes().values()
    assert set(light) == set(dark)
