"""A run in progress: what the steps work on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.training.batches.loader import StepBatches
from dropclass_deploy.training.batches.workers import usable_cores
from dropclass_deploy.training.dropclass.probe_run import untouched
from dropclass_deploy.training.loop.failures import LossWatch
from dropclass_deploy.training.loop.feed import loader_for, workers_for
from dropclass_deploy.training.loop.optimiser import build_optimiser
from dropclass_deploy.training.loop.run_setup import Setup
from dropclass_deploy.training.loop.stop_signals import StopSignals
from dropclass_deploy.training.loop.weight_average import WeightAverage
from dropclass_deploy.training.losses import logit_shift
from dropclass_deploy.training.methods import Method, StepContext, StepLoss
from dropclass_deploy.training.parallel.processes import Processes
from dropclass_deploy.training.recipe import TrainSection
from dropclass_deploy.training.records.data_wait import DataWait
from dropclass_deploy.training.records.journal import Journal, Meter
from dropclass_deploy.training.records.trackers import log
from dropclass_deploy.training.runs.checkpoint import Checkpoint, restore, stored
from dropclass_deploy.training.runs.run import METRICS


@dataclass
class Session:
    """The parts of a run, as Accelerate prepared them.

    Attributes:
        setup: recipe, data, network and method.
        accelerator: device, precision and processes.
        processes: that train together.
        module: the method's loss, a prepared ``LossModule``.
        optimiser: prepared.
        loader: of (images uint8 (n, 3, h, w), labels uint8 (n, h, w), changes of colour), this process's share of a step.
        batches: which samples make up which step.
        journal: ``metrics.jsonl``; only process 0 writes.
        scale: (3,), and ``shift`` (3,): see ``Preprocess.scale_and_shift``.
        class_weight: (C,) or None.
        class_log_frequency: (C,), of the training pixels, or None without any.
        average: the moving average of the weights, or None.
        watch: over the loss.
        signals: that ask the run to stop.
        step: steps done.
        meter: of the steps since the last "train" record.
        data_wait: over the time that goes by waiting for data.
        in_channels_last: the memory layout of what the network is given.
        saved: the step of the last checkpoint, or None.
        validation_due: whether the validation after ``step`` was broken off by a signal.
        drawn_at: when the curves were drawn last, by the monotonic clock.
    """

    setup: Setup
    accelerator: Accelerator
    processes: Processes
    module: nn.Module
    optimiser: Any
    loader: Any
    batches: StepBatches
    journal: Journal
    scale: Tensor
    shift: Tensor
    class_weight: Tensor | None
    class_log_frequency: Tensor | None
    average: WeightAverage | None
    watch: LossWatch
    signals: StopSignals
    step: int
    meter: Meter
    data_wait: DataWait
    in_channels_last: bool = False
    saved: int | None = None
    validation_due: bool = False
    drawn_at: float | None = None

    @property
    def train(self) -> TrainSection:
        """The recipe's section."""
        return self.setup.recipe.train

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.setup.folder

    @property
    def device(self) -> torch.device:
        """Of this process."""
        return self.processes.device


def publish(session: Session, record: dict[str, Any], reporter: Reporter) -> None:
    """Write a record into the journal and send it to the trackers; only process 0 does."""
    with stored(METRICS, session.folder):
        session.journal.write(record)
    for problem in log(session.accelerator, record, session.step):
        reporter.note(problem)


class LossModule(nn.Module):
    """The method's loss as a module: what Accelerate patches, and what processes wrap.

    The loss is the whole output, so that a parameter without a part in it (an auxiliary head's) is known as unused. The
    caller's own network stays as it is: Accelerate patches the forward of what it prepares.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.trained = method.module
        self._method = method

    def forward(self, images: Tensor, labels: Tensor, context: StepContext, shares: Tensor | None) -> StepLoss:
        """``Method.loss``."""
        return self._method.loss(images, labels, context, shares)


def _has_unused_parameters(setup: Setup) -> bool:
    """Whether a step leaves parameters without a gradient (an auxiliary head, say): processes must know, or they wait."""
    module, method = setup.method.module, setup.method
    height, width = setup.built["probe_size"]
    reference = next(module.parameters())
    images = torch.zeros(1, 3, height, width, device=reference.device, dtype=reference.dtype)
    labels = torch.zeros(1, height, width, dtype=torch.uint8, device=reference.device)
    context = StepContext(0, 0.5, 0, setup.task.classes.ignore_index, None, dropped=None)
    with untouched(module):
        method.loss(images, labels, context).total.backward()  # type: ignore[no-untyped-call]
    unused = any(parameter.requires_grad and parameter.grad is None for parameter in module.parameters())
    module.zero_grad(set_to_none=True)
    return unused


def _log_frequency(setup: Setup, device: torch.device) -> Tensor | None:
    """Once a run: its checks would make a GPU wait at each step."""
    pixels = torch.from_numpy(setup.task.statistics.pixels)
    return logit_shift(pixels, 1.0).to(device) if bool(pixels.any()) else None


def start(
    setup: Setup,
    accelerator: Accelerator,
    signals: StopSignals,
    checkpoint: Checkpoint | None,
    *,
    in_channels_last: bool = False,
) -> Session:
    """Prepare a run for its first step, or the first after ``checkpoint``."""
    train, processes = setup.recipe.train, Processes.of(accelerator)
    module = setup.method.module.train()
    optimiser = build_optimiser(module, train)
    step = 0 if checkpoint is None else checkpoint.step
    workers = workers_for(setup, processes, step)
    loader, batches = loader_for(setup, processes.device, workers, step)
    if processes.count > 1 and _has_unused_parameters(setup):
        accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=True)
    prepared, optimiser, loader = accelerator.prepare(LossModule(setup.method), optimiser, loader)
    if checkpoint is not None:
        restore(checkpoint, setup.method, optimiser, accelerator.scaler)
    # After the network stands on its device, with the weights that it starts from.
    average = WeightAverage(module, train.ema) if train.ema else None
    if average is not None and checkpoint is not None and checkpoint.average is not None:
        average.load_state_dict(checkpoint.average)
    scale, shift = setup.preprocess.scale_and_shift()
    weight = setup.task.class_weight
    return Session(
        setup=setup,
        accelerator=accelerator,
        processes=processes,
        module=prepared,
        optimiser=optimiser,
        loader=loader,
        batches=batches,
        journal=Journal(setup.folder, step, enabled=accelerator.is_main_process),
        scale=torch.from_numpy(scale).to(processes.device),
        shift=torch.from_numpy(shift).to(processes.device),
        class_weight=None if weight is None else torch.from_numpy(weight).float().to(processes.device),
        class_log_frequency=_log_frequency(setup, processes.device),
        average=average,
        watch=LossWatch(),
        signals=signals,
        step=step,
        meter=Meter(train.batch_size),
        data_wait=DataWait(workers, usable_cores()),
        in_channels_last=in_channels_last,
    )
