"""Rank measures of a spectrum, a matrix or an embedding, as published but without an epsilon.

All functions take tensors and NumPy arrays, with spectra in any order, and return tensors that autograd can
differentiate. Entropies, square roots and logarithms have an infinite derivative at 0: there an eigenvalue of 0 counts
as absent and gets the gradient 0.
"""

import torch
from jaxtyping import Float, Real
from torch import Tensor

from dyncollapse.diagnostics.conversion import Numbers, as_floats
from dyncollapse.diagnostics.spectrum_checks import (
    checked,
    largest_of,
    over_largest,
    require_finite,
    require_matrix,
    round_off,
)


def effective_rank(spectrum: Real[Numbers, "*runs k"]) -> Float[Tensor, "*runs"]:
    """Return the effective rank: the exponential of the entropy of a spectrum that is scaled to the sum 1.

    With p = spectrum / sum(spectrum) it is exp(-sum_j p_j log p_j), where 0 log 0 = 0. Roy and Vetterli apply it to
    singular values. Applied to eigenvalues, which are squared singular values, it gives less.

    Args:
        spectrum: Values that are not negative, in any order and unit, one spectrum per run.

    Returns:
        A number from 1 to the number of non-zero values, which a flat spectrum reaches.

    Raises:
        ValueError: For a spectrum that is empty, all zero, not finite, or negative beyond round-off.

    References:
        Roy and Vetterli 2007, The effective rank: a measure of effective dimensionality, EUSIPCO.

    Examples:
        >>> round(float(effective_rank(torch.tensor([2.0, 2.0, 2.0, 0.0]))), 4)
        3.0
    """
    values = over_largest(as_floats(spectrum, "values of the spectrum"))
    # The zero branch cuts the gradient of absent values, also through the sum.
    values = torch.where(values > 0, values, 0.0)
    p = values / values.sum(-1, keepdim=True)
    return (-(p * torch.where(p > 0, p, 1.0).log()).sum(-1)).exp()


def rankme(z: Real[Numbers, "*runs n d"]) -> Float[Tensor, "*runs"]:
    """Return RankMe: the effective rank of the singular values of the embeddings, which are not centred.

    The published formula adds epsilon = 1e-7 to every p_j, which counts empty dimensions as partly filled. None is
    added here.

    Args:
        z: Embeddings, a row per sample.

    Returns:
        A number from 1 to min(n, d).

    Raises:
        ValueError: For embeddings that are empty, all zero, not finite, or no matrix.

    References:
        Garrido et al. 2023, RankMe, Eq. 1, arXiv 2210.02885.

    Examples:
        >>> round(float(rankme(torch.eye(3, 5))), 4)
        3.0
    """
    z = as_floats(z, "embeddings")
    require_matrix(z, "embeddings")
    require_finite(z, "embeddings")
    return effective_rank(torch.linalg.svdvals(z))


def rankme_from_eigenvalues(eigenvalues: Real[Numbers, "*runs d"]) -> Float[Tensor, "*runs"]:
    """Return RankMe from the eigenvalues of the second moment, which can be summed batch by batch.

    It equals `rankme(z)` up to the square root of round-off in each empty direction: an eigenvalue of about eps, the
    machine precision, becomes a singular value of sqrt(eps). Eigenvalues of the covariance give the centred variant.

    Args:
        eigenvalues: Those of (1/n) sum_i z_i z_i^T, which is not centred, in any order.

    Returns:
        A number from 1 to the number of non-zero eigenvalues.

    Raises:
        ValueError: For a spectrum that is empty, all zero, not finite, or negative beyond round-off.

    References:
        Garrido et al. 2023, RankMe, Eq. 1, arXiv 2210.02885.

    Examples:
        >>> z = torch.randn(100, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> streamed = rankme_from_eigenvalues(torch.linalg.eigvalsh(z.T @ z / 100))
        >>> torch.allclose(streamed, rankme(z))
        True
    """
    values = over_largest(as_floats(eigenvalues, "eigenvalues"))
    return effective_rank(torch.where(values > 0, torch.where(values > 0, values, 1.0).sqrt(), 0.0))


def participation_ratio(eigenvalues: Real[Numbers, "*runs d"]) -> Float[Tensor, "*runs"]:
    """Return the participation ratio of a covariance, (sum_j l_j)^2 / sum_j l_j^2.

    Few samples make it too small: n samples of isotropic data give about n d / (n + d) in place of d.
    `participation_ratio_unbiased` corrects that.

    Args:
        eigenvalues: Those of the centred covariance, l_j, in any order.

    Returns:
        A number from 1 to the number of non-zero eigenvalues, which a flat spectrum reaches.

    Raises:
        ValueError: For a spectrum that is empty, all zero, not finite, or negative beyond round-off.

    Examples:
        >>> float(participation_ratio(torch.tensor([2.0, 1.0, 1.0])))  # 4^2 / (4 + 1 + 1)
        2.6666667461395264
    """
    values = over_largest(as_floats(eigenvalues, "eigenvalues"))
    return values.sum(-1).square() / values.square().sum(-1)


