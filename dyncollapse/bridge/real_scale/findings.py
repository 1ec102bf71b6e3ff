"""The result of a part of the real-scale check: numbers, their limits and targets, and what was left out."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dyncollapse.bridge.real_scale.scale import Scale


@dataclass(frozen=True)
class Finding:
    """One number. With `limit` it must be at most that, or at least that if `least`; a `target` only should be."""

    what: str
    value: float | None
    unit: str = ""
    limit: float | None = None
    least: bool = False
    target: bool = False

    @property
    def holds(self) -> bool | None:
        """Whether it keeps its limit; None where it has none. A number that is missing or NaN keeps none."""
        if self.limit is None:
            return None
        if self.value is None or math.isnan(self.value):
            return False
        return self.value >= self.limit if self.least else self.value <= self.limit

    @property
    def fails(self) -> bool:
        """Whether it is not what it must be; to miss a target is no failure."""
        return self.holds is False and not self.target

    @property
    def sentence(self) -> str:
        """The number and its limit in words."""
        shown = "none" if self.value is None else f"{self.value:.4g}" if abs(self.value) < 1e4 else f"{self.value:,.0f}"
        text = f"{self.what}: {shown}{' ' if self.unit else ''}{self.unit}"
        if self.limit is None:
            return text
        verdict = ("met" if self.holds else "missed") if self.target else ("ok" if self.holds else "FAILED")
        bound = f"{'at least' if self.least else 'at most'} {self.limit:.4g}"
        return f"{text} ({'target: ' if self.target else ''}{bound}: {verdict})"


@dataclass(frozen=True)
class PartResult:
    """The result of a part.

    Attributes:
        findings: Numbers with their limits.
        values: Plain JSON values behind them, for report.json and its pictures.
        skipped: Sentences on what was left out, and why.
    """

    findings: list[Finding]
    values: dict[str, Any] = field(default_factory=dict)  # of a shape of its own for each part
    skipped: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether a number is not what it must be."""
        return any(finding.fails for finding in self.findings)


def _ignore(_value: object) -> None:
    """Do nothing with what a part says or saves, where nobody listens."""


@dataclass(frozen=True)
class Site:
    """Where a part works.

    Attributes:
        scale: Its sizes.
        device: Where it computes.
        folder: For what it needs meanwhile, shared by all parts.
        report: For what is kept.
        until: When it has to end, in seconds of time.time().
        cifar: CIFAR-10, a folder or an archive.
        tell: Called with a line on its progress.
        save: Called with what there is of its result, which is reported even if the part fails later.
    """

    scale: Scale
    device: torch.device
    folder: Path
    report: Path
    until: float
    cifar: Path | None = None
    tell: Callable[[str], object] = _ignore
    save: Callable[[PartResult], object] = _ignore

    @property
    def left(self) -> float:
        """Seconds until it has to end."""
        return self.until - time.time()

    def target(self, what: str, value: float | None, limit: float, *, least: bool, unit: str = "") -> Finding:
        """A speed with its target, which at toy sizes means nothing and is left out."""
        return Finding(what, value, unit, limit if self.scale.judged else None, least, target=True)
