"""docs/serving.md says what the server does."""

from pathlib import Path

from server_builders import client

from dropclass_deploy.serving.server.metrics import COUNTERS, HISTOGRAMS
from dropclass_deploy.serving.server.settings_given import described

TEXT = (Path(__file__).parents[3] / "docs" / "serving.md").read_text(encoding="utf-8")


def test_every_limit_stands_there_as_it_is() -> None:
    for name, default, reason in described():
        assert f"| `{name}` | {default} | {reason} |" in TEXT


def test_every_figure_has_its_name_there() -> None:
    for name in (*COUNTERS, *HISTOGRAMS):
        assert f"`{name}" in TEXT, name


def test_every_route_of_the_schema_is_named() -> None:
    with client() as http:
        paths = http.get("/openapi.json").json()["paths"]
    assert "/v2/models/{name}/infer" in paths
    for path in paths:
        assert path.replace("{name}", "NAME") in TEXT, path
