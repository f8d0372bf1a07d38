"""The page as a whole: it stands alone, says what was not measured, and lets nothing from the data become markup."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_folders import CLASSES, PIXELS, Folders

from dropclass_deploy.analysis.report import write_report
from dropclass_deploy.core.errors import ArtifactError, MissingExtraError, RunError, UserError

VOID = {"meta", "link", "img", "br", "line", "rect", "ellipse", "use", "path"}
HOSTILE = '<img src=x onerror="alert(1)">'


class Page(HTMLParser):
    """Tags, attributes and text of a page; raises when a tag is closed that is not open."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.feed(html)
        self.close()
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in {"style", "script"}:
            self.pieces.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def written(folders: Folders, title: str = "Street", *, pictures: bool = True) -> str:
    output = folders.run.parent / "report.html"
    predictions = folders.predictions if pictures else None
    assert write_report(folders.run, folders.artifact, output, title=title, predictions=predictions) == output
    return output.read_text(encoding="utf-8")


def section(html: str, name: str) -> str:
    start = html.index(f'<section id="{name}"')
    return html[start : html.index("</section>", start)]


def text_of(html: str, name: str) -> str:
    return Page(section(html, name) + "</section>").text


def test_every_tag_that_opens_closes(folders: Folders) -> None:
    assert Page(written(folders)).open == []


def test_the_page_needs_no_network_and_no_script(folders: Folders) -> None:
    html = written(folders)
    page = Page(html)
    places = [
        value
        for _, attributes in page.tags
        for key, value in attributes.items()
        if key in {"src", "href", "xlink:href"}
    ]
    assert places
    assert [place for place in places if place and not place.startswith(("#", "data:"))] == []
    assert page.all("script") == []
    assert "http" not in html
    assert "@import" not in html
    assert re.findall(r"url\((?!#)", html) == []


def test_inner_links_lead_somewhere_and_ids_are_unique(folders: Folders) -> None:
    page = Page(written(folders))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    links = [attributes["href"] for attributes in page.all("a")]
    assert len(ids) == len(set(ids))
    assert {str(link).removeprefix("#") for link in links} <= set(ids)


def test_every_picture_has_an_alternative_text(folders: Folders) -> None:
    images = Page(written(folders)).all("img")
    assert len(images) == 3 * 3 + 1
    assert all(image.get("alt") for image in images)


def test_every_table_scrolls_inside_its_own_container(folders: Folders) -> None:
    html = written(folders)
    assert html.count("<table>") == len(re.findall(r'<div class="scroll"[^>]*tabindex="0">\s*<table>', html)) > 5


def test_every_section_is_there_and_measured(folders: Folders) -> None:
    html = written(folders)
    for name in ("headline", "curves", "classes", "parity", "latency", "pictures", "provenance", "repeat"):
        assert "not measured" not in text_of(html, name).lower(), name


def test_the_key_figures_stand_at_the_top(folders: Folders) -> None:
    top = text_of(written(folders), "headline")
    miou = json.loads((folders.run / "evaluation.json").read_text())["heads"]["plain"]["miou"]
    assert f"mIoU {100 * miou:.1f} %" in top
    assert "−0.06 points change of IoU, cyclist, margin 0.1" in top
    assert "7.90 ms end to end; naive export 14.2 ms" in top
    assert "1.80× paired rounds" in top
    assert "✓ pass" in top


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("run/metrics.jsonl", "curves"),
        ("run/evaluation.json", "classes"),
        ("artifact/evidence/parity.json", "parity"),
        ("artifact/evidence/bench.json", "latency"),
    ],
)
def test_a_missing_file_leaves_a_section_that_says_so(folders: Folders, file: str, name: str) -> None:
    (folders.run.parent / file).unlink()
    if name == "curves":
        (folders.run / "evaluation.json").unlink()
    assert text_of(written(folders), name).count("Not measured.") == 1


def test_without_pictures_the_section_says_so(folders: Folders) -> None:
    assert "Not measured. No pictures" in text_of(written(folders, pictures=False), "pictures")


