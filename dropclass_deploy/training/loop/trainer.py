"""The training loop: a recipe in, a run folder out.

Data → augmented batches → method (network, branch, losses) → optimiser; validation on the way, both deploy heads
evaluated at the end. Accelerate brings device, mixed precision and several processes. Everything random is keyed by
(seed, step), so that a run stopped in any way and resumed goes on as if it had never stopped.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

from dropclass_deploy.core.errors import DropclassError, TrainingInterruptedError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.progress import Advance, Reporter, Silent
from dropclass_deploy.training.loop.conclusion import conclude
from dropclass_deploy.training.loop.failures import explained_memory
from dropclass_deploy.training.loop.optimiser import learning_rate
from dropclass_deploy.training.loop.run_setup import Setup, resume_hint, set_up
from dropclass_deploy.training.loop.session import Session, publish, start
from dropclass_deploy.training.loop.step import run_step
from dropclass_deploy.training.loop.stop_signals import StoppableReporter, StopSignals
from dropclass_deploy.training.loop.validation import validate
from dropclass_deploy.training.parallel.acceleration import accelerator_for
from dropclass_deploy.training.parallel.batchnorm_sync import synchronised
from dropclass_deploy.training.parallel.processes import Processes, check_batch
from dropclass_deploy.training.recipe import Recipe, load_recipe
from dropclass_deploy.training.records.journal import Meter
from dropclass_deploy.training.records.trackers import check_trackers, finish, start_trackers
from dropclass_deploy.training.runs.checkpoint import last_checkpoint, save_checkpoint
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
    with accelerator_for(recipe.train) as accelerator, StopSignals() as signals, explained_memory(recipe.train):
        reporter = reporter if reporter is not None and accelerator.is_main_process else Silent()
        check_batch(recipe.train, Processes.of(accelerator))
        check_trackers(recipe.train.trackers)
        if accelerator.is_main_process:
            check_folder(folder, recipe, resume=resume, overwrite=overwrite)
        accelerator.wait_for_everyone()
        if resume and (folder / MODEL_JSON).is_file():
            reporter.note(f"{folder} is complete ({recipe.train.steps} steps): nothing to resume")
            return folder
        checkpoint = resume_point(folder, recipe, reporter) if resume else None
        # Number 0 looks at the data first: the others then find what it learnt in the cache.
        with accelerator.main_process_first():
            setup = set_up(recipe, folder, model, preprocess, reporter)
        if not resume and accelerator.is_main_process:
            new_folder(folder, recipe)
        accelerator.wait_for_everyone()
        session = start(setup, accelerator, checkpoint)
        with synchronised(setup.method.module) if recipe.train.sync_batchnorm else nullcontext():
            _train(session, signals, reporter)
        accelerator.wait_for_everyone()
    return folder


def _train(session: Session, signals: StopSignals, reporter: Reporter) -> None:
    """The steps, then the conclusion."""
    accelerator, recipe = session.accelerator, session.setup.recipe
    config = recipe.model_dump(mode="json", by_alias=True)
    start_trackers(accelerator, recipe.train.trackers, session.folder, session.folder.name, config, start=session.step)
    try:
        _run_steps(session, signals, reporter)
        _save(session)
        message = f"stopped by a signal while evaluating the finished training; {resume_hint(session.setup)}"
        conclude(session, StoppableReporter(reporter, signals, message))
    finally:
        for problem in finish(accelerator):
            reporter.note(problem)


def _run_steps(session: Session, signals: StopSignals, reporter: Reporter) -> None:
    train = session.train
    meter = Meter(train.batch_size)
    if session.step:
        reporter.note(f"resuming at step {session.step} of {train.steps}")
    with reporter.phase("training") as advance:
        for images, labels in session.loader:
            meter.data_ready()
            meter.add(run_step(session, images, labels))
            session.step += 1
            _after_step(session, meter, advance, reporter)
            # All stop after the same step, or the others would wait for ever.
            if session.processes.any(signals.requested):
                _save(session)
                raise TrainingInterruptedError(
                    f"stopped by a signal after step {session.step} of {train.steps}; {resume_hint(session.setup)}"
                )


def _after_step(session: Session, meter: Meter, advance: Advance, reporter: Reporter) -> None:
    """Log, validate and save when it is time."""
    train, step = session.train, session.step
    if step % train.log_every == 0 or step == train.steps:
        record = meter.flush(step, train.steps, learning_rate(train, step - 1), session.processes)
        publish(session, record, reporter)
        advance(step, train.steps, f"loss {record['loss']:.3f}  {record['images_per_s']:.1f} images/s")
    else:
        advance(step, train.steps)
    if step == train.steps:
        return
    if step % _every(train.validate_every, train.steps) == 0:
        validate(session, reporter)
        meter.restart()
    if step % _every(train.checkpoint_every, train.steps) == 0:
        _save(session)
        meter.restart()


def _every(asked: int, steps: int) -> int:
    """The interval asked for; 0 means a tenth of the run."""
    return asked or max(1, -(-steps // 10))


def _save(session: Session) -> None:
    """A checkpoint, from which a run goes on; never of a network that is lost."""
    if session.processes.rank:
        return
    setup, scaler, average = session.setup, session.accelerator.scaler, session.average
    _check_finite(setup, session.step)
    state = {
        "optimiser": session.optimiser.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "average": None if average is None else average.state_dict(),
    }
    save_checkpoint(setup.folder, session.step, setup.recipe, setup.method, state, session.train.keep_last)


def _check_finite(setup: Setup, step: int) -> None:
    """A step may end with a finite loss and weights that are not: such a state must not replace a good one."""
    for name, tensor in setup.method.module.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            train = setup.recipe.train
            raise DropclassError(
                f"{name} is not finite after step {step}: the training has diverged; {last_checkpoint(setup.folder)}; "
                f"lower train.lr (now {train.lr:g}) or set train.clip_norm (now {train.clip_norm:g})"
            )
