"""How the benchmark runs."""

from __future__ import annotations

from dataclasses import dataclass

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.model_files import DENSE
from dropclass_deploy.core.progress import Advance


@dataclass(frozen=True)
class BenchOptions:
    """Options of ``bench``; contradictions are refused at construction.

    Attributes:
        queries: timed rounds; in each, every contender answers one query in every scope.
        warmup: rounds before, not timed.
        threads: of one operator of the artifact and the naive path; None leaves the choice to the runtime.
        runtime: of the artifact.
        precision: of the artifact's network file.
        head: of the mask network, "dense" or "sparse".
        budget_s: stop after the round that passes so many seconds, and say how many queries were made.
        progress: told after each timed round.
    """

    queries: int = 100
    warmup: int = 10
    threads: int | None = None
    runtime: str = "auto"
    precision: str = "fp32"
    head: str = DENSE
    budget_s: float | None = None
    progress: Advance | None = None

    def __post_init__(self) -> None:
        if self.queries < 1 or self.warmup < 0:
            raise UserError(
                f"{self.queries} queries after {self.warmup} warm-up rounds", expected="at least 1, and 0 or more"
            )
        if self.budget_s is not None and not self.budget_s > 0:
            raise UserError(f"the budget is {self.budget_s} seconds", expected="more than 0")