def test_empty_folders_give_a_whole_page_of_not_measured(tmp_path: Path) -> None:
    empty = Folders(tmp_path / "run", tmp_path / "artifact", tmp_path / "predictions")
    for folder in (empty.run, empty.artifact, empty.predictions):
        folder.mkdir()
    html = written(empty)
    assert Page(html).open == []
    assert html.count("Not measured.") == 6
    assert "not measured" in text_of(html, "headline")


def test_any_single_file_is_enough_for_a_page(folders: Folders, tmp_path: Path) -> None:
    files = [path for folder in (folders.run, folders.artifact) for path in folder.rglob("*.json*")]
    for kept in files:
        bare = Folders(tmp_path / kept.name / "run", tmp_path / kept.name / "artifact", folders.predictions)
        bare.run.mkdir(parents=True)
        (bare.artifact / "evidence").mkdir(parents=True)
        home = bare.run if folders.run in kept.parents else bare.artifact
        shutil.copy(kept, home / kept.relative_to(folders.run if home == bare.run else folders.artifact))
        assert Page(written(bare)).open == []


def test_text_from_the_data_never_becomes_markup(folders: Folders) -> None:
    names = (HOSTILE, "</style><script>alert(1)</script>", "$\\frac{", "a&b", "'quoted\"", "ünïcode 道")
    for file in (*folders.run.iterdir(), *folders.artifact.rglob("*.json")):
        content = file.read_text()
        for old, new in zip(PIXELS, names, strict=True):
            content = content.replace(f'"{old}"', json.dumps(new))
        file.write_text(content)
    (folders.run / "recipe.yaml").write_text(f"name: {HOSTILE}\n</pre></main>\n")
    folders.edit("evidence/bench.json", environment={HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE]}})
    folders.edit("evidence/parity.json", reasons=[HOSTILE], notes=[HOSTILE], provider=HOSTILE, verdict=HOSTILE)
    (folders.predictions / "000.image.png").rename(folders.predictions / '"><b onload=x>.image.png')
    html = written(folders, title=HOSTILE)
    page = Page(html)
    assert page.open == []
    assert page.all("script") == []
    assert [attributes for _, attributes in page.tags if {"onerror", "onload"} & set(attributes)] == []
    assert HOSTILE not in html
    for name in names:
        assert name in page.text


def test_a_class_called_like_a_tag_is_shown_as_written(folders: Folders) -> None:
    for file in (*folders.run.iterdir(), *folders.artifact.rglob("*.json")):
        file.write_text(file.read_text().replace('"cyclist"', '"<b>"'))
    html = written(folders)
    assert '<span title="&lt;b&gt;">&lt;b&gt;</span>' in html
    assert 'aria-label="IoU of the rare classes over the training steps. ' in html
    assert "&lt;b&gt;: from" in html


def test_nan_and_null_are_dashes(folders: Folders) -> None:
    evaluation = json.loads((folders.run / "evaluation.json").read_text())
    evaluation["heads"]["plain"]["rare_miou"] = None
    evaluation["heads"]["plain"]["miou"] = float("nan")
    (folders.run / "evaluation.json").write_text(json.dumps(evaluation))
    html = written(folders)
    assert "mIoU – split val" in text_of(html, "headline")
    assert "mIoU, rare classes – the 3 rarest" in text_of(html, "headline")
    assert "nan" not in re.findall(r"\w+", text_of(html, "headline").lower())


@pytest.mark.parametrize(
    ("verdict", "word"), [("pass", "✓ pass"), ("fail", "✕ fail"), ("insufficient", "? insufficient"), ("odd", "– odd")]
)
def test_the_verdict_is_said_in_words_and_signs(folders: Folders, verdict: str, word: str) -> None:
    folders.edit("evidence/parity.json", verdict=verdict)
    assert text_of(written(folders), "headline").startswith(word)


def test_a_failed_gate_says_why(folders: Folders) -> None:
    parity = json.loads((folders.artifact / "evidence" / "parity.json").read_text())
    parity["verdict"], parity["reasons"] = "fail", ["cyclist lost 3.4 points of IoU"]
    parity["classes"][-1]["verdict"] = "fail"
    (folders.artifact / "evidence" / "parity.json").write_text(json.dumps(parity))
    top = text_of(written(folders), "headline")
    assert "does not do what the trained one did: cyclist." in top
    assert "cyclist lost 3.4 points of IoU" in top


