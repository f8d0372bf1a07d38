"""The plan: what it refuses, how cells are named, and when a stored one is stale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evidence_cells import PLAN, RECIPE, changed, checkout, head, plan_of, stored
from evidence_grid.plan import absolute, check_same_data, slug
from evidence_grid.report import gather
from evidence_grid.root import Root
from evidence_grid.same_recipe import is_same, recipe_facts
from evidence_grid.store import FRESH, MISSING, STALE, Store, rounded

from dropclass_deploy.core.errors import RecipeError, UserError

PARTS: dict[str, Any] = {
    "settings": None,
    "seeds": None,
    "choose": {"settings": ["ce"], "seeds": [0, 1]},
    "confirm": {"settings": ["ce"], "seeds": [10]},
}


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (changed(sead=1), r"grids\.tiny\.sead: Extra inputs are not permitted"),
        (changed(seeds=None), "expected settings and seeds, or choose and confirm"),
        (changed(**PARTS | {"settings": ["ce"]}), "expected settings and seeds, or choose and confirm"),
        (changed(**PARTS | {"confirm": {"settings": ["ce"], "seeds": [1, 2]}}), r"share the seeds \[1\]"),
        (changed(seeds=[0, 0]), r"one of the seeds \[0, 0\] is listed twice"),
        (
            changed(settings=["ce", "focal"]),
            r"grids\.tiny \(all\) has no setting 'focal'; expected one of ce, dropclass",
        ),
        (changed(baselines=["ce+block"]), "has no baseline 'ce\\+block'"),
        (changed(set={"train.seed": 3}), r"grids\.tiny\.set sets train\.seed; that is given by seeds"),
        (changed(data="nowhere"), r"grids\.tiny\.data: 'nowhere'; expected FORMAT:PATH with one of camvid"),
        (changed(seeds=[]), r"grids\.tiny\.seeds: Tuple should have at least 1 item"),
        (PLAN | {"settings": {"a b": {}, "A-B": {}}}, "'a b' and 'A-B' would both be stored as 'a-b'"),
        (PLAN | {"settings": {"…": {}}}, "has no letter or digit"),
        (PLAN | {"grids": {"Big grid": PLAN["grids"]["tiny"]}}, "small letters, digits"),
    ],
)
def test_a_plan_that_does_not_fit_is_one_line(tmp_path: Path, plan: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        plan_of(checkout(tmp_path, plan))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    root = checkout(tmp_path)
    root.plan.write_text("settings: [", encoding="utf-8")
    with pytest.raises(UserError, match=r"evidence\.yaml cannot be read.*expected a YAML file"):
        plan_of(root)


def test_names_for_files() -> None:
    assert slug("dropclass λ1 α10") == "dropclass-lambda1-alpha10"
    assert slug("dropclass λ0.5 α0") == "dropclass-lambda0.5-alpha0"
    assert slug("ce+block") == "ce+block"
    assert slug("../../etc") == "etc"


def test_seeds_are_outermost_and_choosing_comes_first(tmp_path: Path) -> None:
    plan = plan_of(checkout(tmp_path / "one"))
    assert [(cell.seed, cell.setting) for cell in plan.cells(plan.grid("tiny"))][:3] == [
        (0, "ce"),
        (0, "dropclass λ1 α10"),
        (1, "ce"),
    ]
    plan = plan_of(checkout(tmp_path / "two", changed(**PARTS)))
    cells = plan.cells(plan.grid("tiny"))
    assert [(cell.part, cell.seed) for cell in cells] == [("choose", 0), ("choose", 1), ("confirm", 10)]


def test_cells_are_asked_for_by_name_or_slug(tmp_path: Path) -> None:
    plan = plan_of(checkout(tmp_path))
    grid = plan.grid("tiny")
    assert [cell.key for cell in plan.cells(grid, ["dropclass-lambda1-alpha10"], [2])] == [
        "tiny/dropclass-lambda1-alpha10/2"
    ]
    assert plan.cell("tiny/dropclass λ1 α10/2").key == "tiny/dropclass-lambda1-alpha10/2"
    with pytest.raises(UserError, match="has no seed 9; expected one of 0, 1, 2"):
        plan.cells(grid, seeds=[9])
    with pytest.raises(UserError, match="expected GRID/SETTING/SEED"):
        plan.cell("tiny/ce")
    with pytest.raises(UserError, match="there is no grid 'big'; expected one of tiny"):
        plan.cell("big/ce/0")


def test_a_cells_recipe_has_grid_setting_and_seed(tmp_path: Path) -> None:
    recipe = plan_of(checkout(tmp_path)).cell("tiny/dropclass-lambda1-alpha10/2").recipe(device="cpu")
    assert (recipe.train.ema, recipe.train.seed, recipe.train.device) == (0.5, 2, "cpu")
    assert (recipe.method.name, recipe.method.lambda_max, recipe.method.alpha) == ("dropclass", 1, 10)


def test_an_override_that_is_no_key_of_the_recipe_is_refused(tmp_path: Path) -> None:
    plan = plan_of(checkout(tmp_path, changed(set={"train.stepz": 3})))
    with pytest.raises(RecipeError, match=r"train\.stepz; did you mean 'steps'"):
        plan.cell("tiny/ce/0").digest()


def test_the_hash_does_not_depend_on_where_the_data_lie(tmp_path: Path) -> None:
    here = plan_of(checkout(tmp_path / "a", changed(data="camvid:data/camvid"))).cell("tiny/ce/0")
    there = plan_of(checkout(tmp_path / "b", changed(data="camvid:/elsewhere/camvid"))).cell("tiny/ce/0")
    other = plan_of(checkout(tmp_path / "c", changed(data="voc:/elsewhere/voc"))).cell("tiny/ce/0")
    assert here.digest() == there.digest()
    assert here.digest() != other.digest()


def test_the_options_of_drawn_data_do_matter(tmp_path: Path) -> None:
    cell = plan_of(checkout(tmp_path / "a")).cell("tiny/ce/0")
    recipe = RECIPE | {"data": "synthetic:size=32x32,train=9,val=4,unbiased=4"}
    assert cell.digest() != plan_of(checkout(tmp_path / "b", recipe=recipe)).cell("tiny/ce/0").digest()


def test_every_spelling_of_a_place_is_one_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = plan_of(checkout(tmp_path, changed(data="camvid:data/../data/camvid"))).cell("tiny/ce/0")
    assert cell.recipe().data == f"camvid:{tmp_path}/data/camvid"
    assert cell.recipe("camvid:/elsewhere").data == "camvid:/elsewhere"
    assert absolute("camvid:near", Path("/some")) == "camvid:/some/near"
    monkeypatch.setenv("HOME", "/home/me")
    assert absolute("camvid:~/data", Path("/some")) == "camvid:/home/me/data"
    assert absolute(RECIPE["data"], Path("/some")) == RECIPE["data"]
    assert absolute("camvid:", Path("/some")) == "camvid:"


def test_a_setting_of_one_part_with_a_seed_of_another_is_refused(tmp_path: Path) -> None:
    baseline = {"settings": ["ce", "dropclass λ1 α10"], "seeds": [0]}
    plan = plan_of(checkout(tmp_path, changed(**PARTS | {"choose": baseline})))
    with pytest.raises(UserError, match="the grid tiny does not run dropclass λ1 α10 with seed 10; expected settings"):
        plan.cells(plan.grid("tiny"), ["dropclass λ1 α10"], [10])


def test_a_renamed_setting_of_the_same_file_name_keeps_its_cells(tmp_path: Path) -> None:
    root = checkout(tmp_path)
    cell = plan_of(root).cell("tiny/dropclass-lambda1-alpha10/0")
    Store(root.results).write(cell, stored(cell, head(0.5, 0.4, 0.6, 0.4)))
    settings = {"ce": {}, "DropClass λ1 α10": PLAN["settings"]["dropclass λ1 α10"]}
    grids = changed(settings=list(settings))["grids"]
    renamed = plan_of(checkout(tmp_path, {"settings": settings, "grids": grids}))
    part = gather(root, renamed, Store(root.results)).parts["tiny"]["all"]
    assert part.settings == ("DropClass λ1 α10",)
    assert part.cells("DropClass λ1 α10").keys() == {0}


def test_data_of_another_format_are_refused(tmp_path: Path) -> None:
    grid = plan_of(checkout(tmp_path, changed(data="camvid:data/camvid"))).grid("tiny")
    check_same_data(grid, "camvid:/elsewhere")
    with pytest.raises(UserError, match=r"--data tiny=voc:here; expected --data tiny=camvid:PATH"):
        check_same_data(grid, "voc:here")
    with pytest.raises(UserError, match=r"--data tiny=camvid; expected --data tiny=camvid:PATH"):
        check_same_data(grid, "camvid")


def test_a_cell_is_missing_then_there_then_stale(tmp_path: Path) -> None:
    root = checkout(tmp_path)
    store, cell = Store(root.results), plan_of(root).cell("tiny/ce/0")
    assert store.state(cell) == MISSING
    path = store.write(cell, stored(cell, head(0.5, 0.4, 0.6, 0.4)))
    assert path == tmp_path / "benchmarks/results/evidence/tiny/ce/0.json"
    assert store.state(cell) == FRESH
    for plan in (changed(set={"train.ema": 0.9}), changed(evaluate=[{"split": "train"}])):
        now = plan_of(checkout(tmp_path, plan)).cell("tiny/ce/0")
        assert store.state(now) == STALE
        assert store.fresh([now]) == []


def test_a_stored_file_that_is_no_cell_is_refused(tmp_path: Path) -> None:
    root = checkout(tmp_path)
    store, cell = Store(root.results), plan_of(root).cell("tiny/ce/0")
    store.path(cell).parent.mkdir(parents=True)
    without_figures = json.dumps(stored(cell, {"miou": 0.5}))
    for content in ("{", "[1]", '{"recipe_sha256": "a"}', without_figures):
        store.path(cell).write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=r"0\.json .*remove it, and run its grid again"):
            store.state(cell)


def test_floats_are_rounded_and_nan_is_null() -> None:
    assert rounded({"a": [0.123456789, float("nan")], "b": 7, "c": "x", "d": True}) == {
        "a": [0.123457, None],
        "b": 7,
        "c": "x",
        "d": True,
    }


def test_a_stored_recipe_stands_while_only_defaults_came(tmp_path: Path) -> None:
    recipe = plan_of(checkout(tmp_path)).cell("tiny/ce/0").identity
    facts = recipe_facts(recipe)
    assert is_same(facts, recipe)
    assert not is_same({}, recipe)

    def older(**without: bool) -> dict[str, Any]:
        return {**facts, "recipe": {key: value for key, value in facts["recipe"].items() if key not in without}}

    # A key that a later version added: at its default nothing has changed; at another value the run is another.
    assert is_same(older(**{"method.plain_weight": True}), recipe)
    full = recipe.model_copy(update={"method": recipe.method.model_copy(update={"plain_weight": "full"})})
    assert not is_same(older(**{"method.plain_weight": True}), full)
    assert not is_same(facts, full)
    # A default that has changed since.
    assert not is_same({**facts, "recipe": facts["recipe"] | {"train.flip": 0.25}}, recipe)
    # A key that is gone: what had been left at its default stands, what had been chosen does not.
    assert is_same({**facts, "recipe": facts["recipe"] | {"method.gone": 1}}, recipe)
    assert not is_same({"recipe": facts["recipe"] | {"method.gone": 1}, "chosen": ["method.gone"]}, recipe)


def test_the_packages_own_cells_and_documents_are_of_its_plan() -> None:
    root = Root(Path(__file__).parents[2])
    plan, store = plan_of(root), Store(root.results)
    paths = {store.path(cell): cell for grid in plan.grids.values() for cell in plan.cells(grid)}
    stored_files = set(root.results.glob("*/*/*.json"))
    assert stored_files <= set(paths)
    assert [str(path) for path in stored_files if store.state(paths[path]) != FRESH] == []
    assert len(stored_files) >= 44


def test_the_packages_own_plan_fits() -> None:
    root = Root(Path(__file__).parents[2])
    plan = plan_of(root)
    digests = [cell.digest() for grid in plan.grids.values() for cell in plan.cells(grid) if cell.retired is None]
    assert len(set(digests)) == len(digests)
