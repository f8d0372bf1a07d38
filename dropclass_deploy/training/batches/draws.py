"""Random numbers by purpose and number: what a run draws at a step does not depend on what was drawn before."""

from __future__ import annotations

import torch


def generator_for(seed: int, stream: int, number: int) -> torch.Generator:
    """A CPU generator for one purpose (``stream``) and one step, sample or pass (``number``)."""
    return torch.Generator().manual_seed(key_for(seed, stream, number))


def key_for(seed: int, stream: int, number: int) -> int:
    """The seed of one purpose and number, in [0, 2⁶³).

    A multiply-and-mix (splitmix64's constants) keeps neighbouring numbers from sharing generator state.
    """
    state = (seed * 0x9E3779B97F4A7C15 + stream * 0xBF58476D1CE4E5B9 + number * 0x94D049BB133111EB) & (2**64 - 1)
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (state ^ (state >> 31)) & (2**63 - 1)


def draw(generator: torch.Generator, low: float, high: float) -> float:
    """A uniform number from [low, high)."""
    return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()
