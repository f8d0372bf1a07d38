"""What is analysed: runs opened side by side, and one watched pass over a split."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import DATA, write_run

from dropclass_deploy.analysis.subject import Seen, device_named, open_subjects, sweep
from dropclass_deploy.core.errors import DataError, RunError, UserError
from dropclass_deploy.core.metrics import scores
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.training import evaluate_network

STREET = open_dataset(DATA, "val")


class Recorder:
    def __init__(self) -> None:
        self.seen: list[Seen] = []

    def observe(self, seen: Seen) -> None:
        self.seen.append(seen)


def test_runs_are_called_by_as_much_of_their_path_as_tells_them_apart(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / "a" / "run"), write_run(tmp_path / "b" / "run"), write_run(tmp_path / "other")]
    assert [subject.name for subject in open_subjects(paths[1:], STREET)] == ["run", "other"]
    assert [subject.name for subject in open_subjects(paths[:2], STREET)] == ["a/run", "b/run"]


def test_the_same_run_twice_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with pytest.raises(RunError, match="named twice"):
        open_subjects([run, tmp_path / "." / "run"], STREET)


def test_data_of_other_classes_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    other = open_dataset(DATA, "val")
    other.classes = other.classes.model_copy(update={"names": tuple(f"c{place}" for place in range(12))})
    with pytest.raises(DataError, match="run"):
        open_subjects([run], other)


def test_the_network_is_the_deployed_one(tmp_path: Path) -> None:
    plain, folded = (
        open_subjects([write_run(tmp_path / head, method="dropclass", head=head)], STREET)[0]
        for head in ("plain", "folded")
    )
    image = STREET.image(0)
    assert plain.run.deploy_head == "plain"
    assert plain.classifier is not None
    assert plain.classifier.num_classes == 12
    assert not plain.model.training
    assert not any(parameter.requires_grad for parameter in folded.model.parameters())
    assert not torch.allclose(plain.segment.logits(image), folded.segment.logits(image))


def test_all_are_judged_on_the_rare_classes_of_the_first(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / "first"), write_run(tmp_path / "second")]
    content = json.loads((paths[1] / "model.json").read_text())
    content["classes"]["rare"] = [0, 1]
    (paths[1] / "model.json").write_text(json.dumps(content))
    first, second = open_subjects(paths, STREET)
    assert second.classes.rare == first.classes.rare != (0, 1)
    assert open_subjects(paths[::-1], STREET)[1].classes.rare == (0, 1)


def test_a_network_of_one_size_has_its_classifier(tmp_path: Path) -> None:
    """It takes 32×48 only, the size that training probed it with."""
    subject = open_subjects([write_run(tmp_path / "run", model="python:one_size:build")], STREET)[0]
    assert subject.classifier is not None, subject.no_classifier


def test_a_folded_head_has_a_classifier_too_or_a_reason(tmp_path: Path) -> None:
    subject = open_subjects([write_run(tmp_path / "run", method="dropclass", head="folded")], STREET)[0]
    assert (subject.classifier is None) == bool(subject.no_classifier)


@pytest.mark.parametrize("preprocess", [Preprocess(), Preprocess(size=(24, 24))], ids=["as they are", "resized"])
def test_a_sweep_counts_what_an_evaluation_counts(tmp_path: Path, preprocess: Preprocess) -> None:
    subject = open_subjects([write_run(tmp_path / "run", preprocess=preprocess)], STREET)[0]
    recorder, told = Recorder(), []
    confusions = sweep(subject, STREET, range(5), [recorder], lambda done, total, *_: told.append((done, total)))
    expected = evaluate_network(subject.model, STREET, subject.segment.preprocess, rare=subject.classes.rare)
    found = scores(confusions.sum(axis=0), subject.classes.rare)
    np.testing.assert_array_equal(found.iou, expected.iou)
    assert told == [(done, 5) for done in range(1, 6)]
    assert [seen.index for seen in recorder.seen] == [0, 1, 2, 3, 4]
    for seen in recorder.seen:
        assert seen.logits.shape == (12, 32, 48)
        np.testing.assert_array_equal(seen.mask, subject.segment(seen.image))
        np.testing.assert_array_equal(seen.truth, STREET.mask(seen.index))


def test_a_sweep_of_some_images_is_in_their_order(tmp_path: Path) -> None:
    subject = open_subjects([write_run(tmp_path / "run")], STREET)[0]
    whole = sweep(subject, STREET, range(5))
    np.testing.assert_array_equal(sweep(subject, STREET, [3, 1]), whole[[3, 1]])


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "meta?"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="cannot be used here"):
        device_named(name)


def test_the_cpu_is_a_device() -> None:
    assert device_named("cpu") == torch.device("cpu")
