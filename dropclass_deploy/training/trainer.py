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

from dropclass_deploy.core.errors import DropclassError, ModelError, RecipeError, TrainingInterruptedError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.progress import Reporter, Silent
from dropclass_deploy.models import build_model, default_preprocess
from dropclass_deploy.training.acceleration import accelerator_for
from dropclass_deploy.training.augment import normalise
from dropclass_deploy.training.checkpoint import Checkpoint, restore, save_checkpoint
from dropclass_deploy.training.conclusion import conclude, validate
from dropclass_deploy.training.dropclass.probe import output_channels
from dropclass_deploy.training.journal import Journal, Meter
from dropclass_deploy.training.loader import training_loader
from dropclass_deploy.training.methods import Method, StepContext, StepLoss, build_method
from dropclass_deploy.training.optimiser import build_optimiser, learning_rate, set_learning_rate
from dropclass_deploy.training.recipe import Recipe, load_recipe
from dropclass_deploy.training.run import MODEL_JSON, RECIPE, USER_MODEL
from dropclass_deploy.training.run_folder import check_folder, new_folder
from dropclass_deploy.training.stop_signals import StopSignals
from dropclass_deploy.training.task import Task, open_task


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
        recipe: a ``Recipe`` or the path of its YAML file.
        output: the run folder.
        model: a network to train instead of the recipe's ``model.name``; it is trained in place.
        preprocess: of ``model``; default ImageNet's mean and standard deviation. The recipe's key wins.
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
    checkpoint = check_folder(folder, recipe, resume=resume, overwrite=overwrite)
    if resume and (folder / MODEL_JSON).is_file():
        reporter.note(f"{folder} is complete ({recipe.train.steps} steps): nothing to resume")
        return folder
    task = open_task(recipe, reporter)
    torch.manual_seed(recipe.train.seed)
    network, spec = _network(recipe, model, preprocess, len(task.classes))
    _check_class_count(network, task, recipe)
    method = build_method(network, recipe.method, recipe.model.classifier)
    with accelerator_for(recipe.train) as accelerator:
        if not resume:
            new_folder(folder, recipe)
        session = _start(_Setup(folder, recipe, task, method, spec), accelerator, checkpoint)
        _run_steps(session, reporter)
        name = USER_MODEL if model is not None else recipe.model.name
        conclude(folder, recipe, task, method, spec, name, session.device, reporter)
    return folder


@dataclass(frozen=True)
class _Setup:
    """What a run is made of before the accelerator sees it."""

    folder: Path
    recipe: Recipe
    task: Task
    method: Method
    preprocess: Preprocess


@dataclass
class _Session:
    """A run in progress."""

    setup: _Setup
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


def _network(
    recipe: Recipe, model: nn.Module | None, preprocess: Preprocess | None, num_classes: int
) -> tuple[nn.Module, Preprocess]:
    """The network and its preprocessing."""
    if model is not None:
        return model, recipe.preprocess or preprocess or Preprocess()
    section = recipe.model
    network = build_model(section.name, num_classes, section.weights, **section.options)
    return network, recipe.preprocess or default_preprocess(section.name)


def _check_class_count(network: nn.Module, task: Task, recipe: Recipe) -> None:
    """Run the network once on an image's size, so that a wrong class count shows before the first step."""
    size = recipe.train.crop or (64, 64)
    count = output_channels(network, size)
    if count != len(task.classes):
        raise ModelError(
            f"the model gives logits of {count} classes",
            expected=f"{len(task.classes)}, as {recipe.data} has",
            remedy="build the model with that number of classes, or mend the class table",
        )


def _start(setup: _Setup, accelerator: Accelerator, checkpoint: Checkpoint | None) -> _Session:
    train = setup.recipe.train
    module = setup.method.module.train()
    optimiser = build_optimiser(module, train)
    start = 0 if checkpoint is None else checkpoint.step
    loader = training_loader(setup.task.train, train, setup.preprocess, start=start)
    prepared, optimiser, loader = accelerator.prepare(module, optimiser, loader)
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


def _run_steps(session: _Session, reporter: Reporter) -> None:
    train = session.setup.recipe.train
    meter = Meter(train.batch_size)
    if session.step:
        reporter.note(f"resuming at step {session.step} of {train.steps}")
    with StopSignals() as signals, reporter.phase("training") as advance:
        for images, labels in session.loader:
            meter.data_ready()
            loss = _step(session, images, labels)
            meter.add(loss)
            session.step += 1
            _after_step(session, meter, advance, reporter)
            if signals.requested:
                _save(session)
                raise TrainingInterruptedError(
                    f"stopped by a signal after step {session.step} of {train.steps}; the state is saved; go on with: "
                    f"dropclass train {session.setup.folder / RECIPE} -o {session.setup.folder} --resume"
                )


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
            f"fp32 (now {train.precision}); the last good checkpoint is in {session.setup.folder}"
        )
    session.optimiser.zero_grad(set_to_none=True)
    session.accelerator.backward(loss.total)
    session.optimiser.step()
    return loss


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
        reporter.note(f"step {step}: val mIoU {_percent(record['miou'])}, rare mIoU {_percent(record['rare_miou'])}")
        meter.restart()
    if step % _every(train.checkpoint_every, train.steps) == 0:
        _save(session)
        meter.restart()


def _every(asked: int, steps: int) -> int:
    """The interval asked for; 0 means a tenth of the run."""
    return asked or max(1, -(-steps // 10))


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


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
        ),
    )
