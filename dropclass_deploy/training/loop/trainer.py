"""The training loop: a recipe in, a run folder out.

Data → augmented batches → method (network, branch, losses) → optimiser; validation on the way, both deploy heads
evaluated at the end. Accelerate brings device, mixed precision and several processes. Everything random is keyed by
(seed, step), so that a run stopped in any way and resumed goes on as if it had never stopped.
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from dropclass_deploy.core.errors import DropclassError, TrainingInterruptedError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.progress import Advance, Reporter, Silent
from dropclass_deploy.training.batches.photometry import change_batch
from dropclass_deploy.training.loop.conclusion import conclude
from dropclass_deploy.training.loop.failures import explained_memory
from dropclass_deploy.training.loop.memory_layout import channels_last, refusal
from dropclass_deploy.training.loop.optimiser import learning_rate
from dropclass_deploy.training.loop.run_setup import Setup, resume_hint, set_up
from dropclass_deploy.training.loop.saving import go_on_from, refuse_other_data, save
from dropclass_deploy.training.loop.session import Session, publish, start
from dropclass_deploy.training.loop.step import run_step
from dropclass_deploy.training.loop.stop_signals import StopSignals
from dropclass_deploy.training.loop.validation import validate
from dropclass_deploy.training.parallel.acceleration import accelerator_for
from dropclass_deploy.training.parallel.batchnorm_sync import synchronised
from dropclass_deploy.training.parallel.processes import Processes, check_batch
from dropclass_deploy.training.recipe import Recipe, load_recipe
from dropclass_deploy.training.records.trackers import check_trackers, finish, start_trackers
from dropclass_deploy.training.runs.checkpoint import Checkpoint, read_checkpoint
from dropclass_deploy.training.runs.lock import FolderLock
from dropclass_deploy.training.runs.run import MODEL_JSON
from dropclass_deploy.training.runs.run_folder import check_folder, new_folder, resume_point


def train(
    recipe: Recipe | Path | str,
    output: Path | str,
    *,
    model: nn.Module | None = None,
    preprocess: Preprocess | None = None,
    resume: bool = False,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> Path:
    """Train as a recipe says.

    Started by torchrun on several processes or machines, all call this with the same arguments; number 0 writes and
    reports. The folder must then be one that all of them see.

    Args:
        recipe: a ``Recipe`` or the path of its YAML file. Its seed is also set as torch's global one.
        output: the run folder.
        model: a network to train instead of the recipe's ``model`` section; it is trained in place ("ce+block" also puts
            its block into it).
        preprocess: of ``model``; default ImageNet's mean and standard deviation. The recipe's keys win.
        resume: go on from the folder's last checkpoint.
        overwrite: replace a folder that is there.
        reporter: hears about progress.

    Returns:
        The run folder.

    Raises:
        UserError: for anything in the recipe, the data or the folder that does not fit, memory included.
        TrainingInterruptedError: after a signal, with the state saved.
        DropclassError: when the loss is no longer finite or explodes, or a checkpoint cannot be written.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    folder = Path(output)
    with accelerator_for(recipe.train) as accelerator, StopSignals() as signals, FolderLock() as lock:
        processes = Processes.of(accelerator)
        reporter = reporter if reporter is not None and accelerator.is_main_process else Silent()
        check_batch(recipe.train, processes)
        check_trackers(recipe.train.trackers)
        if accelerator.is_main_process:
            check_folder(folder, recipe, lock, resume=resume, overwrite=overwrite)
        accelerator.wait_for_everyone()
        if resume and (folder / MODEL_JSON).is_file():
            reporter.note(f"{folder} is complete ({recipe.train.steps} steps): nothing to resume")
            return folder
        with explained_memory(recipe.train, processes.count):
            checkpoint = _agreed_checkpoint(folder, recipe, processes, reporter) if resume else None
            # Number 0 looks at the data first: the others then find what it learnt in the cache.
            with accelerator.main_process_first():
                setup = set_up(recipe, folder, model, preprocess, reporter)
            if checkpoint is not None:
                refuse_other_data(checkpoint, setup.task)
            if not resume and accelerator.is_main_process:
                new_folder(folder, recipe, lock, overwrite=overwrite)
            accelerator.wait_for_everyone()
            with ExitStack() as layout:
                in_channels_last = _takes_channels_last(setup, reporter)
                layout.enter_context(channels_last(setup.method.module, enabled=in_channels_last))
                _note_slow_precision(recipe.train.precision, processes, reporter)
                session = start(setup, accelerator, signals, checkpoint, in_channels_last=in_channels_last)
                if checkpoint is not None:
                    go_on_from(session, checkpoint)
                # Now that the network lies where it trains: the passes before would be compiled for nothing.
                layout.enter_context(setup.method.compiled() if recipe.train.compile else nullcontext())
                with synchronised(setup.method.module) if recipe.train.sync_batchnorm else nullcontext():
                    _train(session, layout, reporter)
            accelerator.wait_for_everyone()
    return folder


