"""Settings whose options are gone: their cells stay in the tables, and nothing trains them any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import evidence
import pytest
from evidence_cells import PLAN, RECIPE, checkout, head, plan_of, stored
from evidence_grid import tables
from evidence_grid.part_cells import PartCells
from evidence_grid.plan import Plan
from evidence_grid.same_recipe import recipe_facts
from evidence_grid.store import FRESH, STALE, Store

from dropclass_deploy.core.errors import UserError

GONE = {"method.name": "dropclass", "method.gone": "yes"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def retired(**grid: Any) -> dict[str, Any]:
    content = PLAN["grids"]["tiny"] | {"settings": ["ce", "gone"]} | grid
    settings = {"ce": PLAN["settings"]["ce"], "gone": GONE}
    return {"settings": settings, "retired": {"gone": COMMIT}, "grids": {"tiny": content}}


def filled(folder: Path, recipe: dict[str, Any] = RECIPE, **grid: Any) -> tuple[Plan, Store]:
    """All cells there, those of the retired setting as a commit with its option stored them."""
    root = checkout(folder, retired(**grid), recipe)
    plan, store = plan_of(root), Store(root.results)
    facts = recipe_facts(plan.cell("tiny/ce/0").identity)
    for cell in plan.cells(plan.grid("tiny")):
        own = {"recipe_sha256": "of another schema"} if cell.retired else {"recipe_sha256": cell.digest()}
        recipe_then = {**facts["recipe"], "train.seed": cell.seed, "method.name": "dropclass", "method.gone": "yes"}
        base = stored(plan.cell(f"tiny/ce/{cell.seed}"), head(0.5, 0.4, 0.6, 0.4))
        store.write(cell, {**base, **own, "overrides": cell.overrides, "recipe": recipe_then})
    return plan, store


def test_cells_of_a_retired_setting_stand_and_are_shown_with_their_commit(tmp_path: Path) -> None:
    plan, store = filled(tmp_path)
    cells = plan.cells(plan.grid("tiny"))
    assert {store.state(cell) for cell in cells} == {FRESH}
    table = tables.main_table(PartCells(plan.grid("tiny"), "all", tuple(store.fresh(cells))))
    assert "Options that did not pay and are gone, with the last commit that has them: gone (0123456)." in table
    assert "| gone | plain | 3 |" in table


def test_they_do_not_stand_for_another_run(tmp_path: Path) -> None:
    filled(tmp_path)
    longer = {**RECIPE, "train": RECIPE["train"] | {"steps": 9}}
    plan = plan_of(checkout(tmp_path, retired(), longer))
    assert Store(tmp_path / "benchmarks/results/evidence").state(plan.cell("tiny/gone/0")) == STALE
    other = retired()
    other["settings"] = other["settings"] | {"gone": GONE | {"method.gone": "no"}}
    plan = plan_of(checkout(tmp_path, other))
    assert Store(tmp_path / "benchmarks/results/evidence").state(plan.cell("tiny/gone/0")) == STALE


def test_nothing_trains_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, store = filled(tmp_path)
    store.path(plan.cell("tiny/gone/1")).unlink()
    assert evidence.main(["tiny", "--root", str(tmp_path), "--device", "cpu"]) == 0
    assert "nothing to do: all cells are there" in capsys.readouterr().out
    assert evidence.main(["--cell", "tiny/gone/0", "--root", str(tmp_path), "--device", "cpu"]) == 2
    message = f"the options of 'gone' are gone: they did not pay; git checkout {COMMIT}, then the same command"
    assert message in capsys.readouterr().err


def test_a_retired_setting_has_to_be_one(tmp_path: Path) -> None:
    content = {**retired(), "retired": {"never": COMMIT}}
    with pytest.raises(UserError, match="retired has no setting 'never'"):
        plan_of(checkout(tmp_path, content))
