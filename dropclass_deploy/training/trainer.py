"""The training loop: a recipe in, a run folder out.

Data → augmented batches → method (network, branch, losses) → optimiser; validation on the way, both deploy heads
evaluated at the end. Accelerate brings device, mixed precision and several processes. Everything random is keyed by
(seed, step), so that a run stopped by a signal and resumed goes on as if it had never stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from dropclass_deploy.core.errors import DropclassError, RecipeError, TrainingInterruptedError
from dropclass_deploy.core.metrics import percent
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.progress import Reporter, Silent
from dropclass_deploy.training.acceleration import accelerator_for
from dropclass_deploy.training.augment import normalise
from dropclass_deploy.training.checkpoint import Checkpoint, cuda_rng_state, load_checkpoint, restore, save_checkpoint
from dropclass_deploy.training.conclusion import conclude, validate
from dropclass_deploy.training.journal import Journal, Meter
from dropclass_deploy.training.loader import training_loader
from dropclass_deploy.training.methods import StepContext, StepLoss
from dropclass_deploy.training.optimiser import build_optimiser, learning_rate, set_learning_rate
from dropclass_deploy.training.recipe import Recipe
from dropclass_deploy.training.recipe_file import load_recipe
from dropclass_deploy.training.run import MODEL_JSON
from dropclass_deploy.training.run_folder import check_folder, new_folder, resume_point
from dropclass_deploy.training.run_setup import Setup, resume_hint, set_up
from dropclass_deploy.training.stop_signals import StoppableReporter, StopSignals


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
        UserError: for anything in the recipe, the data or the folder that does not fit.
        TrainingInterruptedError: after a signal, with the state saved.
        DropclassError: when the loss is no longer finite.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    reporter = reporter or Silent()
    folder = Path(output)
    with accelerator_for(recipe.train) as accelerator, StopSignals() as signals:
        if accelerator.is_main_process:
            check_folder(folder, recipe, resume=resume, overwrite=overwrite)
        accelerator.wait_for_everyone()
        if resume and (folder / MODEL_JSON).is_file():
            reporter.note(f"{folder} is complete ({recipe.train.steps} steps): nothing to resume")
            return folder
        checkpoint = resume_point(folder, recipe) if resume else None
        setup = set_up(recipe, folder, model, preprocess, reporter)
        if not resume and accelerator.is_main_process:
            new_folder(folder, recipe)
        accelerator.wait_for_everyone()
        _train(_start(setup, accelerator, checkpoint), signals, reporter)
        accelerator.wait_for_everyone()
    return folder


def _train(session: _Session, signals: StopSignals, reporter: Reporter) -> None:
    """The steps, then the conclusion on the main process."""
    _run_steps(session, signals, reporter)
    if not session.accelerator.is_main_process:
        return
    _save(session)
    setup = session.setup
    message = f"stopped by a signal while evaluating the finished training; {resume_hint(setup)}"
    watched = StoppableReporter(reporter, signals, message)
    conclude(
        setup.folder, setup.recipe, setup.task, setup.method, setup.preprocess, setup.built, session.device, watched
    )


@dataclass
class _Session:
    """A run in progress."""

    setup: Setup
    accelerator: Accelerator
    module: nn.Module
    optimiser: Any
    loader: Any
    journal: Journal
    scale: Tensor
    shift: Tensor
    class_weight: Tensor | None
    step: int

    @property
    def device(self) -> torch.device:
        return torch.device(self.accelerator.device)


class _Trained(nn.Module):
    """The method's module, in a coat that Accelerate may change."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.inner = module

    def forward(self, *arguments: Any) -> Any:
        """Whatever the module returns."""
        return self.inner(*arguments)


def _start(setup: Setup, accelerator: Accelerator, checkpoint: Checkpoint | None) -> _Session:
    train = setup.recipe.train
    module = setup.method.module.train()
    optimiser = build_optimiser(module, train)
    start = 0 if checkpoint is None else checkpoint.step
    loader = training_loader(setup.task.train, train, setup.preprocess, start=start)
    # Accelerate patches the forward of what it prepares; the caller's own module must not stay patched.
    prepared, optimiser, loader = accelerator.prepare(_Trained(module), optimiser, loader)
    if checkpoint is not None:
        restore(checkpoint, setup.method.module, optimiser, accelerator.scaler)
    scale, shift = setup.preprocess.scale_and_shift()
    device = accelerator.device
    weight = setup.task.class_weight
    return _Session(
        setup=setup,
        accelerator=accelerator,
        module=prepared,
        optimiser=optimiser,
        loader=loader,
        journal=Journal(setup.folder, start, enabled=accelerator.is_main_process),
        scale=torch.from_numpy(scale).to(device),
        shift=torch.from_numpy(shift).to(device),
        class_weight=None if weight is None else torch.from_numpy(weight).float().to(device),
        step=start,
    )


