"""What a claim is: a statement, its source, and a check that measures it."""

import inspect
import math
import time as clock
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measured:
    """A measured number and the bound that it has to respect; NaN respects none."""

    value: float
    bound: float
    relation: str = "<="

    @property
    def holds(self) -> bool:
        """Whether value <= bound, or value >= bound."""
        return self.value <= self.bound if self.relation == "<=" else self.value >= self.bound


@dataclass(frozen=True)
class Claim:
    """One statement of the theory and the check that measures it.

    `expected` is False for a statement that is wrong as printed: its check must fail. `quantity` names what is
    measured, `explanation` says in a paragraph what is done and why the bound is what it is.
    """

    name: str
    source: str
    statement: str
    quantity: str
    explanation: str
    expected: bool
    check: Callable[[], Measured]


@dataclass(frozen=True)
class Checked:
    """A claim after its check: what was measured, or the error that stopped it, and how long it took."""

    claim: Claim
    measured: Measured | None
    error: str | None
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether the measurement respects its bound; a check that broke down does not hold."""
        return self.measured is not None and self.measured.holds

    @property
    def surprising(self) -> bool:
        """Whether the claim behaves unlike what is expected of it, or could not be checked at all."""
        return self.error is not None or self.holds != self.claim.expected


def claim(name: str, source: str, quantity: str, *, expected: bool = True) -> Callable[[Callable[[], Measured]], Claim]:
    """Turn a check into a Claim: its docstring's first paragraph is the statement, the rest the explanation."""

    def decorate(check: Callable[[], Measured]) -> Claim:
        statement, _, explanation = (inspect.getdoc(check) or "").partition("\n\n")
        return Claim(
            name, source, " ".join(statement.split()), quantity, " ".join(explanation.split()), expected, check
        )

    return decorate


def assume(held: bool, what: str) -> None:
    """Raise RuntimeError when a control or an assumption did not hold: the measured number would then mean nothing."""
    if not held:
        raise RuntimeError(f"not so in this run: {what}")


def run_check(claim: Claim) -> Checked:
    """Measure one claim. An exception becomes part of the result, so that one broken check hides no other."""
    started = clock.perf_counter()
    try:
        measured, error = claim.check(), None
        if math.isnan(measured.value) or math.isnan(measured.bound):
            error = f"measured {measured.value}, bound {measured.bound}: no number, no measurement"
    except Exception as exception:
        measured, error = None, f"{type(exception).__name__}: {exception}"
    return Checked(claim, measured, error, clock.perf_counter() - started)


def as_values(checked: Checked) -> dict[str, Any]:
    """Turn a checked claim into plain JSON values; numbers of a check that broke down are null."""
    claim, measured = checked.claim, checked.measured if checked.error is None else None
    return {
        "name": claim.name,
        "statement": claim.statement,
        "source": claim.source,
        "quantity": claim.quantity,
        "measured": None if measured is None or math.isinf(measured.value) else measured.value,
        "relation": None if measured is None else measured.relation,
        "bound": None if measured is None or math.isinf(measured.bound) else measured.bound,
        "holds": checked.holds,
        "expected": claim.expected,
        "error": checked.error,
        "seconds": checked.seconds,
    }
