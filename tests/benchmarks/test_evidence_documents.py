"""Tables between markers, pictures beside them, and what --check finds."""

from __future__ import annotations

import json
from pathlib import Path

import evidence
import pytest
from evidence_cells import checkout, head, plan_of, stored
from evidence_grid import curves, documents
from evidence_grid.root import Root
from evidence_grid.store import Store

from dropclass_deploy.core.errors import UserError

MARKED = "# Title\n\n<!-- evidence:{} -->\nold words\n<!-- evidence:end -->\ntail\n"


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """Three seeds of ce, and documents with markers."""
    root = checkout(tmp_path)
    plan, store = plan_of(root), Store(root.results)
    for cell in plan.cells(plan.grid("tiny"), ["ce"]):
        store.write(cell, stored(cell, head(0.5 + cell.seed / 50, 0.4, 0.6, 0.4)))
    text = "".join(MARKED.format(name) for name in ("tiny:all:main", "tiny:all:classes", "tiny:curves"))
    root.documents[0].write_text(text, encoding="utf-8")
    root.documents[1].write_text(MARKED.format("tiny:all:headline"), encoding="utf-8")
    return root


def run(root: Root, *arguments: str) -> int:
    return evidence.main(["--root", str(root.folder), "--report", *arguments])


def test_documents_are_filled_once_and_for_all(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, "--check") == 1
    assert (
        "docs/evidence.md differs from the stored cells: run python benchmarks/evidence.py" in capsys.readouterr().out
    )
    assert run(root) == 0
    texts = [path.read_text(encoding="utf-8") for path in root.documents]
    assert "| ce | plain | 3 | 52.00 ± 2.00 |" in texts[0]
    assert "](evidence_tiny.png)" in texts[0]
    assert "| ce | 3 | 52.00 ± 2.00 |" in texts[1]
    assert all("old words" not in text and text.endswith("\ntail\n") for text in texts)
    picture = root.picture("tiny").read_bytes()
    assert len(picture) < 150_000
    assert run(root) == 0
    assert [path.read_text(encoding="utf-8") for path in root.documents] == texts
    assert root.picture("tiny").read_bytes() == picture
    assert run(root, "--check") == 0


def test_check_finds_a_changed_number_and_writes_nothing(root: Root) -> None:
    run(root)
    changed = root.documents[1].read_text(encoding="utf-8").replace("52.00", "53.00")
    root.documents[1].write_text(changed, encoding="utf-8")
    assert run(root, "--check") == 1
    assert root.documents[1].read_text(encoding="utf-8") == changed


def test_check_finds_a_changed_cell_in_the_picture(root: Root) -> None:
    run(root)
    path = next(root.results.rglob("0.json"))
    content = json.loads(path.read_text(encoding="utf-8"))
    content["curve"][0]["miou"] = 0.9
    path.write_text(json.dumps(content), encoding="utf-8")
    before = curves.digest_in(root.picture("tiny"))
    assert run(root, "--check") == 1
    assert run(root) == 0
    assert curves.digest_in(root.picture("tiny")) not in (None, before)


def test_a_picture_without_cells_goes(root: Root) -> None:
    run(root)
    for path in root.results.rglob("*.json"):
        path.unlink()
    assert run(root) == 0
    assert not root.picture("tiny").exists()
    assert "not run yet: `python benchmarks/evidence.py tiny`" in root.documents[0].read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["tiny:all:mian", "tiny:confirm:main", "big:all:main", "tiny:all", "tiny:all:main:x"])
def test_an_unknown_marker_is_refused_before_anything_is_written(
    root: Root, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    root.documents[1].write_text(MARKED.format(name), encoding="utf-8")
    before = root.documents[0].read_text(encoding="utf-8")
    assert run(root) == 2
    assert (
        f"README.md: the marker evidence:{name} names something unknown; expected GRID:PART:" in capsys.readouterr().err
    )
    assert root.documents[0].read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- evidence:a -->\n", r"doc: the file ends before evidence:a ends; put <!-- evidence:end --> after it"),
        ("<!-- evidence:a -->\n<!-- evidence:b -->\n", "doc: evidence:b begins before evidence:a ends"),
        ("<!-- evidence:end -->\n", "doc: evidence:end without a marker before it"),
    ],
)
def test_markers_come_in_pairs(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        documents.filled(text, "doc", str)


def test_text_outside_the_markers_stays(tmp_path: Path) -> None:
    text = (
        "a\n<!-- evidence:x -->\n<!-- evidence:end -->\nb `<!-- evidence:no -->`\n"
        "<!-- evidence:y -->\nz\n<!-- evidence:end -->"
    )
    new = documents.filled(text, "doc", lambda name: f"[{name}]")
    assert new == (
        "a\n<!-- evidence:x -->\n\n[x]\n\n<!-- evidence:end -->\nb `<!-- evidence:no -->`\n"
        "<!-- evidence:y -->\n\n[y]\n\n<!-- evidence:end -->"
    )
    assert documents.filled(new, "doc", lambda name: f"[{name}]") == new
