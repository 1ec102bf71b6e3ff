"""Measurements of embeddings before they are judged, and what rounding and sampling can hide in them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from dyncollapse.diagnostics.conversion import Numbers, as_rows
from dyncollapse.diagnostics.moments import Moments
from dyncollapse.diagnostics.spectra import (
    QUANTISATION_MARGIN,
    ROUNDINGS_OF_SUMS,
    centred_and_not,
    noise_floor,
)
from dyncollapse.diagnostics.spectrum_checks import require_matrix
from dyncollapse.diagnostics.steps import Steps, steps_of
from dyncollapse.model.covariance import ContrastiveCovariance

FORMATS = (torch.bfloat16, torch.float16, torch.float32)
# If n and d differ by less than this share of d, the smallest sample variances of isotropic data, (1 - (d/n)^(1/2))^2,
# come so close to 0 that they look collapsed. Then this share of the directions is not judged. Measured in
# docs/explanation/when-not-to-trust.md.
HARD_EDGE = 0.03
# Bound on the rounding of the arithmetic that computed the embeddings, in units of the rounding by storing them:
# products in float32 of 32 to 512 dimensions left up to 11 times that. It is independent in every view, so it looks
# like augmentation.
ARITHMETIC = 100
# Standard errors from fewer samples than this are too inaccurate to use.
FEWEST_FOR_ERRORS = 10
# Share of independent samples from which on a few repeated rows do not tie one half of the samples to the other.
ROWS_APART = 0.9


@dataclass(frozen=True, eq=False)
class Evidence:
    """Sums over embeddings and a uniform sample of their rows.

    Matrices are about coordinates in `frame`, or about the d columns if there is none.

    Attributes:
        moments: Those of the first view.
        frame: Orthonormal columns (d, c) that span all rows, if there are fewer rows than dimensions.
        column_mean: Mean of each of the d columns.
        column_variance: Variance of each of the d columns.
        rows: The sampled rows (r, d), in their own format.
        dtype: The format of the embeddings.
        space: Name of the space in the report.
        views: "one-sided" or "two-sided".
        fast: Whether products were computed in float32.
        pairs: Contrastive covariances Sigma0 and Sigma1, if there are other views.
        moved: Largest mean square of a column of x' - x, for uniform weights.
        correlation: Covariance of a view, and covariance between views.
        halves: Contrastive covariances of two halves of the samples, with uniform weights.
        weights: "uniform", or the loss whose softmax weights the pairs.
        pairs_eps: Machine precision of the sums in `pairs`.
        others: The sampled rows in each other view.
        lda: Covariance between samples and within samples, for three views or more.
        inputs: The same measurements of the inputs of the last linear layer.
        input_dim: Number of units that this layer reads, if it was given without its inputs.
        direct: Eigenvalues and directions by `principal_directions`, if requested.
        intervals: Whether intervals are wanted, which takes the directions beside the eigenvalues.
        uncompared: Whether there are other views, but their comparison was left out.
    """

    moments: Moments
    frame: Float[Tensor, "d c"] | None
    column_mean: Float[Tensor, " d"]
    column_variance: Float[Tensor, " d"]
    rows: Shaped[Tensor, "r d"]
    dtype: torch.dtype
    space: str = "embedding"
    views: str = "two-sided"
    fast: bool = False
    pairs: ContrastiveCovariance | None = None
    moved: float = 0.0
    correlation: tuple[Tensor, Tensor] | None = None
    halves: tuple[ContrastiveCovariance, ...] | None = None
    weights: str | None = None
    pairs_eps: float = torch.finfo(torch.float64).eps
    others: tuple[Tensor, ...] = ()
    lda: tuple[Tensor, Tensor] | None = None
    inputs: "Evidence | None" = None
    input_dim: int | None = None
    direct: tuple[Tensor, Tensor] | None = None
    intervals: bool = True
    uncompared: bool = False

    @property
    def samples(self) -> int:
        """Number of samples N."""
        return self.moments.count

    @property
    def dim(self) -> int:
        """Number of dimensions d."""
        return self.rows.shape[1]

    @cached_property
    def covariance(self) -> Float[Tensor, "c c"]:
        """Covariance of the first view, centred, with 1/N."""
        return self.moments.covariance

    @cached_property
    def principal(self) -> tuple[Float[Tensor, " k"], Float[Tensor, "c k"]]:
        """Covariance eigenvalues, descending, and their directions as columns; eigenvalues left out are 0."""
        if self.direct is None:
            return descending(self.covariance)
        values, directions = self.direct
        return values, directions if self.frame is None else self.frame.mT @ directions

    @cached_property
    def variances(self) -> Float[Tensor, " k"]:
        """Covariance eigenvalues, descending; without their directions, which take longer, if nothing needs these."""
        return self._values[0] if self._values else self.principal[0]

    @cached_property
    def second_moment_values(self) -> Float[Tensor, " c"]:
        """Eigenvalues of the second moment, descending, where its directions are not needed."""
        if self._values:
            return self._values[1]
        return torch.linalg.eigvalsh(self.moments.second_moment).flip(-1).clamp_min(0)

    @cached_property
    def _values(self) -> tuple[Tensor, Tensor] | None:
        """Eigenvalues of covariance and second moment; None if the directions are needed."""
        if self.intervals or self.pairs is not None or self.direct is not None:
            return None
        return centred_and_not(self.covariance, self.moments.mean)

    def coordinates(self, rows: Shaped[Tensor, "r d"]) -> Float[Tensor, "r c"]:
        """Centre rows by the mean of the first view, and express them in the coordinates of all matrices."""
        centred = rows.to(torch.float64) - self.column_mean
        return centred if self.frame is None else centred @ self.frame

    @cached_property
    def centred(self) -> Float[Tensor, "r c"]:
        """The sampled rows, centred."""
        return self.coordinates(self.rows)

    @cached_property
    def centred_others(self) -> tuple[Float[Tensor, "r c"], ...]:
        """The same rows in the other views, centred by the mean of the first view."""
        return tuple(map(self.coordinates, self.others))

    @cached_property
    def precision(self) -> torch.dtype:
        """The coarsest format that the sampled rows were stored in: see `stored_precision`."""
        return stored_precision(self.rows)

    @cached_property
    def other_precision(self) -> torch.dtype:
        """The coarsest format that any view was stored in."""
        formats = [self.precision, *map(stored_precision, self.others)]
        return max(formats, key=format_eps)

    @cached_property
    def steps(self) -> tuple[Steps, ...]:
        """What the sampled rows of every view were rounded to beside their format, the first view first."""
        return tuple(steps_of(rows, format_eps(stored_precision(rows))) for rows in (self.rows, *self.others))

    @cached_property
    def normalised(self) -> bool:
        """Whether every sampled row has length 1, up to its format's rounding."""
        return has_unit_rows(self.rows)

    @cached_property
    def distinct(self) -> int:
        """Number of distinct rows in the sample, compared bit by bit."""
        return len(set(self._labels[0]))

    @cached_property
    def independent(self) -> int:
        """Number of independent samples: N, or fewer if rows are repeated.

        If sample i stands in the file c_i times, it is N^2 / sum_i c_i^2 (Kish 1965), here from the share of equal
        pairs in the sample. Two-sided samples are equal if all their views are: new noise in one of them makes products
        of both independent. One-sided views compare spreads, so the view with the most repetitions counts.
        """
        n, drawn = self.samples, len(self.rows)
        compared = [list(zip(*self._labels, strict=True))] if self.views == "two-sided" else self._labels
        equal = max(sum(c * (c - 1) for c in Counter(rows).values()) for rows in compared)
        return max(1, round(n / (1 + (n - 1) * equal / (drawn * (drawn - 1)))))

    @cached_property
    def repeated(self) -> float:
        """Share of the sampled rows of a view that equal another row of it, for the view with most of them."""
        return max(1 - len(set(labels)) / len(labels) for labels in self._labels)

    @cached_property
    def _labels(self) -> list[list[int]]:
        """A number for each sampled row of every view: rows of the same bits have the same one."""
        return [_labels_of(rows) for rows in (self.rows, *self.others)]

    @property
    def halves_apart(self) -> bool:
        """Whether the halves hold different rows, so that one checks the other, but for at most a tenth of them."""
        return self.independent >= ROWS_APART * self.samples

    @cached_property
    def centred_other(self) -> Float[Tensor, "r c"]:
        """The mean over the other views of their rows, centred by the mean of the first view."""
        return torch.stack(self.centred_others).mean(0)

    @property
    def distinct_known(self) -> bool:
        """Whether the number of distinct rows in the sample is that of all rows.

        It is if the sample holds all rows, or each distinct row eight times on average: it then misses e^-8 of them.
        """
        return len(self.rows) == self.samples or 8 * self.distinct <= len(self.rows)

    @property
    def few(self) -> bool:
        """Whether there are too few independent samples, or sampled rows, for standard errors."""
        return min(self.independent, len(self.rows)) < FEWEST_FOR_ERRORS

    @cached_property
    def seen(self) -> int:
        """Number of directions that these samples can show.

        It is one less than the number of distinct samples, at most d, and excludes the Marchenko-Pastur hard edge if
        N is close to d. If all rows are equal, that is collapse rather than a lack of samples.
        """
        free = (self.distinct if self.distinct > 1 and self.distinct_known else self.samples) - 1
        if abs(free - self.dim) <= HARD_EDGE * self.dim:
            free = int((1 - HARD_EDGE) * self.dim)
        return max(1, min(self.dim, free))

    @cached_property
    def noise_floor(self) -> float:
        """Variance that rounding alone can show in a direction."""
        largest = float(self.variances[0])
        # The SVD is off by eps of the largest singular value, which is eps^2 of the largest eigenvalue.
        exact = torch.finfo(torch.float64).eps if self.direct else 1.0
        stored = self._floor(exact * largest, self.precision, fast=self.fast and not self.direct)
        return max(stored, QUANTISATION_MARGIN * self.steps[0].fine)

    @cached_property
    def unaugmented(self) -> bool:
        """Whether there are other views but none differs from the first by more than rounding."""
        return self.pairs is not None and self.moved <= self.ratio_floor

    @cached_property
    def ratio_floor(self) -> float:
        """Variance below which rho is rounding of any view; pairs are summed even if the spectrum is from an SVD."""
        largest = float(self.variances[0])
        sums = ROUNDINGS_OF_SUMS * self.pairs_eps * largest
        stored = QUANTISATION_MARGIN * max(steps.fine for steps in self.steps)
        return max(self._floor(largest, self.other_precision, fast=self.fast), sums, stored)

    @property
    def unit(self) -> float:
        """A variance of the scale of the data: products of squares are in its units, or they could overflow."""
        return max(float(self.variances[0]), self.moved) or 1.0

    @cached_property
    def signal_floor(self) -> float:
        """Variance below which what views share may be rounding: the arithmetic rounds each view independently."""
        stored = noise_floor(self._second_moments, 0.0, self.other_precision)
        return max(self.ratio_floor, ARITHMETIC * max(stored, *(steps.fine for steps in self.steps)))

    @cached_property
    def cause_floor(self) -> float:
        """Variance below which views show no cause of collapse: few distinct values may be exact, or rounded, too."""
        return max(self.signal_floor, ARITHMETIC * max(steps.any for steps in self.steps))

    @cached_property
    def varying(self) -> Float[Tensor, "c q"]:
        """Directions in which a view varies by more than `signal_floor`, ascending in variance."""
        assert self.correlation is not None
        variances, frame = torch.linalg.eigh(self.correlation[0])
        return frame[:, variances > self.signal_floor]

    @property
    def _second_moments(self) -> Float[Tensor, " d"]:
        return self.column_variance + self.column_mean.square()

    def _floor(self, largest: float, precision: torch.dtype, *, fast: bool) -> float:
        return noise_floor(self._second_moments, largest, precision, fast=fast)


