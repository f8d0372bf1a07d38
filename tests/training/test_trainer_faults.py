"""What happens between the lines: kills at awkward instants, data that change, a second start, disks and memory that end.

The network is tiny and the caller's own; each test breaks one thing on the way.
"""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_folders import write_classes, write_sound_folder
from rounds import first_of
from small_network import SmallNetwork
from test_trainer import DATA, contents, recipe, records
from torch import Tensor, nn

from dropclass_deploy.core.errors import (
    DataError,
    DropclassError,
    ModelError,
    RecipeError,
    RunError,
    TrainingInterruptedError,
)
from dropclass_deploy.core.progress import Advance
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.training import train
from dropclass_deploy.training.loop import saving, stop_signals
from dropclass_deploy.training.loop.failures import explained_evaluation_memory, explained_memory
from dropclass_deploy.training.loop.stop_signals import StopSignals
from dropclass_deploy.training.recipe import Recipe
from dropclass_deploy.training.runs.checkpoint import checkpoint_folders, read_checkpoint
from dropclass_deploy.training.runs.lock import FolderLock

CLASSES = len(open_dataset(DATA, "val").classes)


def small(classes: int = CLASSES) -> SmallNetwork:
    return SmallNetwork(classes)


class Watcher:
    """A reporter that does something when a training step has been reported, or when something is noted."""

    def __init__(
        self, steps: dict[int, Callable[[], None]] | None = None, notes: dict[str, Callable[[], None]] | None = None
    ) -> None:
        self.steps, self.on_note = steps or {}, notes or {}
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)
        for beginning, action in self.on_note.items():
            if text.startswith(beginning):
                action()

    @contextmanager
    def phase(self, title: str) -> Iterator[Advance]:
        def advance(done: int, _total: int, _status: str = "", /) -> None:
            if title == "training" and done in self.steps:
                self.steps[done]()

        yield advance


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


def stopped(content: Recipe, folder: Path, step: int, model: nn.Module | None = None) -> Path:
    """A run that a signal stopped after a step."""
    with pytest.raises(TrainingInterruptedError):
        train(content, folder, model=model or small(), reporter=Watcher({step: terminate}))
    return folder


def without_rates(run: Path, kind: str) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in line.items() if key not in {"images_per_s", "data_share"}}
        for line in records(run, kind)
    ]


# Kills and resumes


@pytest.mark.slow
def test_a_record_that_spans_the_stop_is_that_of_an_unbroken_run(tmp_path: Path) -> None:
    content = recipe(train__log_every=4, train__steps=8)
    whole = train(content, tmp_path / "whole", model=small())
    path = stopped(content, tmp_path / "run", step=3)
    train(content, path, model=small(), resume=True)
    assert [line["step"] for line in records(path, "train")] == [4, 8]
    assert without_rates(path, "train") == without_rates(whole, "train")


