"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import torch
from torch import nn

from dropclass_deploy.training.recipe import TrainSection


def build_optimiser(module: nn.Module, train: TrainSection) -> torch.optim.Optimizer:
    """AdamW, Adam or SGD; weight decay on weights of convolutions and linear layers only, not on biases and norms."""
    decayed = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": train.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if train.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=train.lr, momentum=train.momentum)
    kind = torch.optim.Adam if train.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=train.lr)


def learning_rate(train: TrainSection, step: int) -> float:
    """Learning rate of step 0 … steps − 1, progress = step / steps.

    "poly": lr · (1 − progress)^power; "step": lr · step_gamma^k, k the milestones in ``step_at`` that progress has reached;
    "constant": lr. During the first ``warmup_steps`` it is multiplied by a share that rises linearly to 1: no jump at
    their end.
    """
    share = min(1.0, (step + 1) / train.warmup_steps) if train.warmup_steps else 1.0
    return float(share * train.lr * _decay(train, step / train.steps))


def _decay(train: TrainSection, progress: float) -> float:
    if train.schedule == "poly":
        return float((1.0 - progress) ** train.power)
    if train.schedule == "step":
        return float(train.step_gamma ** sum(progress >= milestone for milestone in train.step_at))
    return 1.0


def set_learning_rate(optimiser: torch.optim.Optimizer, value: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimiser.param_groups:
        group["lr"] = value
