"""What a user's own module of networks may look like, for ``python:`` names."""

from __future__ import annotations

from torch import Tensor, nn

from dropclass_deploy.core.errors import DataError

not_callable = 3


class Tiny(nn.Module):
    """Two convolutions with logits at full resolution; its own keys begin as wrappers' do."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.model(images))


def tiny(num_classes: int, width: int = 8) -> nn.Module:
    return Tiny(num_classes, width)


def any_options(num_classes: int, **options: object) -> nn.Module:
    return Tiny(num_classes, len(options) + 1)


def without_classes(width: int) -> nn.Module:
    return Tiny(3, width)


def raises(num_classes: int) -> nn.Module:
    raise RuntimeError("the disk of my encoder is gone\nand more")


def exits(num_classes: int) -> nn.Module:
    raise SystemExit(0)  # as a script's main() does


def raises_ours(num_classes: int) -> nn.Module:
    raise DataError("a mistake with its own words")


def returns_nothing(num_classes: int) -> None:
    return None
