"""Limits from the command line."""

from pathlib import Path

import pytest

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.serving.server.settings import ServerSettings
from dropclass_deploy.serving.server.settings_given import described, settings_from


def test_the_defaults_are_safe() -> None:
    settings = settings_from([], {"host": None, "port": None}, environment={})
    assert settings == ServerSettings()
    assert settings.host == "127.0.0.1"
    assert settings.waiting == settings.max_batch


def test_pairs_are_read_as_yaml_and_options_win_nothing_by_none() -> None:
    pairs = ["max_batch=8", "formats=[PNG]", "timeout_s=2.5", "access_log=false", "queue_size=3"]
    settings = settings_from(pairs, {"host": "::1", "port": None}, environment={})
    assert (settings.max_batch, settings.formats, settings.timeout_s, settings.access_log) == (8, ("PNG",), 2.5, False)
    assert (settings.host, settings.port, settings.waiting) == ("::1", 8000, 3)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("max_batch", "--set 'max_batch'; expected key=value"),
        ("max_batch=0", "the setting max_batch: Input should be greater than or equal to 1"),
        ("max_batch=[", "is no YAML"),
        ("timeout_s=.inf", "the setting timeout_s: "),
        ("max_pixel=9", "there is no setting 'max_pixel'; expected one of host, port, "),
        ("formats=[PNG, EXE]", "the setting formats.1: "),
        ("formats=[]", "the setting formats: "),
        ("port=99999", "the setting port: "),
        ("tls_cert=a.pem", "tls_cert and tls_key belong together"),
        ("api_key=secret", "--set api_key would show the key to everybody; use --api-key-file or DROPCLASS_API_KEY"),
    ],
)
def test_mistakes_name_the_setting(pair: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        settings_from([pair], {}, environment={})
    assert message in str(caught.value)
    assert "secret" not in str(caught.value).replace("secret to everybody", "")


def test_the_key_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("  from-file \nrest\n")
    environment = {"DROPCLASS_API_KEY": "from-environment"}

    def key(file: Path | None) -> str:
        found = settings_from([], {}, file, environment).api_key
        assert found is not None
        assert "from-" not in repr(found)
        return found.get_secret_value()

    assert key(path) == "from-file"
    assert key(None) == "from-environment"
    environment["DROPCLASS_API_KEY"] = "from-secret\n"
    assert key(None) == "from-secret"
    path.write_text("schlüssel")
    with pytest.raises(UserError, match="a sign that a header does not carry; expected printable ASCII"):
        key(path)
    path.write_text("\n")
    with pytest.raises(UserError, match="key is empty"):
        key(path)
    with pytest.raises(UserError, match="cannot be read"):
        key(tmp_path / "nowhere")
    with pytest.raises(UserError, match="api_key is empty"):
        settings_from([], {}, None, {"DROPCLASS_API_KEY": ""})


def test_every_limit_has_a_default_and_a_reason() -> None:
    rows = described()
    assert len(rows) == len(ServerSettings.model_fields)
    assert all(reason.endswith(".") for _, _, reason in rows)
    assert ("formats", "PNG,JPEG,WEBP") in [(name, default) for name, default, _ in rows]
