"""The page's two partials: rendered from the JSON alone, every figure of a small case, hostile names."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from audit_cases import PLAIN, ListedData, RedNeedsGreen, WideView, random_pairs, subject_of
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import dropclass_deploy.analysis
from dropclass_deploy.analysis.co_location import CoLocationAudit, co_location_section, plan_audit
from dropclass_deploy.analysis.correlation import Correlation, correlation_section, weight_cosines
from dropclass_deploy.analysis.report.formats import count, percent, points
from dropclass_deploy.analysis.subject import Section, sweep

TEMPLATES = Path(dropclass_deploy.analysis.__file__).parent / "bias_card" / "templates"
HOSTILE = "<b>&x"


def rendered(name: str, section: Section, classes, runs) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "points": points, "count": count}
    card = {
        "classes": [
            {"name": name, "colour": [1, 2, 3], "rare": at == 1, "pixels": 5} for at, name in enumerate(classes)
        ],
        "runs": [{"name": name, "method": "ce"} for name in runs],
    }

    def picture(path: str, alt: str) -> Markup:
        assert path in section.pictures
        return Markup('<img src="data:," alt="{}">').format(alt)

    page = "{% include name %}"
    content = json.loads(json.dumps(section.content, allow_nan=False))
    return environment.from_string(page).render(name=f"{name}.html.j2", section=content, card=card, picture=picture)


def audited(data, *models) -> Section:
    indices = range(len(data))
    plan = plan_audit(data, indices)
    audits = []
    for at, model in enumerate(models):
        subject = subject_of(model, data.classes.names, PLAIN, f"run {at}")
        audits.append(CoLocationAudit(subject, plan))
        sweep(subject, data, indices, audits[-1:])
    return co_location_section(plan, [audit.result() for audit in audits], data.classes)


def cells(html: str, row: str) -> list[str]:
    """Text of the data cells in the first row headed ``row``."""
    found = re.search(rf'<th scope="row">{re.escape(row)}.*?</tr>', html, re.S)
    assert found is not None
    return [re.sub(r"<[^>]*>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", found[0], re.S)]


def two_coloured() -> ListedData:
    image, truth = random_pairs([(4, 4)], [(0, 1)])[0]
    truth[:2], truth[2:] = 0, 1
    image[:2], image[2:] = (0, 255, 0), (255, 0, 0)
    image[0, :2] = (255, 0, 0)
    return ListedData([(image, truth)], ("green", "red"))


def test_the_audit_of_two_classes() -> None:
    html = rendered("co_location", audited(two_coloured(), RedNeedsGreen()), ("green", "red"), ("run 0",))
    # 77.5 → 37.5 over both classes, 80 → 0 for the vulnerable one.
    assert cells(html, "run 0") == ["77.5", "37.5", "−40.0", "80.0", "0.0", "−80.0"]
    assert cells(html, "green") == ["75.0", "75.0", "0.0", "red"]
    assert cells(html, "red") == ["80.0", "0.0", "−80.0", "green"]
    assert 'style="--value: -1.000">0.0</td>' in html


def test_the_audit_of_two_runs_and_a_class_that_is_nowhere() -> None:
    data = ListedData(random_pairs([(6, 6), (7, 5)], [(0, 1), (0, 1, 255)]), ("a", HOSTILE, "c"))
    models = [WideView(3, seed) for seed in (0, 1)]
    for model in models:
        model.classifier.bias.data[2] = -1e6
    html = rendered("co_location", audited(data, *models), data.classes.names, ("run 0", "run 1"))
    assert "<b>" not in html
    assert "&lt;b&gt;&amp;x" in html
    assert cells(html, "c") == ["–"] * 7
    assert html.count("<img") == 2
    assert "Erased nowhere, because no image has it: c." in html


@pytest.mark.parametrize("classes", [24, 25])
def test_many_classes_are_a_picture(classes: int) -> None:
    names = tuple(f"class {index}" for index in range(classes))
    data = ListedData(random_pairs([(12, 12)], [range(classes)]), names)
    html = rendered("co_location", audited(data, WideView(classes)), names, ("run 0",))
    assert ("<details>" in html) == (classes == 24)
    assert html.count("<img") == 1


def test_correlations_of_two_runs_and_none() -> None:
    import torch

    weight = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    runs = [
        Correlation("plain", weight_cosines(weight), classifier="head"),
        Correlation("ours", weight_cosines(torch.eye(3)), classifier="head"),
        Correlation("bent", None, "its head is not linear"),
    ]
    names = ("a", HOSTILE, "c")
    classes = ListedData([], names).classes
    html = rendered("correlation", correlation_section(runs, classes, (10, 60, 30)), names, ("plain", "ours", "bent"))
    assert cells(html, "a") == ["10.00", "−1.00", "1.00", "0.00", "0.00"]
    assert cells(html, "mean") == ["", "−0.67", "0.67", "0.00", "0.00"]
    assert html.index("&lt;b&gt;&amp;x") < html.index(">c<") < html.index(">a<")
    assert html.count("<img") == 3
    assert "bent: not measured (its head is not linear)." in html
    assert "<b>" not in html


def test_correlations_of_nothing() -> None:
    names = ("a", "b")
    section = correlation_section([Correlation("bent", None, "why")], ListedData([], names).classes, None)
    assert "<table" not in rendered("correlation", section, names, ("bent",))