def participation_ratio_unbiased(
    eigenvalues: Real[Numbers, "*runs d"], samples: int, fourth_moment: Real[Numbers, "*runs"] | float
) -> Float[Tensor, "*runs"]:
    """Return the ratio of unbiased estimates of (tr Sigma)^2 and tr Sigma^2, the two values of `unbiased_traces`.

    Args:
        eigenvalues: All those of the covariance with 1/n (`covariance_spectrum`), in any order.
        samples: n, the number of samples behind them.
        fourth_moment: (1/n) sum_i |z_i - mean|^4.

    Returns:
        The ratio. It keeps a bias of order 1/n, and sampling may put it above d.

    Raises:
        ValueError: As for `unbiased_traces`, and where the estimate of tr Sigma^2, an average of squares, is 0 to
            round-off: so few samples do not bound the dimension.

    References:
        Himeno and Yamada 2014, Estimations for some functions of covariance matrix in high dimension.

    Examples:
        >>> z = torch.randn(256, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> eigenvalues = torch.linalg.eigvalsh(z.T.cov(correction=0))
        >>> fourth = (z - z.mean(0)).square().sum(1).square().mean()
        >>> biased, unbiased = participation_ratio(eigenvalues), participation_ratio_unbiased(eigenvalues, 256, fourth)
        >>> [round(float(value)) for value in (biased, unbiased)]  # of 64
        [52, 65]
    """
    eigenvalues, fourth_moment = as_floats(eigenvalues, "eigenvalues"), as_floats(fourth_moment, "fourth moments")
    # A ratio without unit: rescaled, so that squares neither overflow nor vanish.
    scale = largest_of(checked(eigenvalues))
    fourth_moment = fourth_moment / scale.squeeze(-1) / scale.squeeze(-1)
    squared_trace, trace_of_square = unbiased_traces(eigenvalues / scale, samples, fourth_moment)
    # The terms that cancel in the estimate are of the size of the squared variance.
    if (trace_of_square <= 100 * torch.finfo(scale.dtype).eps * (eigenvalues / scale).sum(-1).square()).any():
        raise ValueError(
            f"the unbiased estimate of tr Sigma^2 is 0 to round-off: {samples} samples share no direction; give more"
        )
    return squared_trace / trace_of_square


def unbiased_traces(
    eigenvalues: Real[Numbers, "*runs d"], samples: int, fourth_moment: Real[Numbers, "*runs"] | float
) -> tuple[Float[Tensor, "*runs"], Float[Tensor, "*runs"]]:
    """Estimate (tr Sigma)^2 and tr Sigma^2 without bias from n independent samples.

    The samples may have any distribution and any mean. With S the scatter matrix over n - 1 and
    Q = sum_i |z_i - mean|^4 / (n - 1):
    (tr Sigma)^2 = c [2 tr S^2 + (n^2 - 3 n + 1) (tr S)^2 - n Q],
    tr Sigma^2 = c [(n - 1)(n - 2) tr S^2 + (tr S)^2 - n Q], c = (n - 1) / (n (n - 2)(n - 3)).
    They are the averages of |z_i - z_j|^2 |z_k - z_l|^2 / 4 and ((z_i - z_j).(z_k - z_l))^2 / 4 over all i, j, k, l
    that differ, so neither is negative beyond round-off.

    Args:
        eigenvalues: All those of the covariance with 1/n (`covariance_spectrum`), in any order.
        samples: n, the number of samples behind them.
        fourth_moment: (1/n) sum_i |z_i - mean|^4.

    Returns:
        Estimates of (tr Sigma)^2 and of tr Sigma^2, in squared units of the eigenvalues.

    Raises:
        ValueError: For n < 4, for a spectrum that `participation_ratio` refuses, and for a fourth moment that no n
            samples of this spectrum have.

    References:
        Himeno and Yamada 2014, Estimations for some functions of covariance matrix in high dimension.

    Examples:
        >>> z = torch.randn(1000, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> fourth = (z - z.mean(0)).square().sum(1).square().mean()
        >>> squared_trace, trace_of_square = unbiased_traces(torch.linalg.eigvalsh(z.T.cov(correction=0)), 1000, fourth)
        >>> round(float(squared_trace)), round(float(trace_of_square))  # of 6^2 and 6, up to sampling
        (35, 6)
    """
    eigenvalues, fourth_moment = as_floats(eigenvalues, "eigenvalues"), as_floats(fourth_moment, "fourth moments")
    n = samples
    if n < 4:
        raise ValueError(f"unbiased estimates need 4 samples or more, got {n}")
    values = checked(eigenvalues)
    require_finite(fourth_moment, "fourth moments")
    trace = values.sum(-1) * n / (n - 1)
    square = values.square().sum(-1) * (n / (n - 1)) ** 2
    q = fourth_moment * n / (n - 1)
    factor = (n - 1) / (n * (n - 2) * (n - 3))
    squared_trace = factor * (2 * square + (n * n - 3 * n + 1) * trace.square() - n * q)
    trace_of_square = factor * ((n - 1) * (n - 2) * square + trace.square() - n * q)
    # Streamed sums lose digits: only half of them are asked for.
    slack = torch.finfo(values.dtype).eps ** 0.5 * trace.square()
    if ((fourth_moment < values.sum(-1).square() - slack) | (trace_of_square < -slack)).any():
        raise ValueError(f"no {n} samples have this spectrum and fourth moment; give (1/n) sum |z - mean|^4 for both")
    return squared_trace, trace_of_square