def test_times_taken_before_the_gate_passed_are_marked(folders: Folders) -> None:
    assert "Parity when this was timed" not in text_of(written(folders), "latency")
    folders.edit("evidence/bench.json", parity_verdict=None)
    assert "Parity when this was timed: not measured." in text_of(written(folders), "latency")


def test_the_page_holds_recipe_versions_hashes_and_commands(folders: Folders) -> None:
    html = written(folders)
    origin = text_of(html, "provenance")
    assert "method: {name: dropclass, alpha: 10.0}" in origin
    assert "torch 2.14.1" in origin
    assert "Example CPU" in origin
    digest = json.loads((folders.artifact / "manifest.json").read_text())["files"]["models/model.onnx"]
    assert digest in origin
    assert "dropclass verify artifact-again --data synthetic: --split val" in text_of(html, "repeat")


def test_commands_are_quoted_for_the_shell(folders: Folders) -> None:
    folders.edit("evaluation.json", data="folder:my data; rm -rf x")
    assert "--data 'folder:my data; rm -rf x'" in text_of(written(folders), "repeat")


def test_no_absolute_path_of_this_machine_is_published(folders: Folders) -> None:
    assert str(folders.run.parent) not in written(folders)


def test_equal_files_give_equal_pages(folders: Folders) -> None:
    assert written(folders) == written(folders)


def test_an_older_page_is_replaced_and_folders_are_made(folders: Folders) -> None:
    output = folders.run.parent / "new" / "folder" / "report.html"
    write_report(folders.run, folders.artifact, output, title="one")
    write_report(folders.run, folders.artifact, output, title="two")
    assert "<title>two</title>" in output.read_text(encoding="utf-8")
    assert [path.name for path in output.parent.iterdir()] == ["report.html"]


def test_a_run_folder_that_does_not_exist_is_a_users_mistake(folders: Folders) -> None:
    with pytest.raises(RunError, match=r"there is no run folder .*nowhere"):
        write_report(folders.run / "nowhere", folders.artifact, folders.run / "out.html", title="t")


def test_an_artifact_folder_that_does_not_exist_is_a_users_mistake(folders: Folders) -> None:
    with pytest.raises(ArtifactError, match=r"there is no artifact folder .*nowhere"):
        write_report(folders.run, folders.artifact / "nowhere", folders.run / "out.html", title="t")


def test_a_folder_cannot_be_the_page(folders: Folders) -> None:
    with pytest.raises(UserError, match=r"is a folder; expected the path of an HTML file"):
        write_report(folders.run, folders.artifact, folders.run, title="t")


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_names_the_extra(folders: Folders, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package}.*dropclass-deploy\[analysis\]"):
        written(folders)


def test_importing_the_report_loads_neither_matplotlib_nor_jinja2() -> None:
    code = "import sys, dropclass_deploy.analysis.report; print({'jinja2', 'matplotlib', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def test_every_class_of_the_table_is_on_the_page(folders: Folders) -> None:
    text = text_of(written(folders), "classes")
    assert [name for name in CLASSES.names if name not in text] == []


@pytest.mark.browser
def test_nothing_runs_over_the_edge_of_a_phone(folders: Folders, tmp_path: Path) -> None:
    """The page in a frame as wide as a phone; tables may scroll inside their containers, the page may not."""
    # Ubuntu's package is a stub that only names the snap to install.
    if not shutil.which("chromium") or subprocess.run(["chromium", "--version"], capture_output=True).returncode:
        pytest.skip("chromium is not installed, or does not run")
    measure = "const root = this.contentDocument.documentElement; document.title = root.scrollWidth - root.clientWidth"
    frame = f'<iframe style="border:0;width:390px;height:800px" srcdoc="{escape(written(folders))}" onload="{measure}">'
    (tmp_path / "frame.html").write_text(f"<!DOCTYPE html><title>x</title>{frame}</iframe>", encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom"]
    command = ["chromium", *options, f"--user-data-dir={tmp_path / 'profile'}", f"file://{tmp_path / 'frame.html'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "<title>0</title>" in done.stdout
