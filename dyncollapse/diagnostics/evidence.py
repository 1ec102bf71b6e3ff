"""What was measured on embeddings, before any judgement, and what rounding and sampling can hide in it."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from dyncollapse.diagnostics.moments import Moments
from dyncollapse.diagnostics.spectra import ROUNDINGS_OF_SUMS, noise_floor
from dyncollapse.model.covariance import ContrastiveCovariance

FORMATS = (torch.bfloat16, torch.float16, torch.float32)
# Where samples and dimensions are this near to each other, the smallest variances of isotropic data come close enough
# to 0 to look collapsed, by (1 - (d/n)^(1/2))^2; a direction in as many is not looked at (ours, measured).
HARD_EDGE = 0.03
# Rounding of the arithmetic that made the embeddings, in variances that storing them rounds off: products in float32 of
# 32 to 512 dimensions left up to 11 times these. It is independent in every view, and looks like augmentation.
ARITHMETIC = 100
# Fewer samples than this give no standard error worth using.
FEWEST_FOR_ERRORS = 10


@dataclass(frozen=True, eq=False)
class Evidence:
    """Sums over embeddings, and an even sample of them.

    All matrices are about coordinates in `frame` (d, c), orthonormal columns that span all rows; without one they are
    about the d columns themselves. `column_mean` and `column_variance` are about the columns in any case.
    `rows` is the sample (r, d), in its own format, `others` the same rows of each other view; `pairs` the contrastive
    covariances, `weights` the softmax these were weighed by, `pairs_eps` the precision of their sums; `moved` the
    largest mean square of a column of x' - x, however pairs were weighed; `correlation`
    the covariances of a view and between views; `halves` the contrastive covariances of two halves of the samples,
    with every negative alike; `lda` the covariances between and within samples over three views or more. `inputs` is
    what was measured on the inputs of the last linear layer, with its pairs, and `input_dim` how many units that layer
    reads, where that is known without them. `direct` holds eigenvalues and directions
    (columns) by `principal_directions`, where that was asked for.
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

    @property
    def samples(self) -> int:
        """N."""
        return self.moments.count

    @property
    def dim(self) -> int:
        """D."""
        return self.rows.shape[1]

    @cached_property
    def covariance(self) -> Float[Tensor, "c c"]:
        """Centred, 1/N."""
        return self.moments.covariance

    @cached_property
    def principal(self) -> tuple[Float[Tensor, " k"], Float[Tensor, "c k"]]:
        """Covariance eigenvalues, descending, and their directions as columns; those left out are 0."""
        if self.direct is None:
            return descending(self.covariance)
        values, directions = self.direct
        return values, directions if self.frame is None else self.frame.mT @ directions

    def coordinates(self, rows: Shaped[Tensor, "r d"]) -> Float[Tensor, "r c"]:
        """Rows less the mean of the first view, in the coordinates of all matrices."""
        centred = rows.to(torch.float64) - self.column_mean
        return centred if self.frame is None else centred @ self.frame

    @cached_property
    def centred(self) -> Float[Tensor, "r c"]:
        """The sampled rows, centred."""
        return self.coordinates(self.rows)

    @cached_property
    def centred_others(self) -> tuple[Float[Tensor, "r c"], ...]:
        """The same rows of the other views, less the mean of the first."""
        return tuple(map(self.coordinates, self.others))

    @cached_property
    def precision(self) -> torch.dtype:
        """The format that the sampled rows went through, see `stored_precision`."""
        return stored_precision(self.rows)

    @cached_property
    def other_precision(self) -> torch.dtype:
        """The coarsest format that any view went through."""
        formats = [self.precision, *map(stored_precision, self.others)]
        return max(formats, key=lambda f: torch.finfo(f).eps if f.is_floating_point else 0.0)

    @cached_property
    def normalised(self) -> bool:
        """Whether every sampled row has length 1, up to its format's rounding."""
        norms = self.rows.to(torch.float64).norm(dim=-1)
        eps = torch.finfo(self.precision).eps if self.rows.is_floating_point() else 0.0
        return bool(((norms - 1).abs() <= 8 * eps).all())

    @cached_property
    def distinct(self) -> int:
        """How many of the sampled rows differ from each other, bit by bit."""
        as_bytes = self.rows.cpu().contiguous().view(torch.uint8).numpy()
        return len(set(map(bytes, as_bytes)))

    @cached_property
    def centred_other(self) -> Float[Tensor, "r c"]:
        """The mean of the other views' rows, less the mean of the first."""
        return torch.stack(self.centred_others).mean(0)

    @property
    def distinct_known(self) -> bool:
        """Whether the sample tells how many of all rows differ.

        One that leaves rows out does only where each value comes eight times or more: it then misses e^-8 of them.
        """
        return len(self.rows) == self.samples or 8 * self.distinct <= len(self.rows)

    @cached_property
    def seen(self) -> int:
        """How many directions these samples can show: one less than there are distinct ones, and not the hard edge.

        Where all rows are one, that is collapse, and no lack of samples.
        """
        free = (self.distinct if self.distinct > 1 and self.distinct_known else self.samples) - 1
        if abs(free - self.dim) <= HARD_EDGE * self.dim:
            free = int((1 - HARD_EDGE) * self.dim)
        return max(1, min(self.dim, free))

    @cached_property
    def noise_floor(self) -> float:
        """Variance that rounding alone can show in a direction."""
        largest = float(self.principal[0][0])
        # A singular value is off by eps of the largest, so its square by eps^2: the direct SVD has one more factor.
        exact = torch.finfo(torch.float64).eps if self.direct else 1.0
        return self._floor(exact * largest, self.precision, fast=self.fast and not self.direct)

    @cached_property
    def unaugmented(self) -> bool:
        """Whether there are other views, and none differs from the first by more than rounding."""
        return self.pairs is not None and self.moved <= self.ratio_floor

    @cached_property
    def ratio_floor(self) -> float:
        """Variance below which rho is rounding, of any view: pairs are sums, whatever route the spectrum took."""
        largest = float(self.principal[0][0])
        sums = ROUNDINGS_OF_SUMS * self.pairs_eps * largest
        return max(self._floor(largest, self.other_precision, fast=self.fast), sums)

    @cached_property
    def cause_floor(self) -> float:
        """Variance below which views tell no cause: whatever computed them rounded, each view by itself."""
        stored = noise_floor(self._second_moments, 0.0, self.other_precision)
        return max(self.ratio_floor, ARITHMETIC * stored)

    @cached_property
    def varying(self) -> Float[Tensor, "c q"]:
        """Directions in which a view varies beyond the noise floor of rho, ascending in variance."""
        assert self.correlation is not None
        variances, frame = torch.linalg.eigh(self.correlation[0])
        return frame[:, variances > self.cause_floor]

    @property
    def _second_moments(self) -> Float[Tensor, " d"]:
        return self.column_variance + self.column_mean.square()

    def _floor(self, largest: float, precision: torch.dtype, *, fast: bool) -> float:
        return noise_floor(self._second_moments, largest, precision, fast=fast)


