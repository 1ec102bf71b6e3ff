"""Steps that stored values were rounded to: whole numbers, decimals of a text file, integers times a scale."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

# Inverse steps that are looked for, coarsest first: decimals of text files, and fixed binary points.
INVERSE_STEPS = sorted({10.0**k for k in range(11)} | {2.0**k for k in range(1, 21)})
DIGITS = range(2, 9)  # significant digits that are looked for; rounding to more is below that of the sums
# A step counts if it is so many times the spacing of the format: every value then lies on it by chance once in 64.
CLEAR = 64
# Columns whose standard deviation is so many steps count as rounded, so that rounding is at most 1/768 of their
# variance. Others, such as codes of one bit and counts of rare events, may be exact.
FINE = 8
ENOUGH_ROWS = 512
FEWEST_ROWS = 10  # of fewer, some column of many lies on some step by chance; causes are not decided by them, either
FIRST = 8  # rows and columns that mostly show, in less time, that values have no common step
# Share of distinct values in a column up to which it may hold integers times a scale.
MOSTLY_DISTINCT = 0.9


class Steps(NamedTuple):
    """How coarsely the values of a view were rounded, as the variance step^2 / 12 that this adds to a column.

    Attributes:
        fine: The largest over columns that spread over at least `FINE` steps, which count as rounded.
        any: The largest over all columns, also those whose few values may be exact.
        name: The rounding in words, or nothing if there is none.
    """

    fine: float
    any: float
    name: str


class _Found(NamedTuple):
    """The variance that rounding adds to every column, 0 where no step was found, and its name by column."""

    variance: Float[Tensor, " d"]
    names: dict[int, str]


def steps_of(rows: Shaped[Tensor, "r d"], eps: float) -> Steps:
    """Find a common step of the values of each column, or a number of significant digits that they were rounded to.

    Args:
        rows: The values as they are stored; at most `ENOUGH_ROWS` of them are looked at.
        eps: Machine precision of the format that they were rounded to at last; 0 for integers.

    Returns:
        The largest rounding; none for fewer than `FEWEST_ROWS` rows.
    """
    values = rows[:: -(-len(rows) // ENOUGH_ROWS)].detach().cpu().to(torch.float64)
    columns = (values != values[:1]).any(0).nonzero().flatten()
    if not len(columns) or len(values) < FEWEST_ROWS:
        return Steps(0.0, 0.0, "")
    values = values[:, columns]
    plain, digits = _plain_steps(values, eps), _digits(values, eps)
    plain = plain if plain.variance.any() else _scaled_steps(values, eps)
    # Small whole numbers have few digits anyway.
    written = digits.variance > 4 * plain.variance
    variance = torch.where(written, digits.variance, plain.variance)
    if not variance.any():
        return Steps(0.0, 0.0, "")
    fine = torch.where(values.var(0, correction=0) >= 12 * FINE**2 * variance, variance, 0.0)
    largest = int((fine if fine.any() else variance).argmax())
    names = digits.names if written[largest] else plain.names
    return Steps(float(fine.max()), float(variance.max()), names[largest])


def _plain_steps(values: Float[Tensor, "r q"], eps: float) -> _Found:
    """Find decimals, binary points and whole numbers, and whole multiples of their steps."""
    size = values.abs().sum(0) / (values != 0).sum(0).clamp_min(1)
    variance, names = torch.zeros_like(size), dict[int, str]()
    for inverse in INVERSE_STEPS:
        usable = (variance == 0) & (CLEAR * eps * size * inverse <= 1)
        columns = usable.nonzero().flatten()
        for part in (slice(FIRST), slice(None)):
            columns = columns[_on_steps(values[part, columns], inverse, eps)] if len(columns) else columns
        if len(columns):
            steps = _common_divisor((values[:, columns] - values[0, columns]) * inverse) / inverse
            variance[columns] = steps.square() / 12
            names |= {int(k): _name(float(step)) for k, step in zip(columns, steps, strict=True)}
    return _Found(variance, names)


def _on_steps(values: Float[Tensor, "r q"], inverse: float, eps: float) -> Bool[Tensor, " q"]:
    nearest = (values * inverse).round() / inverse
    return ((nearest - values).abs() <= eps * values.abs()).all(0)


def _common_divisor(places: Float[Tensor, "r q"]) -> Float[Tensor, " q"]:
    """Return the greatest common divisor of whole numbers in each column; those beyond 2^53 say nothing."""
    whole = torch.where(places.abs() < 2.0**53, places, 0.0).round().to(torch.int64)
    return torch.from_numpy(np.gcd.reduce(whole.numpy(), axis=0)).to(torch.float64)


def _scaled_steps(values: Float[Tensor, "r q"], eps: float) -> _Found:
    """Find integers times a scale, with or without an offset, where a column has few distinct values."""
    count, q = values.shape
    if CLEAR * eps > 10.0 ** -DIGITS[0]:
        return _Found(values.new_zeros(q), {})
    peek = values[:, :: -(-q // FIRST)].sort(0).values
    if not bool(((peek.diff(dim=0) > 0).sum(0) < MOSTLY_DISTINCT * count).any()):
        return _Found(values.new_zeros(q), {})
    ordered = values.mT.contiguous().sort(1).values.mT
    rounding, gaps = 4 * eps * values.abs().amax(0), ordered.diff(dim=0)
    apart = gaps > rounding
    span = ordered[-1] - ordered[0]
    step = span / (span / torch.where(apart, gaps, torch.inf).amin(0)).round().clamp_min(1)
    places = (values - ordered[0]) / step
    off = (places - places.round()).abs().amax(0) * step
    found = (apart.sum(0) < MOSTLY_DISTINCT * count) & (CLEAR * rounding <= step) & (off <= rounding)
    names = {k: _name(float(step[k])) for k in found.nonzero().flatten().tolist()}
    return _Found(torch.where(found, step.square() / 12, 0.0), names)


def _digits(values: Float[Tensor, "r q"], eps: float) -> _Found:
    """Find numbers of significant digits, as `%.5g` writes them."""
    variance, names = values.new_zeros(values.shape[1]), dict[int, str]()
    for digits in DIGITS:
        if CLEAR * eps > 10.0**-digits:
            break
        columns = (variance == 0).nonzero().flatten()
        for part in (slice(FIRST), slice(None)):
            columns = columns[_has_digits(values[part, columns], digits, eps)] if len(columns) else columns
        if len(columns):
            variance[columns] = _last_places(values[:, columns], digits).square().mean(0) / 12
            names |= {int(k): f"{digits} significant digits" for k in columns}
    return _Found(variance, names)


def _last_places(values: Float[Tensor, "r q"], digits: int) -> Float[Tensor, "r q"]:
    """Return the unit of the last of so many digits of every number; 0 for 0."""
    powers = values.abs().log10().floor() + 1 - digits
    return torch.where(values != 0, 10.0**powers, 0.0)


def _has_digits(values: Float[Tensor, "r q"], digits: int, eps: float) -> Bool[Tensor, " q"]:
    unit = _last_places(values, digits)
    nearest = torch.where(unit > 0, (values / unit).round() * unit, values)
    return ((nearest - values).abs() <= 4 * eps * values.abs()).all(0)


def _name(step: float) -> str:
    return "whole numbers" if step == 1 else f"steps of {step:.3g}"