def _labels_of(rows: Shaped[Tensor, "r d"]) -> list[int]:
    seen: dict[bytes, int] = {}
    return [seen.setdefault(bytes(row), len(seen)) for row in rows.cpu().contiguous().view(torch.uint8).numpy()]


def format_eps(dtype: torch.dtype) -> float:
    """Return the machine precision of a format; 0 for integers."""
    return torch.finfo(dtype).eps if dtype.is_floating_point else 0.0


def format_name(dtype: torch.dtype) -> str:
    """Return the name of a format as NumPy writes it, such as float32 for torch.float32."""
    return str(dtype).removeprefix("torch.")


def stored_precision(rows: Shaped[Tensor, "r d"]) -> torch.dtype:
    """Return the coarsest format that holds every number: values once rounded to bfloat16 stay so in a float32 file."""
    if not rows.is_floating_point() or _holds(lambda part: torch.equal(part, part.round()), rows):
        return rows.dtype
    coarser = (f for f in FORMATS if torch.finfo(f).eps > torch.finfo(rows.dtype).eps)
    return next((f for f in coarser if _holds(partial(_kept_by, f), rows)), rows.dtype)


def _kept_by(coarser: torch.dtype, rows: Shaped[Tensor, "r d"]) -> bool:
    return torch.equal(rows.to(coarser).to(rows.dtype), rows)


