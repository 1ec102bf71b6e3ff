"""Rank measures of the same embeddings as other libraries and papers compute them, to place a published number."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.diagnostics.conversion import Rows, as_rows
from dyncollapse.diagnostics.lidar import lidar
from dyncollapse.diagnostics.measures import alpha_req, effective_rank
from dyncollapse.diagnostics.spectra import covariance_spectrum
from dyncollapse.diagnostics.spectrum_checks import require_finite, require_matrix
from dyncollapse.runtime.settings import SettingError

HERE = "dyncollapse"
PAPER_EPSILON = REPTRIX_EPSILON = 1e-7  # in RankMe's entropy: Garrido et al. 2023, Eq. 1; reptrix 0.1.0
STABLE_EPSILON, STABLE_LIDAR_EPSILON = 1e-5, 1e-8  # stable-pretraining 0.1.8
STABLE_DELTA, REPTRIX_DELTA = 1e-4, 1e-6  # added to the covariance within samples
REPTRIX_MOST = 2048  # eigenvalues that reptrix computes at most
REPTRIX_RANKS = (11, 100)  # of its fit of a power law


class PublishedMeasure(NamedTuple):
    """One rank measure in one convention.

    Attributes:
        measure: "rankme", "lidar" or "alpha_req".
        source: The library or paper.
        value: The number that it gives; None where it gives none.
        convention: How it computes the number, in words.

    Examples:
        >>> PublishedMeasure("rankme", "reptrix", 7.915, "eigenvalues of the centred covariance").value
        7.915
    """

    measure: str
    source: str
    value: float | None
    convention: str


def compare_conventions(z: Rows, positives: Rows | Sequence[Rows] | None = None) -> list[PublishedMeasure]:
    """Compute RankMe, LiDAR and alpha-ReQ in the conventions of other libraries and papers.

    All take the same rows, held whole in float64. The libraries themselves take a part of them by default, and float32.

    Args:
        z: Embeddings (n, d), a row per sample.
        positives: Other views of the same samples, row by row; LiDAR needs one or more.

    Returns:
        A record for each measure and convention, this library's first. LiDAR is left out without other views.

    Raises:
        SettingError: For views of other shapes.
        ValueError: As for `rankme` and `lidar`.

    References:
        Garrido et al. 2023, arXiv 2210.02885; Thilak et al. 2024, arXiv 2312.04000; Agrawal et al. 2022,
        arXiv 2202.05808; reptrix 0.1.0; stable-pretraining 0.1.8.

    Examples:
        >>> z = torch.randn(500, 64, generator=torch.Generator().manual_seed(0)) * torch.arange(64).lt(8)
        >>> for one in compare_conventions(z)[:4]:
        ...     print(f"{one.source}: {one.value:.3f}")
        dyncollapse: 7.978
        Garrido et al. 2023: 7.979
        stable-pretraining: 8.031
        reptrix: 7.915
    """
    given = [] if positives is None else positives if isinstance(positives, list | tuple) else [positives]
    rows, *others = (as_rows(view).double() for view in (z, *given))
    if wrong := [tuple(view.shape) for view in others if view.shape != rows.shape]:
        raise SettingError(
            f"`positives` has shape {wrong[0]}, and the embeddings {tuple(rows.shape)}; give the same rows"
        )
    require_matrix(rows, "embeddings")
    require_finite(rows, "embeddings")
    centred = covariance_spectrum(rows)
    found = _rankmes(torch.linalg.svdvals(rows), _as_reptrix(centred, rows))
    if others:
        found += _lidars(torch.stack([rows, *others]))
    return found + _alphas(centred, _as_reptrix(centred, rows))


def _rankmes(sigma: Float[Tensor, " k"], centred: Float[Tensor, " r"]) -> list[PublishedMeasure]:
    """RankMe from singular values, which are not centred, and as reptrix takes it from the centred covariance."""
    return [
        PublishedMeasure("rankme", HERE, float(effective_rank(sigma)), "singular values, not centred, no epsilon"),
        PublishedMeasure(
            "rankme",
            "Garrido et al. 2023",
            _entropy_rank(sigma, PAPER_EPSILON),
            f"singular values, not centred, {PAPER_EPSILON:g} added to every share",
        ),
        PublishedMeasure(
            "rankme",
            "stable-pretraining",
            _entropy_rank(sigma, STABLE_EPSILON),
            f"singular values, not centred, {STABLE_EPSILON:g} added to every share",
        ),
        PublishedMeasure(
            "rankme",
            "reptrix",
            _entropy_rank(centred, REPTRIX_EPSILON),
            f"eigenvalues of the centred covariance, {REPTRIX_EPSILON:g} added to every share: effective_rank here",
        ),
    ]


def _lidars(views: Float[Tensor, "v n d"]) -> list[PublishedMeasure]:
    v, n, d = views.shape
    centres = views.mean(0)
    means, rest = centres - centres.mean(0), (views - centres).flatten(0, 1)
    between, within = means.mT @ means, rest.mT @ rest  # sums over samples, and over samples and views
    identity = torch.eye(d, dtype=views.dtype, device=views.device)

    def stable() -> float:
        values = _lda_values(between / (n - 1), within / (n * (v - 1)) + STABLE_DELTA * identity) + STABLE_LIDAR_EPSILON
        return float(effective_rank(values))

    def reptrix() -> float:
        matrix = _lda_matrix(between, within / n + REPTRIX_DELTA * identity)
        return _entropy_rank(_as_reptrix(covariance_spectrum(matrix), matrix), REPTRIX_EPSILON)

    ours = "1/n between and 1/(n v) within samples, delta 0.0001, no epsilon"
    theirs = f"1/(n - 1) and 1/(n (v - 1)), delta {STABLE_DELTA:g}, {STABLE_LIDAR_EPSILON:g} added to every eigenvalue"
    squared = f"sum and 1/n, delta {REPTRIX_DELTA:g}; the spectrum of the LDA matrix's centred rows, which are squared"
    return [
        PublishedMeasure("lidar", HERE, _or_none(lambda: float(lidar(views))), ours),
        PublishedMeasure("lidar", "stable-pretraining", _or_none(stable), theirs),
        PublishedMeasure("lidar", "reptrix", _or_none(reptrix), squared),
    ]


def _alphas(centred: Float[Tensor, " d"], values: Float[Tensor, " r"]) -> list[PublishedMeasure]:
    """alpha-ReQ from the eigenvalues of the centred covariance, and from those of them that reptrix takes."""
    first, last = REPTRIX_RANKS
    reptrix = _or_none(lambda: float(alpha_req(values, first, last))) if len(values) >= last else None
    lacks = "" if len(values) >= last else f"; it needs {last} eigenvalues, and there are {len(values)}"
    return [
        PublishedMeasure(
            "alpha_req",
            HERE,
            _or_none(lambda: float(alpha_req(centred))),
            "ranks 6 to 100 as far as eigenvalues are not 0, weights 1/rank",
        ),
        PublishedMeasure("alpha_req", "reptrix", reptrix, f"ranks {first} to {last}, weights 1/rank{lacks}"),
    ]


def _entropy_rank(spectrum: Float[Tensor, " k"], epsilon: float) -> float:
    """The exponential of the entropy of shares that each get an epsilon, whose sum is then above 1."""
    shares = spectrum / spectrum.sum() + epsilon
    return float((-torch.special.xlogy(shares, shares).sum()).exp())


def _as_reptrix(centred: Float[Tensor, " d"], rows: Float[Tensor, "n d"]) -> Float[Tensor, " r"]:
    """The eigenvalues of the covariance of rows that reptrix takes, up to their scale: at most min(n, d, 2048)."""
    return centred[: min(*rows.shape, REPTRIX_MOST)]


def _lda_matrix(between: Float[Tensor, "d d"], within: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """W^(-1/2) B W^(-1/2) with the symmetric root."""
    values, vectors = torch.linalg.eigh(within)
    root = (vectors / values.sqrt()) @ vectors.mT
    return root @ between @ root


def _lda_values(between: Float[Tensor, "d d"], within: Float[Tensor, "d d"]) -> Float[Tensor, " d"]:
    matrix = _lda_matrix(between, within)
    return torch.linalg.eigvalsh((matrix + matrix.mT) / 2).clamp(min=0)


def _or_none(measure: Callable[[], float]) -> float | None:
    """The measure, or None for embeddings of which it has no value."""
    try:
        return measure()
    except ValueError:
        return None