def _run_steps(session: _Session, signals: StopSignals, reporter: Reporter) -> None:
    train = session.setup.recipe.train
    meter = Meter(train.batch_size)
    if session.step:
        reporter.note(f"resuming at step {session.step} of {train.steps}")
    with reporter.phase("training") as advance:
        for images, labels in session.loader:
            meter.data_ready()
            loss = _step(session, images, labels)
            meter.add(loss)
            session.step += 1
            _after_step(session, meter, advance, reporter)
            if _stop_requested(session, signals):
                _save(session)
                raise TrainingInterruptedError(
                    f"stopped by a signal after step {session.step} of {train.steps}; {resume_hint(session.setup)}"
                )


def _stop_requested(session: _Session, signals: StopSignals) -> bool:
    """Whether any process got a signal: all stop after the same step, or the others would wait for ever."""
    if session.accelerator.num_processes == 1:
        return signals.requested
    asked = torch.tensor(int(signals.requested), device=session.device)
    torch.distributed.all_reduce(asked)
    return bool(asked.item())


def _step(session: _Session, images: Tensor, labels: Tensor) -> StepLoss:
    train = session.setup.recipe.train
    set_learning_rate(session.optimiser, learning_rate(train, session.step))
    context = StepContext(
        step=session.step,
        progress=session.step / train.steps,
        seed=train.seed,
        ignore_index=session.setup.task.classes.ignore_index,
        class_weight=session.class_weight,
    )
    inputs = normalise(images, session.scale, session.shift)
    loss = _loss(session, inputs, labels, context)
    if not torch.isfinite(loss.total):
        terms = ", ".join(f"{name} {float(value):.4g}" for name, value in loss.terms.items())
        raise DropclassError(
            f"the loss is not finite at step {session.step} ({terms}); lower train.lr (now {train.lr}), or train.precision "
            f"fp32 (now {train.precision}); {_last_checkpoint(session.setup.folder)}"
        )
    session.optimiser.zero_grad(set_to_none=True)
    session.accelerator.backward(loss.total)
    session.optimiser.step()
    return loss


def _last_checkpoint(folder: Path) -> str:
    checkpoint = load_checkpoint(folder)
    return (
        "no checkpoint had been written yet"
        if checkpoint is None
        else f"the last checkpoint is of step {checkpoint.step}"
    )


def _loss(session: _Session, inputs: Tensor, labels: Tensor, context: StepContext) -> StepLoss:
    try:
        with session.accelerator.autocast():
            return session.setup.method.loss(session.module, inputs, labels, context)
    except ValueError as error:
        # torch's BatchNorm says it so when a layer sees one value a channel (a pooled map of a single image).
        if "more than 1 value per channel" not in str(error):
            raise
        size = session.setup.recipe.train.batch_size
        raise RecipeError(
            f"train.batch_size {size} gives a BatchNorm of this model a single value a channel",
            expected="at least 2 images a step and process",
            remedy="raise train.batch_size, or train.crop",
        ) from error


def _after_step(session: _Session, meter: Meter, advance: Any, reporter: Reporter) -> None:
    """Log, validate and save when it is time."""
    setup, train, step = session.setup, session.setup.recipe.train, session.step
    if step % train.log_every == 0 or step == train.steps:
        record = meter.flush(step, train.steps, learning_rate(train, step - 1))
        session.journal.write(record)
        advance(step, train.steps, f"loss {record['loss']:.3f}  {record['images_per_s']:.1f} images/s")
    else:
        advance(step, train.steps)
    if step == train.steps:
        return
    if step % _every(train.validate_every, train.steps) == 0:
        record = validate(setup.method.model, setup.task, setup.preprocess, session.device, step)
        session.journal.write(record)
        reporter.note(f"step {step}: val mIoU {percent(record['miou'])}, rare mIoU {percent(record['rare_miou'])}")
        meter.restart()
    if step % _every(train.checkpoint_every, train.steps) == 0:
        _save(session)
        meter.restart()


def _every(asked: int, steps: int) -> int:
    """The interval asked for; 0 means a tenth of the run."""
    return asked or max(1, -(-steps // 10))


def _save(session: _Session) -> None:
    if not session.accelerator.is_main_process:
        return
    scaler = session.accelerator.scaler
    save_checkpoint(
        session.setup.folder,
        Checkpoint(
            step=session.step,
            recipe_digest=session.setup.recipe.digest(),
            module=session.setup.method.module.state_dict(),
            optimiser=session.optimiser.state_dict(),
            scaler=None if scaler is None else scaler.state_dict(),
            rng=torch.get_rng_state(),
            cuda_rng=cuda_rng_state(),
        ),
    )