def has_unit_rows(rows: Shaped[Tensor, "r d"]) -> bool:
    """Whether every row has length 1, up to the rounding of its format."""
    eps = format_eps(stored_precision(rows))
    return _holds(lambda part: bool(((part.to(torch.float64).norm(dim=-1) - 1).abs() <= 8 * eps).all()), rows)


def _holds(check: Callable[[Tensor], bool], rows: Shaped[Tensor, "r d"]) -> bool:
    """Whether a check holds for every row; where it does not, the first few rows mostly show it, in less time."""
    return check(rows[:8]) and check(rows)


@torch.no_grad()
def principal_directions(z: Shaped[Numbers, "n d"]) -> tuple[Float[Tensor, " k"], Float[Tensor, "d k"]]:
    """Return the principal directions of embeddings and the variance along each, from the centred matrix itself.

    Squared singular values over n keep digits of the tail that forming the covariance rounds away. The computation is
    in float64 and holds the whole matrix.

    Args:
        z: Embeddings, a row per sample.

    Returns:
        The k = min(n, d) largest eigenvalues of the covariance, descending, and unit vectors as columns, each up to its
        sign. All other eigenvalues are 0.

    Raises:
        ValueError: For anything but a matrix of real numbers.

    Examples:
        >>> z = torch.tensor([[3.0, 3.0], [-3.0, -3.0], [1.0, -1.0], [-1.0, 1.0]])
        >>> variances, directions = principal_directions(z)
        >>> [round(value, 4) for value in variances.tolist()]
        [9.0, 1.0]
        >>> directions[:, 0].abs()  # (1, 1) over the square root of 2
        tensor([0.7071, 0.7071], dtype=torch.float64)
    """
    rows = as_rows(z)
    require_matrix(rows, "embeddings")
    rows = rows.to(torch.float64)
    rows = rows - rows.mean(0)
    if len(rows) > rows.shape[1]:
        rows = torch.linalg.qr(rows, mode="r").R
    _, sigma, frame = torch.linalg.svd(rows, full_matrices=False)
    return sigma.square() / len(z), frame.mT


def descending(matrix: Float[Tensor, "d d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """Return the eigenvalues of a PSD matrix, descending, with negative round-off as 0, and vectors as columns."""
    values, directions = torch.linalg.eigh(matrix)
    return values.flip(-1).clamp_min(0), directions.flip(-1)
