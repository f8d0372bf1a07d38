"""Recipes: what is refused, and that the message leads to the key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dropclass_deploy.core.errors import RecipeError
from dropclass_deploy.training.recipe import ClassMixOptions, Recipe, load_recipe, parse_recipe

MINIMAL = {"data": "synthetic:", "model": {"name": "lite0"}, "train": {"steps": 10}}


def changed(path: str, value: object) -> dict[str, object]:
    content = yaml.safe_load(yaml.safe_dump(MINIMAL))
    target = content
    *parents, last = path.split(".")
    for part in parents:
        target = target.setdefault(part, {})
    target[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("method.lamda_max", 1, r"unknown key method\.lamda_max; did you mean 'lambda_max'"),
        ("colour", 1, r"unknown key colour"),
        ("train.steps", "many", r"train\.steps: .*valid integer.*'many'"),
        ("train.steps", 0, r"train\.steps: .*greater than or equal to 1"),
        ("train.crop", [0, 32], r"train\.crop\.0: "),
        ("train.photometric.hue", 0.7, r"train\.photometric\.hue: .*0\.5"),
        ("method.name", "dropout", r"method\.name: .*'ce', 'ce\+block' or 'dropclass'"),
        ("method.with", ["oheem"], r"method\.with: 'oheem' is not available; this version has: median_frequency"),
        ("method.alpha", -1, r"method\.alpha: .*greater than or equal to 0"),
        ("train.scale", [2.0, 0.5], r"train: scale is \[2\.0, 0\.5\]: the smaller factor comes first"),
        ("train.warmup_steps", 10, r"warmup_steps 10 is not below steps 10"),
        ("train.device", "tpu", r"device is 'tpu'"),
        ("preprocess", {"std": [0, 1, 1]}, r"preprocess: .*above 0"),
        ("method.options", {"ohem": {"k": 1}}, r"method\.options\.ohem"),
        ("method.options", {"class_mix": {}}, r"method\.options: class_mix has no say: method\.with does not list it"),
        ("method.options", {"median_frequency": {"pwer": 1}}, r"unknown key .*pwer; did you mean 'power'"),
        ("method.options", {"median_frequency": {"power": 2}}, r"median_frequency\.power: .*less than or equal to 1"),
        ("method.options", 3, r"method\.options: .*dictionary"),
        ("method.with", ["class_mix", "class_mix"], r"method\.with: a component is listed twice"),
        ("train.steps", True, r"train\.steps: .*valid integer"),
        ("train.steps", "200", r"train\.steps: .*valid integer"),
        ("train.steps", 200.0, r"train\.steps: .*valid integer"),
        ("train.steps", 10**22, r"train\.steps: .*less than or equal"),
        ("train.flip", True, r"train\.flip: .*valid number"),
        ("train.lr", float("inf"), r"train\.lr: .*finite"),
        ("train.lr", "fast", r"train\.lr: .*valid number"),
        ("train.scale", [1.0, 2.0], r"scale is given without crop"),
        ("train.device", "cuda:abc", r"device is 'cuda:abc'"),
    ],
)
def test_a_key_that_does_not_fit_is_named(path: str, value: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(changed(path, value))


def test_numbers_with_an_exponent_are_numbers() -> None:
    # YAML 1.1 reads 1e-3 as text, for want of a dot.
    assert parse_recipe(yaml.safe_load("{data: x, model: {name: a}, train: {steps: 1, lr: 1e-3}}")).train.lr == 1e-3


def test_an_empty_section_has_its_defaults(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("data: x\nmodel: {name: a}\nmethod:\ntrain: {steps: 1}\n")
    assert load_recipe(path).method.name == "dropclass"
    assert load_recipe(path, ["method.name=ce"]).method.name == "ce"


def test_a_missing_key_is_named() -> None:
    with pytest.raises(RecipeError, match=r"the key train is missing"):
        parse_recipe({"data": "synthetic:", "model": {"name": "lite0"}})


def test_a_folded_head_needs_dropclass() -> None:
    content = changed("method.name", "ce")
    content["export"] = {"deploy_head": "folded"}
    with pytest.raises(RecipeError, match=r"'ce' has no folded head"):
        parse_recipe(content)


def test_overrides_are_yaml_and_reach_new_sections(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    recipe = load_recipe(path, ["train.crop=[32, 48]", "method.name=ce", "method.with=[]", "model.weights=null"])
    assert recipe.train.crop == (32, 48)
    assert recipe.method.name == "ce"
    assert recipe.method.components == ()
    assert recipe.model.weights is None


def test_listed_components_have_their_defaults_and_others_none() -> None:
    recipe = parse_recipe(changed("method.with", ["class_mix"]))
    assert recipe.method.options.class_mix == ClassMixOptions(images=0.5, classes=0.5)
    assert recipe.method.options.median_frequency is None
    assert parse_recipe(yaml.safe_load(recipe.to_yaml())) == recipe


@pytest.mark.parametrize("components", ["[]", "[class_mix]"])
@pytest.mark.parametrize("name", ["camvid", "synthetic", "wbc"])
def test_the_packages_recipes_take_other_components(name: str, components: str) -> None:
    path = Path(__file__).parents[2] / "recipes" / f"{name}.yaml"
    recipe = load_recipe(path, [f"method.with={components}"])
    assert list(recipe.method.components) == yaml.safe_load(components)
    assert recipe.method.options.median_frequency is None
    with pytest.raises(RecipeError, match="median_frequency has no say"):
        load_recipe(path, [f"method.with={components}", "method.options.median_frequency.power=1"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train..steps=3", r"a part of the key is empty"),
        ("train.steps", r"expected key\.sub=value"),
        ("=3", r"expected key\.sub=value"),
        ("data.split=x", r"--set data\.split: data holds 'synthetic:'"),
        ("train.crop=[1", r"the value is not YAML"),
        ("train.stepz=3", r"unknown key train\.stepz; did you mean 'steps'"),
    ],
)
def test_a_bad_override_is_refused(tmp_path: Path, override: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    with pytest.raises(RecipeError, match=message):
        load_recipe(path, [override])


@pytest.mark.parametrize(
    ("content", "message"), [("a: [", "is not YAML"), ("- 1", "holds list"), ("", "holds NoneType")]
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(content)
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


def test_a_missing_recipe_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "there.yaml").write_text("x: 1")
    with pytest.raises(RecipeError, match=r"there is no recipe .*gone\.yaml.*there\.yaml"):
        load_recipe(tmp_path / "gone.yaml")


def written(folder: Path, **files: str) -> Path:
    """Some YAML files; the path of the first."""
    paths = [folder / f"{name}.yaml" for name in files]
    for path, content in zip(paths, files.values(), strict=True):
        path.write_text(content)
    return paths[0]


BELOW = yaml.safe_dump(MINIMAL)


def test_a_recipe_builds_on_another(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    written(tmp_path / "inner", middle="base: ../below.yaml\nmethod: {alpha: 3}\ntrain: {lr: 0.5}\n")
    path = written(tmp_path, top="base: inner/middle.yaml\nmethod: {name: ce}\ntrain: {seed: 7}\n", below=BELOW)
    found, below = load_recipe(path), load_recipe(tmp_path / "below.yaml")
    assert (found.method.name, found.method.alpha, found.train.lr, found.train.seed) == ("ce", 3, 0.5, 7)
    assert found.train.steps == below.train.steps
    assert found.data == below.data
    assert parse_recipe(yaml.safe_load(found.to_yaml())) == found


def test_other_components_take_the_options_of_those_below_with_them(tmp_path: Path) -> None:
    below = BELOW + "\nmethod: {with: [median_frequency, class_mix], options: {median_frequency: {power: 0.5}}}\n"
    path = written(tmp_path, top="base: below.yaml\nmethod: {with: [class_mix]}\n", below=below)
    assert load_recipe(path).method.options.median_frequency is None
    own = "base: below.yaml\nmethod: {with: [class_mix], options: {median_frequency: {power: 1}}}\n"
    with pytest.raises(RecipeError, match="median_frequency has no say"):
        load_recipe(written(tmp_path, own=own))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("base: top.yaml", r"top\.yaml: base leads back to .*top\.yaml"),
        ("base: other.yaml", r"other\.yaml: base leads back to .*top\.yaml"),
        ("base: gone.yaml", r"there is no recipe .*gone\.yaml; .* has .*other\.yaml"),
        ("base: 3", r"base is 3; expected the path of a recipe"),
        ("base: ''", r"base is ''; expected the path"),
        ('base: "a\\0b"', r"base is 'a\\x00b'; expected the path"),
    ],
)
def test_a_base_that_is_none(tmp_path: Path, content: str, message: str) -> None:
    path = written(tmp_path, top=content, other="base: top.yaml")
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


def test_another_network_takes_nothing_over_from_the_one_below(tmp_path: Path) -> None:
    below = BELOW + "\nmodel: {name: unet, weights: a.pth, options: {width: 8}, classifier: head}\n"
    other = written(tmp_path, top="base: below.yaml\nmodel: {name: lite0}\n", below=below)
    same = written(tmp_path, same="base: below.yaml\nmodel: {options: null, weights: null}\n")
    for path in (other, same):
        assert load_recipe(path).model.options == {}
        assert load_recipe(path).model.weights is None
    assert load_recipe(other).model.classifier is None
    assert load_recipe(same).model.classifier == "head"


@pytest.mark.parametrize("given", ["[{focal: {gamma: 3}}]", "[[focal]]", "focal", "3"])
def test_components_that_are_no_names(tmp_path: Path, given: str) -> None:
    below = BELOW + "\nmethod: {with: [focal], options: {focal: {gamma: 1}}}\n"
    path = written(tmp_path, top=f"base: below.yaml\nmethod: {{with: {given}}}\n", below=below)
    with pytest.raises(RecipeError, match=r"method\.with"):
        load_recipe(path)
    with pytest.raises(RecipeError, match=r"method\.with"):
        load_recipe(tmp_path / "below.yaml", [f"method.with={given}"])


def test_options_that_would_have_no_say_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"crops is 50, and nothing is cropped"):
        parse_recipe(
            changed("method", {"with": ["rare_class_sampling"], "options": {"rare_class_sampling": {"crops": 50}}})
        )
    with pytest.raises(RecipeError, match=r"power is given, and schedule is step"):
        parse_recipe(changed("train", {"steps": 10, "schedule": "step", "power": 0.5}))


def test_bases_without_end(tmp_path: Path) -> None:
    files = {f"r{number}": f"base: r{number + 1}.yaml" for number in range(9)}
    with pytest.raises(RecipeError, match=r"r0\.yaml builds on more than 7 other recipes"):
        load_recipe(written(tmp_path, **files, r9=BELOW))


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"cannot be read|not YAML"):
        load_recipe(path)


def test_yaml_round_trip_keeps_the_digest(tmp_path: Path) -> None:
    recipe = parse_recipe(changed("method.with", []))
    path = tmp_path / "r.yaml"
    path.write_text(recipe.to_yaml())
    assert load_recipe(path) == recipe
    assert load_recipe(path).digest() == recipe.digest()


def test_the_digest_follows_what_determines_the_result() -> None:
    base = parse_recipe(MINIMAL).digest()
    assert parse_recipe(changed("train.seed", 1)).digest() != base
    assert parse_recipe(changed("train.workers", 2)).digest() == base


def test_every_shipped_recipe_is_valid() -> None:
    folder = Path(__file__).parents[2] / "recipes"
    names = [path for path in sorted(folder.rglob("*.yaml")) if not path.name.endswith(".classes.yaml")]
    assert {path.stem for path in names} >= {"synthetic", "camvid", "wbc", "hourglass", "vgg_resnet", "template"}
    assert all(isinstance(load_recipe(path), Recipe) for path in names)
