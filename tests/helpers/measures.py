"""What the tests of the measures share: which there are, spectra to measure, and slow definitions."""

import math

import torch
from hypothesis import strategies as st

from dyncollapse.diagnostics.measures import (
    alpha_req,
    effective_rank,
    intrinsic_dimension,
    participation_ratio,
    rankme_from_eigenvalues,
)
from dyncollapse.diagnostics.spectra import covariance_spectrum

# Every measure of a spectrum that counts: k equal values give k.
COUNTS = [effective_rank, participation_ratio, intrinsic_dimension, rankme_from_eigenvalues]
SEEDS = range(3)


def plain_alpha(spectrum):
    return alpha_req(spectrum, first=1, last=max(len(spectrum), 2), weighted=False)


MEASURES = [*COUNTS, plain_alpha]


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def close(got, expected, rtol=1e-12, atol=0.0):
    expected = torch.as_tensor(expected, dtype=torch.float64).expand(got.shape)
    torch.testing.assert_close(got, expected, rtol=rtol, atol=atol)


@st.composite
def spectra(draw, least=1):
    """Values from 1e-8 to 1e8, some of them exactly 0, at least `least` of them not."""
    powers = draw(st.lists(st.floats(-8, 8), min_size=least, max_size=12))
    zeros = draw(st.integers(0, 3))
    values = [10**power for power in powers] + [0.0] * zeros
    return tensor(*draw(st.permutations(values)))


# --- The definitions once more, slow and obvious


def slow_effective_rank(values):
    total, entropy = sum(values), 0.0
    for value in values:
        if value > 0:
            entropy -= value / total * math.log(value / total)
    return math.exp(entropy)


def moments(z):
    """What a stream keeps: the covariance spectrum and the mean fourth power of the distance to the mean."""
    fourth = (z - z.mean(-2, keepdim=True)).square().sum(-1).square().mean(-1)
    return covariance_spectrum(z), fourth
