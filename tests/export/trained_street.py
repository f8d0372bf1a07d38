"""A small network that has learnt the built-in street: sabotage and quantisation need something to lose."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor, nn

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.registry import open_dataset

DATA = "synthetic:"
STEPS, BATCH = 100, 8


class Street(nn.Module):
    """Logits at a quarter of the resolution, resized by the network itself."""

    def __init__(self, classes: int = 12, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_block(3, width, stride=2), *_block(width, width, stride=2))
        self.body = nn.Sequential(*_block(width, 2 * width), *_block(2 * width, 2 * width, dilation=2))
        self.context = nn.Sequential(*_block(2 * width, 2 * width, dilation=4))
        self.classifier = nn.Conv2d(2 * width, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(self.stem(images))
        logits = self.classifier(features + self.context(features))
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)


def _block(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


def street_classes() -> ClassTable:
    """The street's classes with the rare half marked, as training would count them."""
    table = open_dataset(DATA, "val").classes
    rare = tuple(sorted(map(table.names.index, ("car", "pole", "sign", "person", "cyclist", "cycle_path"))))
    return table.model_copy(update={"rare": rare})


def trained_street(folder: Path) -> Street:
    """The network, trained once for all test processes that share ``folder`` (about ten seconds)."""
    torch.manual_seed(0)
    network = Street()
    path = folder / "street.pt"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            _train(network)
            torch.save(network.state_dict(), path)
        network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


def _train(network: Street) -> None:
    data, preprocess = open_dataset(DATA, "train"), Preprocess()
    images = torch.cat([torch.from_numpy(preprocess.normalise(data.image(index))) for index in range(len(data))])
    labels = torch.stack([torch.from_numpy(data.mask(index)).long() for index in range(len(data))])
    optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 8e-3, total_steps=STEPS)
    generator = torch.Generator().manual_seed(0)
    network.train()
    for _ in range(STEPS):
        chosen = torch.randint(len(images), (BATCH,), generator=generator)
        loss = F.cross_entropy(network(images[chosen]), labels[chosen], ignore_index=255)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