def stable_rank(matrix: Real[Numbers, "*runs m d"]) -> Float[Tensor, "*runs"]:
    """Return the stable rank |W|_F^2 / |W|_2^2: the sum of the squared singular values over the largest of them.

    The matrix is not centred. For centred embeddings use `intrinsic_dimension(covariance_spectrum(z))`.

    Args:
        matrix: Any matrix, such as the weights of a layer.

    Returns:
        A number from 1 to the rank.

    Raises:
        ValueError: For a matrix that is empty, zero or not finite, and for what is no matrix.

    References:
        Rudelson and Vershynin 2007, Sampling from large matrices.

    Examples:
        >>> float(stable_rank(torch.diag(torch.tensor([2.0, 1.0, 1.0]))))  # (4 + 1 + 1) / 4
        1.5
    """
    matrix = as_floats(matrix, "entries of the matrix")
    require_matrix(matrix, "entries of the matrix")
    require_finite(matrix, "entries of the matrix")
    sigma = over_largest(torch.linalg.svdvals(matrix))
    return intrinsic_dimension(sigma.square())


def intrinsic_dimension(eigenvalues: Real[Numbers, "*runs d"]) -> Float[Tensor, "*runs"]:
    """Return the intrinsic dimension of a covariance C, tr C / |C|_2: the sum of its eigenvalues over the largest.

    It is the stable rank of any square root of C. With few samples the largest eigenvalue comes out too large, and
    this measure too small.

    Args:
        eigenvalues: Those of the centred covariance, in any order.

    Returns:
        A number from 1 to the number of non-zero eigenvalues.

    Raises:
        ValueError: For a spectrum that is empty, all zero, not finite, or negative beyond round-off.

    References:
        Tropp 2015, An introduction to matrix concentration inequalities, Def. 7.1.1.

    Examples:
        >>> float(intrinsic_dimension(torch.tensor([4.0, 1.0, 1.0])))
        1.5
    """
    values = over_largest(as_floats(eigenvalues, "eigenvalues"))
    return values.sum(-1) / values.amax(-1)


def alpha_req(
    eigenvalues: Real[Numbers, "*runs d"], first: int = 6, last: int = 100, weighted: bool = True
) -> Float[Tensor, "*runs"]:
    """Return alpha-ReQ, the exponent a of a power law l_j ~ j^-a that is fitted to the eigenvalues of a covariance.

    It is minus the slope of log l_j against log j by least squares over the ranks `first` to `last`, both included. The
    authors' package, reptrix 0.1.0, fits ranks 11 to 100, and their experiments also end at ranks 50 and 80.
    Eigenvalues that are 0 to round-off (their root below d eps times the largest root, as in NumPy's `matrix_rank`) are
    left out, so a spectrum that ends before `last` is fitted up to its end. A noise floor above that is fitted as if it
    were signal: choose `last` before it.

    Args:
        eigenvalues: Those of the centred covariance, in any order.
        first: First rank of the fit; ranks start at 1.
        last: Last rank of the fit.
        weighted: Whether rank j has the weight 1/j (Stringer et al. 2019) in place of 1.

    Returns:
        The exponent; larger for a steeper spectrum, 0 for a flat one.

    Raises:
        ValueError: For fewer than two non-zero eigenvalues between these ranks, ranks out of order, and a spectrum that
            is empty, all zero, not finite, or negative beyond round-off.

    References:
        Agrawal et al. 2022, alpha-ReQ: assessing representation quality in self-supervised learning by measuring
        eigenspectrum decay, arXiv 2202.05808.

    Examples:
        >>> round(float(alpha_req(torch.arange(1, 201).double() ** -1.5)), 6)
        1.5
    """
    eigenvalues = as_floats(eigenvalues, "eigenvalues")
    if not 1 <= first < last:
        raise ValueError(f"a power law is fitted over ranks first < last from 1 on, got first={first}, last={last}")
    values = over_largest(eigenvalues).sort(dim=-1, descending=True).values[..., first - 1 : last]
    present = values > round_off(eigenvalues) ** 2
    fewest = int(present.sum(-1).min()) if present.shape[-1] else 0
    if fewest < 2:
        raise ValueError(f"ranks {first} to {last} hold {fewest} non-zero eigenvalue(s); a slope needs 2: lower first")
    ranks = torch.arange(first, first + values.shape[-1], dtype=values.dtype, device=values.device)
    weights = present / ranks if weighted else present.to(values.dtype)
    x, y = ranks.log(), torch.where(present, values, 1.0).log()
    x = x - (weights * x).sum(-1, keepdim=True) / weights.sum(-1, keepdim=True)
    return -(weights * x * y).sum(-1) / (weights * x.square()).sum(-1)