def test_no_step_is_saved_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replacing a checkpoint by its equal opens an instant in which there is none."""
    written: list[int] = []
    save = saving.save_checkpoint

    def counted(run: Path, step: int, *rest: Any) -> Path:
        written.append(step)
        return save(run, step, *rest)

    monkeypatch.setattr(saving, "save_checkpoint", counted)
    path = stopped(recipe(), tmp_path / "run", step=3)  # step 3 is one that the recipe saves, too
    train(recipe(), path, model=small(), resume=True)
    assert written == [3, 6]


@pytest.mark.slow
def test_what_killed_writes_left_is_recovered_or_removed(tmp_path: Path) -> None:
    path = stopped(recipe(), tmp_path / "run", step=4)
    newest = checkpoint_folders(path)[0]
    newest.rename(newest.with_name(f".{newest.name}.abc123.old"))  # killed between the two renames of a replacement
    (path / ".model.safetensors.zz.tmp").write_bytes(b"half")
    (path / "best" / ".miou.q.old").mkdir()
    (path / "checkpoints" / ".step-000009.x.tmp").mkdir()
    watcher = Watcher()
    train(recipe(), path, model=small(), resume=True, reporter=watcher)
    assert "resuming at step 4 of 6" in watcher.notes
    assert [str(left) for left in path.rglob(".*")] == []


def test_a_resume_before_the_first_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        train(recipe(), tmp_path / "run", model=small(), reporter=Watcher({2: lambda: {}["killed"]}))
    watcher = Watcher()
    train(recipe(), tmp_path / "run", model=small(), resume=True, reporter=watcher)
    assert any("no checkpoint yet: starting at its first step" in note for note in watcher.notes)
    assert [line["step"] for line in records(tmp_path / "run", "train")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("left", first_of([["metrics.jsonl"], [], [".lock"], [".metrics.jsonl.x.tmp"]]))
def test_a_start_that_was_killed_can_be_started_again(tmp_path: Path, left: list[str]) -> None:
    path = tmp_path / "run"
    path.mkdir()
    for name in left:
        (path / name).touch()
    marked = "metrics.jsonl" in left
    if marked:
        with pytest.raises(DropclassError, match="pass --overwrite"):
            train(recipe(), path, model=small())
    train(recipe(), path, model=small(), overwrite=marked)
    assert (path / "model.json").is_file()


def test_tensorboard_shows_no_step_twice_after_a_kill_before_the_first_checkpoint(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    content = recipe(train__trackers=["tensorboard"])
    with pytest.raises(KeyError):
        train(content, tmp_path / "run", model=small(), reporter=Watcher({2: lambda: {}["killed"]}))
    train(content, tmp_path / "run", model=small(), resume=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [flip, Path.unlink], ids=["one bit", "missing"])
@pytest.mark.parametrize("name", first_of(["state.pt", "model.safetensors", "branch.safetensors", "files.json"]))
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    path = stopped(recipe(), tmp_path / "run", step=4)
    damage(checkpoint_folders(path)[0] / name)
    watcher = Watcher()
    train(recipe(), path, model=small(), resume=True, reporter=watcher)
    assert any("step-000004" in note and "going back" in note for note in watcher.notes)
    assert "resuming at step 3 of 6" in watcher.notes


# Signals


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Python's own Ctrl-C: a job that a script puts into the background is started without."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_later_sigterms_mean_the_same_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    with StopSignals() as signals:
        assert not signals.requested
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
        assert signals.requested
        monkeypatch.setattr(stop_signals, "_SAME_WISH_S", 0.0)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class StopsInValidation(SmallNetwork):
    """Sends the signal at the first image of the validation for which it was armed."""

    armed = False

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        if self.armed and not self.training:
            self.armed = False
            terminate()
        return super().forward(images)


@pytest.mark.parametrize("checkpoint_every", first_of([3, 2]))
def test_a_validation_that_a_signal_broke_off_is_caught_up(tmp_path: Path, checkpoint_every: int) -> None:
    content = recipe(train__checkpoint_every=checkpoint_every, train__ema=0.5)
    whole = train(content, tmp_path / "whole", model=small())
    path, model = tmp_path / "run", StopsInValidation(CLASSES)
    with pytest.raises(TrainingInterruptedError, match="after step 3 of 6"):
        train(content, path, model=model, reporter=Watcher({3: lambda: setattr(model, "armed", True)}))
    assert records(path, "val") == []
    assert checkpoint_folders(path)[0].name == "step-000003"
    train(content, path, model=small(), resume=True)
    assert records(path, "val") == records(whole, "val")
    assert contents(path / "best") == contents(whole / "best")
    assert without_rates(path, "train") == without_rates(whole, "train")


# Other trainings, other data


def test_a_second_training_in_the_folder_is_refused(tmp_path: Path) -> None:
    path = stopped(recipe(), tmp_path / "run", step=2)
    before = contents(path)
    with FolderLock() as lock:
        lock.take(path)
        for how in ("resume", "overwrite"):
            with pytest.raises(RunError, match=r"another training is at work in .*run; wait for its end"):
                train(recipe(), path, model=small(), **{how: True})
    assert contents(path) == before


def test_a_run_that_began_while_this_one_looked_at_its_data_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run"

    def begin() -> None:
        path.mkdir()
        (path / "metrics.jsonl").write_text("of another\n")

    with pytest.raises(DropclassError, match="exists already"):
        train(recipe(), path, model=small(), reporter=Watcher(notes={"rare classes": begin}))
    assert contents(path) == {"metrics.jsonl": b"of another\n"}


def lose_an_image(data: Path) -> None:
    for kind in ("images", "masks"):
        (data / kind / "03.png").unlink()


def swap_two_names(data: Path) -> None:
    text = (data / "classes.yaml").read_text()
    (data / "classes.yaml").write_text(text.replace("car", "x").replace("person", "car").replace("x", "person"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lose_an_image, "number of training images: 8 then, 7 now"),
        (swap_two_names, r"the classes: \['background'.*'car'"),
    ],
)
def test_data_that_changed_since_the_checkpoint_are_refused(
    tmp_path: Path, change: Callable[[Path], None], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DROPCLASS_CACHE", str(tmp_path / "cache"))
    data = write_sound_folder(tmp_path / "data")
    write_classes(data, range(4), "splits: {train: ['0[0-7]'], val: ['0[89]']}")
    content = recipe(data=f"folder:{data}")
    path = stopped(content, tmp_path / "run", step=2, model=small(4))
    change(data)
    before = contents(path)
    with pytest.raises(RunError, match=f"the data changed since .*step-000002: .*{says}.*start anew"):
        train(content, path, model=small(4), resume=True)
    assert contents(path) == before


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_breaks_while_training_is_one_line_from_every_process(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DROPCLASS_CACHE", str(tmp_path / "cache"))
    data = write_sound_folder(tmp_path / "data")

    def cut_short() -> None:
        for image in (data / "images").iterdir():
            image.write_bytes(image.read_bytes()[:200])

    watcher = Watcher(notes={"rare classes": cut_short})
    content = recipe(data=f"folder:{data}", train__workers=workers)
    with pytest.raises(DataError, match=r"\d\d\.png .*truncated") as caught:
        train(content, tmp_path / "run", model=small(4), reporter=watcher)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


# A lost step


class LosesItsGradient(SmallNetwork):
    """Its loss stays finite, its gradient does not, once it was armed."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.lost = False

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        out = super().forward(images)
        if self.lost and self.training:
            out["out"].register_hook(lambda gradient: gradient * float("nan"))
        return out