def _agreed_checkpoint(folder: Path, recipe: Recipe, processes: Processes, reporter: Reporter) -> Checkpoint | None:
    """The checkpoint that number 0 chose: another process may see another state of a shared disk."""
    checkpoint = resume_point(folder, recipe, reporter) if processes.rank == 0 else None
    chosen = processes.of_first(None if checkpoint is None else str(checkpoint.folder))
    return read_checkpoint(Path(chosen)) if checkpoint is None and chosen is not None else checkpoint


def _takes_channels_last(setup: Setup, reporter: Reporter) -> bool:
    """Whether the recipe asks for channels_last and the network can take it; said when it cannot."""
    if not setup.recipe.train.channels_last:
        return False
    reason = refusal(setup.method, setup.built["probe_size"])
    if reason is not None:
        reporter.note(
            f"the network takes no channels_last tensors ({reason}): training with contiguous ones, more slowly"
        )
    return reason is None


def _note_slow_precision(precision: str, processes: Processes, reporter: Reporter) -> None:
    # Measured without such instructions: ten times float32's time for a depthwise network.
    if precision == "bf16" and processes.device.type == "cpu":
        reporter.note("train.precision bf16 on a CPU is slow unless it computes in bfloat16 (AVX512-BF16, AMX)")


def _train(session: Session, layout: ExitStack, reporter: Reporter) -> None:
    """The steps, then the conclusion, which sees the network laid out as whoever loads it will."""
    accelerator, recipe = session.accelerator, session.setup.recipe
    config = recipe.model_dump(mode="json", by_alias=True)
    start_trackers(accelerator, recipe.train.trackers, session.folder, session.folder.name, config, start=session.step)
    try:
        _run_steps(session, reporter)
        save(session)
        layout.close()
        conclude(session, reporter)
    finally:
        for problem in finish(accelerator):
            reporter.note(problem)


def _run_steps(session: Session, reporter: Reporter) -> None:
    if session.step:
        reporter.note(f"resuming at step {session.step} of {session.train.steps}")
    if session.validation_due:
        validate(session, reporter)
        _stop_if_asked(session)
    session.meter.restart()
    with reporter.phase("training") as advance:
        for batch in session.loader:
            session.meter.data_ready()
            if isinstance(batch, DropclassError):
                raise batch
            images, labels, changes = batch
            session.meter.add(run_step(session, change_batch(images, session.train.photometric, changes), labels))
            session.step += 1
            _after_step(session, advance, reporter)
            _stop_if_asked(session)
            # Saving, validating and the processes' agreement are no waiting for data.
            session.meter.restart()


def _stop_if_asked(session: Session) -> None:
    # All stop after the same step, or the others would wait for ever.
    if session.processes.any(session.signals.requested):
        save(session)
        raise TrainingInterruptedError(
            f"stopped by a signal after step {session.step} of {session.train.steps}; {resume_hint(session.setup)}"
        )


def _after_step(session: Session, advance: Advance, reporter: Reporter) -> None:
    """Log, validate and save when it is time."""
    train, step, meter = session.train, session.step, session.meter
    if step % train.log_every == 0 or step == train.steps:
        record = meter.flush(step, train.steps, learning_rate(train, step - 1), session.processes)
        publish(session, record, reporter)
        advance(step, train.steps, _status(record))
        hint = session.data_wait.hint(record["data_share"], train.log_every * train.batch_size / record["images_per_s"])
        if hint is not None:
            reporter.note(hint)
    else:
        advance(step, train.steps)
    if step == train.steps:
        return
    if step % _every(train.validate_every, train.steps) == 0:
        validate(session, reporter)
    if step % _every(train.checkpoint_every, train.steps) == 0:
        save(session)


def _status(record: dict[str, Any]) -> str:
    """What stands beside the bar."""
    return f"loss {record['loss']:.3f}  {record['images_per_s']:.1f} images/s  data {record['data_share']:.0%}"


def _every(asked: int, steps: int) -> int:
    """The interval asked for; 0 means a tenth of the run."""
    return asked or max(1, -(-steps // 10))
