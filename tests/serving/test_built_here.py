"""A plan is code: only one that this user built here, or took in by name, is run."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from serving_builders import write_artifact

from dropclass_deploy.core.errors import ArtifactError, UserError
from dropclass_deploy.core.files import sha256_of
from dropclass_deploy.serving.runtimes.tensorrt_native.built_here import (
    check_built_here,
    remember,
    was_built_here,
)
from dropclass_deploy.serving.runtimes.tensorrt_native.engine_choice import choose_engine, trust_engine
from dropclass_deploy.serving.runtimes.tensorrt_native.engine_record import (
    EngineRecord,
    EngineRequest,
    read_record,
    record_path,
)

NETWORK = "models/model.mask.onnx"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DROPCLASS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "engines"


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """An artifact that brings a plan of its own, and a sidecar that vouches for it."""
    folder = write_artifact(tmp_path / "street")
    plan = plan_of(folder)
    plan.parent.mkdir(parents=True)
    plan.write_bytes(b"code")
    request = EngineRequest(
        library="tensorrt-rtx",
        library_version="1.7",
        compute_capabilities=(),
        onnx=NETWORK,
        onnx_sha256=sha256_of(folder / NETWORK),
        precision="fp32",
    )
    record = EngineRecord(
        request=request,
        plan_sha256=hashlib.sha256(b"code").hexdigest(),
        inputs=(),
        outputs=(),
        metadata={"b": "1", "a": "2"},
        build_s=0.125,
    )
    record_path(plan).write_text(record.model_dump_json(indent=2))
    return folder


def plan_of(folder: Path) -> Path:
    return folder / "evidence/engines/fp32.tensorrt-rtx.any.plan"


def test_a_foreign_plan_is_refused_until_it_is_taken_in_by_name(artifact: Path, cache: Path) -> None:
    plan = plan_of(artifact)
    with pytest.raises(ArtifactError, match=r"not built by you.*dropclass engine ARTIFACT --trust PLAN"):
        check_built_here(plan, read_record(plan))
    assert trust_engine(artifact, plan) == read_record(plan)
    check_built_here(plan, read_record(plan))
    (mark,) = cache.iterdir()
    assert (cache.stat().st_mode & 0o777, mark.stat().st_mode & 0o777, mark.read_bytes()) == (0o700, 0o600, b"")


@pytest.mark.parametrize("name", ["tf32", "plan_sha256", "metadata"])
def test_nothing_of_a_sidecar_can_be_changed_behind_the_mark(artifact: Path, cache: Path, name: str) -> None:
    record = read_record(plan_of(artifact))
    assert remember(record)
    changes = {
        "tf32": {"request": record.request.model_copy(update={"tf32": True})},
        "plan_sha256": {"plan_sha256": "0" * 64},
        "metadata": {"metadata": {"a": "2"}},
    }
    assert not was_built_here(record.model_copy(update=changes[name]))
    assert was_built_here(record)


def test_marks_that_others_can_write_are_none(artifact: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = read_record(plan_of(artifact))
    assert remember(record)
    for path in (cache, *cache.iterdir()):
        mode = path.stat().st_mode
        path.chmod(mode | 0o022)
        assert not was_built_here(record)
        path.chmod(mode)
    assert was_built_here(record)
    monkeypatch.setattr(os, "getuid", lambda: cache.stat().st_uid + 1)
    assert not was_built_here(record)


def test_without_a_cache_folder_nothing_is_trusted(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DROPCLASS_CACHE", str(tmp_path / "file"))
    assert not remember(read_record(plan_of(artifact)))
    with pytest.raises(UserError, match="set DROPCLASS_CACHE"):
        trust_engine(artifact, plan_of(artifact))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: plan_of(folder).write_bytes(b"other code"), "not the plan that was built"),
        (lambda folder: (folder / NETWORK).write_bytes(b"other network"), "was built from another models/model"),
        (lambda folder: record_path(plan_of(folder)).unlink(), "has no sidecar"),
        (lambda folder: (folder / NETWORK).unlink(), "does not have"),
    ],
)
def test_what_does_not_belong_together_is_not_taken_in(artifact: Path, cache: Path, spoil, message: str) -> None:
    spoil(artifact)
    with pytest.raises(ArtifactError, match=message):
        trust_engine(artifact, plan_of(artifact))
    assert not cache.exists()


@pytest.mark.parametrize("name", ["evidence", "evidence/engines"])
def test_plans_behind_a_link_are_not_looked_for(artifact: Path, tmp_path: Path, name: str) -> None:
    shutil.move(artifact / name, tmp_path / "elsewhere")
    (artifact / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match=f"{name} is a link"):
        choose_engine(artifact / NETWORK)