def test_a_lost_gradient_names_its_own_step_and_images_and_leaves_the_weights(tmp_path: Path) -> None:
    model = LosesItsGradient(CLASSES)
    kept: dict[str, Tensor] = {}

    def arm() -> None:
        model.lost = True
        kept.update({name: value.clone() for name, value in model.named_parameters()})

    with pytest.raises(DropclassError, match=r"the gradient is not finite.* at step 3 \(ce ") as caught:
        train(recipe(), tmp_path / "run", model=model, reporter=Watcher({2: arm}))
    named = str(caught.value).split("its images: ")[1].split(";")[0].split(", ")
    assert len(named) == 2
    assert all(name.startswith("train_") for name in named)
    assert [line["step"] for line in records(tmp_path / "run", "train")] == [1, 2]
    assert all(torch.equal(value, kept[name]) for name, value in model.named_parameters())


def test_a_lost_network_does_not_become_the_best(tmp_path: Path) -> None:
    model = small()

    def lose() -> None:
        with torch.no_grad():
            model.head.bias[0] = float("nan")

    with pytest.raises(DropclassError, match=r"head\.bias is not finite after step 3: the training has diverged"):
        train(recipe(), tmp_path / "run", model=model, reporter=Watcher({3: lose}))
    assert not (tmp_path / "run" / "best").exists()


class Jumps(SmallNetwork):
    """Its logits grow a hundred thousand times once it was armed."""

    factor = 1.0

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        out = super().forward(images)
        return {**out, "out": out["out"] * self.factor}


