"""Embeddings to diagnose, and the ranks that are reported of them."""

from functools import cache

import torch
from helpers.reference import normal, rotation

from dyncollapse import diagnose, planted_cases

CASES = [case.name for case in planted_cases(samples=8)]  # of few samples, as only their names are read
LARGE = (0, 4000)  # a seed, and so many samples
RANKS = ("rankme", "effective_rank", "participation_ratio", "stable_rank")


def planted(generator, n, spectrum, mean=0.0):
    """Rows whose covariance (1/n) is exactly the one with these eigenvalues, in a random frame, around a mean."""
    d = len(spectrum)
    rows = normal(generator, n, d)
    rows = rows - rows.mean(0)
    white = torch.linalg.qr(rows).Q * n**0.5
    return white * torch.as_tensor(spectrum, dtype=torch.float64).sqrt() @ rotation(generator, d) + mean


@cache
def cases(seed, samples):
    """The planted cases by name, drawn once for all tests, none of which changes them."""
    return {case.name: case for case in planted_cases(seed, samples)}


@cache
def report_on(name, seed, samples):
    """The report on a planted case from all that is given of it, made once for all tests."""
    case = cases(seed, samples)[name]
    return diagnose(case.z, **case.others)
