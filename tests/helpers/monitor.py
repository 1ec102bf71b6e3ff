"""Embeddings to watch, and reports to compare."""

import pytest
import torch
from helpers.reference import normal, seeded

from dyncollapse import Monitor

# Sums of a few hundred well-conditioned numbers, in two orders: a few eps of each of d^2 products.
ROUND_OFF = 1e-12


def gaussian(seed, n=60, d=5, others=0):
    """Embeddings of steep spectrum around a mean, and other views of them."""
    g = seeded(seed)
    scales = torch.logspace(0, -1, d, dtype=torch.float64)
    z = (normal(g, n, d) + 1) * scales
    return [z, *(z + 0.5 * normal(g, n, d) * scales for _ in range(others))]


def watched(arrays, *splits, **options):
    """A monitor that saw rows 0 to splits[0], splits[0] to splits[1], and so on to the end."""
    monitor = Monitor(**options)
    for start, stop in zip((0, *splits), (*splits, len(arrays[0])), strict=True):
        monitor.update(*(view[start:stop] for view in arrays))
    return monitor


def numbers(value):
    """Every number of a report in order, and all else in it as text."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        parts = [numbers(part) for part in value]
        return [n for ns, _ in parts for n in ns], [t for _, ts in parts for t in ts]
    return ([value], []) if isinstance(value, float) else ([], [value])


def assert_same(got, expected, rtol=1e-9):
    """Everything that two reports say; the largest of what is summed has ROUND_OFF, and a spectrum of 100 to 1 1e-9."""
    mine, theirs = got.as_values(), expected.as_values()
    for warned in (mine, theirs):
        # Sentences show two digits, which round-off may tip.
        del warned["warnings"], warned["verdict"]["sentence"]
    (mine_numbers, mine_text), (their_numbers, their_text) = numbers(mine), numbers(theirs)
    assert mine_text == their_text
    assert mine_numbers == pytest.approx(their_numbers, rel=rtol, abs=1e-14)
    assert len(got.warnings) == len(expected.warnings)