def test_an_explosion_is_seen_right_after_a_resume(tmp_path: Path) -> None:
    content = recipe(train__steps=30, train__checkpoint_every=30, train__validate_every=30, method__name="ce")
    path = stopped(content, tmp_path / "run", step=22, model=Jumps(CLASSES))
    assert len(read_checkpoint(checkpoint_folders(path)[0]).loop["watch"]) == 22
    model = Jumps(CLASSES)
    watcher = Watcher({24: lambda: setattr(model, "factor", 1e6)})
    with pytest.raises(DropclassError, match=r"the loss has exploded \(the median of the last 24 .* at step 25"):
        train(content, path, model=model, resume=True, reporter=watcher)


# Disks and memory


@contextmanager
def no_file_longer_than(size: int) -> Iterator[Callable[[], None]]:
    """What it yields makes the system refuse to write a file beyond ``size`` bytes, until the end of the block."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(
    ("what", "size", "when"),
    first_of(
        [
            ("metrics.jsonl", 10, 3),
            ("best", 1500, 4),
            ("the finished run's figures", 10, "folded head"),
        ]
    ),
)
def test_a_full_disk_anywhere_says_how_to_go_on(tmp_path: Path, what: str, size: int, when: int | str) -> None:
    content = recipe(train__validate_every=4, train__checkpoint_every=2)
    whole = train(content, tmp_path / "whole", model=small())
    path = tmp_path / "run"
    with no_file_longer_than(size) as fill:
        watcher = Watcher({when: fill}) if isinstance(when, int) else Watcher(notes={when: fill})
        with pytest.raises(DropclassError) as caught:
            train(content, path, model=small(), reporter=watcher)
    assert str(caught.value).startswith(f"{what} could not be written (")
    assert "the last good checkpoint is" in str(caught.value)
    assert "make room on the disk and resume" in str(caught.value)
    train(content, path, model=small(), resume=True)
    assert without_rates(path, "train") == without_rates(whole, "train")
    assert records(path, "val") == records(whole, "val")


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)",
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.",
        "[Errno 12] Cannot allocate memory",
    ],
)
def test_memory_in_every_librarys_words(message: str) -> None:
    section = recipe(train__batch_size=6, train__crop=[512, 1024]).train
    with pytest.raises(RecipeError, match="out of memory") as caught, explained_memory(section, processes=1):
        raise RuntimeError(message)
    assert "train.accumulate=2" in str(caught.value)
    assert "lower train.crop, for example to [352, 704]" in str(caught.value)
    with pytest.raises(RecipeError, match=r"while evaluating whole validation images.*preprocess\.size"):  # noqa: SIM117
        with explained_evaluation_memory():
            raise RuntimeError(message)


def test_advice_that_would_be_refused_is_not_given() -> None:
    # Three images a process cannot be halved, one image is too few for BatchNorm, and 32 pixels are the least.
    section = recipe(train__batch_size=6, train__crop=[32, 32]).train
    with pytest.raises(RecipeError) as caught, explained_memory(section, processes=2):
        raise MemoryError
    assert "accumulate" not in str(caught.value)
    assert "lower train.crop" not in str(caught.value)


@pytest.mark.parametrize(("workers", "shown"), [(4, "4"), (None, "null, chosen by the machine")])
@pytest.mark.parametrize(
    "message",
    [
        "DataLoader worker (pid 41) is killed by signal: Killed. ",
        "DataLoader worker (pid(s) 41) exited unexpectedly",
        "Bus error. It is possible that dataloader's workers are out of shared memory. Please try to raise your limit.",
    ],
)
def test_a_reader_that_was_killed_points_to_the_workers(message: str, workers: int | None, shown: str) -> None:
    section = recipe(train__workers=workers).train
    with pytest.raises(RecipeError, match=rf"lower train\.workers \(now {shown}; 0"), explained_memory(section):
        raise RuntimeError(message)


class OneSize(SmallNetwork):
    """Adds a map of 32×32, which it cannot do for any other size."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.position = nn.Parameter(torch.zeros(1, 8, 32, 32))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.head(self.body(images) + self.position)}


def test_a_network_of_one_size_that_cannot_be_validated_is_a_clear_mistake(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"cannot take an image of 48×32 pixels \(The size of tensor.*preprocess\.size"
    ):
        train(recipe(method__name="ce"), tmp_path / "run", model=OneSize(CLASSES))
