"""What a part of the real-scale check found: numbers, what they must be or should be, and what was left out."""

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
class Found:
    """The findings of a part, the numbers behind them for figures and readers, and what it skipped, and why."""

    findings: list[Finding]
    values: dict[str, Any] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether a number is not what it must be."""
        return any(finding.fails for finding in self.findings)


@dataclass(frozen=True)
class Site:
    """Where a part works: sizes, device, folders for what it needs and for what is kept, and a voice.

    It has to end by `until`, in seconds of time.time(). What it gives to `save` is told even if the part fails later.
    """

    scale: Scale
    device: torch.device
    folder: Path
    report: Path
    until: float
    cifar: Path | None = None
    tell: Callable[[str], object] = print
    save: Callable[[Found], object] = id

    @property
    def left(self) -> float:
        """Seconds until it has to end."""
        return self.until - time.time()

    def target(self, what: str, value: float | None, limit: float, *, least: bool, unit: str = "") -> Finding:
        """A speed with its target, which at toy sizes means nothing and is left out."""
        return Finding(what, value, unit, limit if self.scale.judged else None, least, target=True)
