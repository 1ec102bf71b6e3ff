"""How many dimensions a spectrum, a matrix or an embedding fills: rank measures as published, with no epsilon added.

All take spectra in any order and follow autograd; where a derivative is infinite at an eigenvalue of 0 (entropies,
square roots, logarithms), that eigenvalue counts as absent and its gradient is 0.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def effective_rank(spectrum: Float[Tensor, "*runs k"]) -> Float[Tensor, "*runs"]:
    """Exponential of the entropy of p = spectrum / sum(spectrum): exp(-sum_j p_j log p_j), with 0 log 0 = 0.

    Between 1 and the number of non-zero values, which a flat spectrum reaches. Roy and Vetterli (2007) apply it to the
    singular values of a matrix; here it is that of the values given, so eigenvalues (squared singular values) give
    less. Zeros get gradient 0. Raises ValueError for an empty, zero, negative or non-finite spectrum.
    """
    values = _over_largest(spectrum)
    # The zero branch cuts the gradient of absent values, also through the sum.
    values = torch.where(values > 0, values, 0.0)
    p = values / values.sum(-1, keepdim=True)
    return (-(p * torch.where(p > 0, p, 1.0).log()).sum(-1)).exp()


def rankme(z: Float[Tensor, "*runs n d"]) -> Float[Tensor, "*runs"]:
    """Effective rank of the singular values of the embeddings, not centred: RankMe (Garrido et al. 2023, Eq. 1).

    The published formula adds epsilon = 1e-7 to every p_j, which counts dead dimensions as partly alive; we add none.
    At most min(n, d). Raises ValueError where `effective_rank` does: for embeddings that are empty, all 0 or not
    finite.
    """
    _require_finite(z, "embeddings")
    return effective_rank(torch.linalg.svdvals(z))


def rankme_from_eigenvalues(eigenvalues: Float[Tensor, "*runs d"]) -> Float[Tensor, "*runs"]:
    """RankMe from the eigenvalues of the uncentred second moment (1/n) sum_i z_i z_i^T, as accumulated in a stream.

    Equal to `rankme(z)`, up to the square root of round-off in each null direction: eigenvalues of about eps, the
    machine precision, become singular values of sqrt(eps). Eigenvalues of the covariance give the centred variant
    instead. Zeros get gradient 0. Raises ValueError for an empty, zero, negative or non-finite spectrum.
    """
    values = _over_largest(eigenvalues)
    return effective_rank(torch.where(values > 0, torch.where(values > 0, values, 1.0).sqrt(), 0.0))


def participation_ratio(eigenvalues: Float[Tensor, "*runs d"]) -> Float[Tensor, "*runs"]:
    """(sum_j l_j)^2 / sum_j l_j^2, for eigenvalues l of the (centred) covariance; biased low by few samples.

    Isotropic data of dimension d give about n d / (n + d): see `participation_ratio_unbiased`.
    Raises ValueError for an empty, zero, negative or non-finite spectrum.
    """
    values = _over_largest(eigenvalues)
    return values.sum(-1).square() / values.square().sum(-1)


def participation_ratio_unbiased(
    eigenvalues: Float[Tensor, "*runs d"], samples: int, fourth_moment: Float[Tensor, "*runs"]
) -> Float[Tensor, "*runs"]:
    """Unbiased estimate of (tr Sigma)^2 over one of tr Sigma^2: the two values of `unbiased_traces`.

    The ratio itself keeps a bias of order 1/n, and may exceed d. Arguments as there.
    Raises ValueError where `unbiased_traces` does, and when the estimate of tr Sigma^2, an average of squares and so
    never negative, is 0 to round-off: so few samples do not bound the dimension.
    """
    # A ratio without unit: rescaled, so that squares neither overflow nor vanish.
    scale = _largest(_checked(eigenvalues))
    fourth_moment = fourth_moment / scale.squeeze(-1) / scale.squeeze(-1)
    squared_trace, trace_of_square = unbiased_traces(eigenvalues / scale, samples, fourth_moment)
    # The terms that cancel in the estimate are of the size of the squared variance.
    if (trace_of_square <= 100 * torch.finfo(scale.dtype).eps * (eigenvalues / scale).sum(-1).square()).any():
        raise ValueError(
            f"the unbiased estimate of tr Sigma^2 is 0 to round-off: {samples} samples share no direction; give more"
        )
    return squared_trace / trace_of_square


def unbiased_traces(
    eigenvalues: Float[Tensor, "*runs d"], samples: int, fourth_moment: Float[Tensor, "*runs"]
) -> tuple[Float[Tensor, "*runs"], Float[Tensor, "*runs"]]:
    """Unbiased estimates of (tr Sigma)^2 and tr Sigma^2 from n independent samples of unknown mean, any distribution.

    With S the scatter matrix over n - 1 and Q = sum_i |z_i - mean|^4 / (n - 1) (Himeno and Yamada 2014):
    (tr Sigma)^2 = c [2 tr S^2 + (n^2 - 3 n + 1) (tr S)^2 - n Q],
    tr Sigma^2 = c [(n - 1)(n - 2) tr S^2 + (tr S)^2 - n Q], c = (n - 1) / (n (n - 2)(n - 3)).
    They are the averages of |z_i - z_j|^2 |z_k - z_l|^2 / 4 and ((z_i - z_j).(z_k - z_l))^2 / 4 over all i, j, k, l
    that differ, so neither is negative beyond round-off.

    `eigenvalues` are all those of the covariance with 1/n (`covariance_spectrum`), `samples` is n, and `fourth_moment`
    is (1/n) sum_i |z_i - mean|^4. Raises ValueError for n < 4, for a spectrum that `participation_ratio` refuses, and
    for a fourth moment that no n samples of this spectrum have.
    """
    n = samples
    if n < 4:
        raise ValueError(f"unbiased estimates need 4 samples or more, got {n}")
    values = _checked(eigenvalues)
    _require_finite(fourth_moment, "fourth moments")
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


def stable_rank(matrix: Float[Tensor, "*runs m d"]) -> Float[Tensor, "*runs"]:
    """|W|_F^2 / |W|_2^2, the sum of the squared singular values over the largest (Rudelson and Vershynin 2007).

    Of the matrix given, not centred. For centred embeddings use `intrinsic_dimension(covariance_spectrum(z))`.
    Raises ValueError for a matrix that is empty, zero or not finite.
    """
    _require_finite(matrix, "entries of the matrix")
    sigma = _over_largest(torch.linalg.svdvals(matrix))
    return intrinsic_dimension(sigma.square())


def intrinsic_dimension(eigenvalues: Float[Tensor, "*runs d"]) -> Float[Tensor, "*runs"]:
    """Sum of the eigenvalues over the largest: tr C / |C|_2 (Tropp 2015, Def. 7.1.1), the stable rank of a root of C.

    Raises ValueError for an empty, zero, negative or non-finite spectrum.
    """
    values = _over_largest(eigenvalues)
    return values.sum(-1) / values.amax(-1)


def alpha_req(
    eigenvalues: Float[Tensor, "*runs d"], first: int = 6, last: int = 100, weighted: bool = True
) -> Float[Tensor, "*runs"]:
    """Exponent a of the power law l_j ~ j^-a: minus the slope of log l_j against log j (Agrawal et al. 2022).

    Of the eigenvalues of the (centred) covariance, in descending order from j = 1, by least squares over the ranks
    `first` to `last`, both included. The defaults are those of the authors' package reptrix: ranks 6 to 100 (the
    authors' experiments also end at 50 and 80) and weights 1/j, after Stringer et al. (2019); `weighted=False` is the
    plain fit. Eigenvalues that are 0 to round-off (their root below d eps times the largest root, as in NumPy's
    `matrix_rank`) are left out, so a spectrum that ends before `last` is fitted up to its end. A noise floor above
    that is fitted as if it were signal: put `last` before it.
    Raises ValueError if fewer than two eigenvalues are left and for an empty, zero, negative or non-finite spectrum.
    """
    if not 1 <= first < last:
        raise ValueError(f"a power law is fitted over ranks first < last from 1 on, got first={first}, last={last}")
    values = _over_largest(eigenvalues).sort(dim=-1, descending=True).values[..., first - 1 : last]
    present = values > _round_off(eigenvalues) ** 2
    fewest = int(present.sum(-1).min()) if present.shape[-1] else 0
    if fewest < 2:
        raise ValueError(f"ranks {first} to {last} hold {fewest} non-zero eigenvalue(s); a slope needs 2: lower first")
    ranks = torch.arange(first, first + values.shape[-1], dtype=values.dtype, device=values.device)
    weights = present / ranks if weighted else present.to(values.dtype)
    x, y = ranks.log(), torch.where(present, values, 1.0).log()
    x = x - (weights * x).sum(-1, keepdim=True) / weights.sum(-1, keepdim=True)
    return -(weights * x * y).sum(-1) / (weights * x.square()).sum(-1)


def lidar(views: Float[Tensor, "*runs v n d"], delta: float = 1e-4) -> Float[Tensor, "*runs"]:
    """Effective rank of the LDA matrix of v views of each of n samples: LiDAR (Thilak et al. 2024).

    With mu_i the mean of sample i's views and mu the mean of those, it is `lidar_from_covariances` of
    between = (1/n) sum_i (mu_i - mu)(mu_i - mu)^T and within = (1/(n v)) sum_ij (e_ij - mu_i)(e_ij - mu_i)^T.
    A direction without signal keeps an eigenvalue of about 1/(v - 1), the noise of a mean of v views: compare values
    of equal v, n and d only, and at most min(n - 1, d) can be reached.
    Raises ValueError for fewer than 2 views or samples, and where `lidar_from_covariances` does.
    """
    v, n, _ = views.shape[-3:]
    if v < 2 or n < 2:
        raise ValueError(f"LiDAR needs 2 views and 2 samples or more, got {v} view(s) of {n} sample(s)")
    _require_finite(views, "embeddings")
    if v * n < views.shape[-1]:
        # In the span of all rows, which has no more dimensions than there are rows.
        rows = views.flatten(-3, -2)
        views = torch.linalg.qr(rows.mT, mode="r").R.mT.unflatten(-2, (v, n))
    centres = views.mean(-3)
    means = centres - centres.mean(-2, keepdim=True)
    rest = (views - centres.unsqueeze(-3)).flatten(-3, -2)
    return lidar_from_covariances(means.mT @ means / n, rest.mT @ rest / (n * v), delta)


def lidar_from_covariances(
    between: Float[Tensor, "*runs d d"], within: Float[Tensor, "*runs d d"], delta: float = 1e-4
) -> Float[Tensor, "*runs"]:
    """Effective rank of the eigenvalues of W^(-1/2) B W^(-1/2), B = between, W = within + delta I: LiDAR streamed.

    `delta` is added here, not before. It is in units of squared embeddings, so the value depends on their scale unless
    `delta` is small beside `within`: the paper asks for a small positive constant, and 1e-4 is the value of public
    implementations (Skean et al. 2025, stable-pretraining). The paper's epsilon in the entropy is left out.
    Raises ValueError for shapes that differ, entries that are not finite, a `between` that is zero (samples cannot be
    told apart) or has a negative eigenvalue, and a W that is not positive definite.
    """
    if between.shape != within.shape or between.shape[-1] != between.shape[-2]:
        raise ValueError(f"covariances of shape {tuple(between.shape)} and {tuple(within.shape)} are not (d, d) alike")
    _require_finite(between, "entries of the covariance between samples")
    _require_finite(within, "entries of the covariance within samples")
    _checked(torch.linalg.eigvalsh(between.detach()))
    identity = torch.eye(within.shape[-1], dtype=within.dtype, device=within.device)
    # Any root R of W = R R^T gives the same eigenvalues, those of W^-1 B; Cholesky's is cheap and has a gradient.
    root, failed = torch.linalg.cholesky_ex(within + delta * identity)
    if failed.any():
        raise ValueError(f"the covariance within samples plus {delta:g} I is not positive definite; raise delta")
    half = torch.linalg.solve_triangular(root, between, upper=False)
    matrix = torch.linalg.solve_triangular(root, half.mT, upper=False)
    # W^-1 magnifies the round-off of B, whose own sign was checked above.
    return effective_rank(torch.linalg.eigvalsh((matrix + matrix.mT) / 2).clamp(min=0))


def _over_largest(spectrum: Float[Tensor, "*runs k"]) -> Float[Tensor, "*runs k"]:
    """The spectrum, checked, in units of its largest value.

    The unit is a constant to autograd: right for every measure here, as none depends on scale.
    """
    values = _checked(spectrum)
    return values / _largest(values)


def _checked(spectrum: Float[Tensor, "*runs k"]) -> Float[Tensor, "*runs k"]:
    """The spectrum with negative round-off set to 0; anything else that no spectrum holds is refused."""
    _require_finite(spectrum, "values of the spectrum")
    largest = _largest(spectrum).clamp(min=0)
    if (spectrum < -10 * _round_off(spectrum) * largest).any():
        raise ValueError(f"the spectrum holds {float(spectrum.min()):.3g}: negative, and not by round-off")
    if (largest == 0).any():
        raise ValueError("the spectrum is zero: nothing varies, so no rank is defined")
    # Not clamp, which has no gradient at 0 itself: a participation ratio does.
    return torch.where(spectrum < 0, 0.0, spectrum)


def _largest(spectrum: Float[Tensor, "*runs k"]) -> Float[Tensor, "*runs one"]:
    return spectrum.detach().amax(-1, keepdim=True)


def _round_off(spectrum: Float[Tensor, "*runs k"]) -> float:
    """What a solver on a k x k matrix leaves of a 0, relative to the largest value."""
    return spectrum.shape[-1] * torch.finfo(spectrum.dtype).eps


def _require_finite(values: Tensor, name: str) -> None:
    if not values.numel():
        raise ValueError(f"there are no {name}: the shape is {tuple(values.shape)}")
    if not torch.isfinite(values).all():
        raise ValueError(f"the {name} hold NaN or infinity")