def format_name(dtype: torch.dtype) -> str:
    """float32 for torch.float32."""
    return str(dtype).removeprefix("torch.")


def stored_precision(rows: Shaped[Tensor, "r d"]) -> torch.dtype:
    """The coarsest format that holds every number: values rounded to half stay so in a float32 file."""
    if not rows.is_floating_point() or bool((rows == rows.round()).all()):
        return rows.dtype
    coarser = (f for f in FORMATS if torch.finfo(f).eps > torch.finfo(rows.dtype).eps)
    return next((f for f in coarser if torch.equal(rows.to(f).to(rows.dtype), rows)), rows.dtype)


@torch.no_grad()
def principal_directions(z: Shaped[Tensor, "n d"]) -> tuple[Float[Tensor, " k"], Float[Tensor, "d k"]]:
    """Covariance eigenvalues, descending, and their directions as columns, from the centred matrix itself in float64.

    Squared singular values over n keep digits of the tail that forming the covariance rounds away. There are
    k = min(n, d) of them; all others are 0.
    """
    rows = z.to(torch.float64)
    rows = rows - rows.mean(0)
    if len(rows) > rows.shape[1]:
        rows = torch.linalg.qr(rows, mode="r").R
    _, sigma, frame = torch.linalg.svd(rows, full_matrices=False)
    return sigma.square() / len(z), frame.mT


def descending(matrix: Float[Tensor, "d d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """Eigenvalues of a PSD matrix, descending, negative round-off as 0, and their vectors as columns."""
    values, directions = torch.linalg.eigh(matrix)
    return values.flip(-1).clamp_min(0), directions.flip(-1)
