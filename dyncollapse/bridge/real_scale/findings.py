"""Results of a part of the real-scale check: numbers with limits and targets, and what was left out."""

import math
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dyncollapse.bridge.real_scale.scale import Scale
from dyncollapse.bridge.training.loop import LossDiverged


@dataclass(frozen=True)
class Finding:
    """One measured number.

    Attributes:
        what: What was measured.
        value: The number; None if it is missing.
        unit: Its unit.
        limit: Largest allowed value, or smallest if `least`; None for no limit.
        least: Whether `limit` is a lower bound.
        target: Whether the limit is only a target: missing it is reported and is no failure.
    """

    what: str
    value: float | None
    unit: str = ""
    limit: float | None = None
    least: bool = False
    target: bool = False

    @property
    def holds(self) -> bool | None:
        """Whether it respects its limit; None without one. A missing number or NaN does not."""
        if self.limit is None:
            return None
        if self.value is None or math.isnan(self.value):
            return False
        return self.value >= self.limit if self.least else self.value <= self.limit

    @property
    def fails(self) -> bool:
        """Whether it violates its limit; a missed target is no failure."""
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
        values: The data behind them as plain JSON values, for report.json and pictures.
        skipped: Sentences on what was left out and why.
    """

    findings: list[Finding]
    values: dict[str, Any] = field(default_factory=dict)  # each part has its own keys
    skipped: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether a number violates its limit."""
        return any(finding.fails for finding in self.findings)


def record_failure(error: BaseException, name: str, values: dict[str, Any]) -> str:
    """Record that one row or variant of a part failed, while the part goes on with the others.

    Args:
        error: What was raised, while it is being handled.
        name: The row or variant.
        values: The part's values; `failed` and `tracebacks` get an entry.

    Returns:
        One line: the error's first line, after its type where the message was not written for users.
    """
    line = (str(error).strip().splitlines() or [""])[0]
    line = line if isinstance(error, (ValueError, LossDiverged)) else f"{type(error).__name__}: {line}"
    values["failed"][name] = line
    values.setdefault("tracebacks", {})[name] = traceback.format_exc()
    return line


def _ignore(_value: object) -> None:
    """The default for `tell` and `save`: do nothing."""


@dataclass(frozen=True)
class Site:
    """Where a part works.

    Attributes:
        scale: Sizes of all parts.
        device: Where the part computes.
        folder: Temporary folder, shared by all parts.
        report: Folder of files that are kept.
        until: When the part has to end, in seconds of time.time().
        cifar: CIFAR-10, a folder or an archive; None to leave it out.
        tell: Called with lines on the progress.
        save: Called with partial results, which are reported even if the part fails later.
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
        """Seconds until the part has to end."""
        return self.until - time.time()

    def target(self, what: str, value: float | None, limit: float, *, least: bool, unit: str = "") -> Finding:
        """Make a finding with a target; at toy sizes, where targets mean nothing, without it.

        Args:
            what: What was measured.
            value: The number.
            limit: The target.
            least: Whether the target is a lower bound.
            unit: Unit of the number.

        Returns:
            The finding.
        """
        return Finding(what, value, unit, limit if self.scale.judged else None, least, target=True)
