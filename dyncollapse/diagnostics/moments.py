"""Mean and covariance of any number of rows in constant memory, over batches, files and processes."""

import uuid
from collections.abc import Sequence
from typing import Any

import scipy.linalg
import torch
from jaxtyping import Float, Shaped
from scipy.linalg.blas import dsyrk, ssyrk
from torch import Tensor
from torch.distributed import ProcessGroup

from dyncollapse.diagnostics.conversion import Numbers, as_rows
from dyncollapse.diagnostics.finite import check_finite

# Measured at d = 2048: large blocks, since every switch between torch's threads and those of BLAS costs time (blocks of
# 8 MB were 20 % slower), and since BLAS is slow on fewer than 256 rows.
BLOCK_BYTES, FEWEST_ROWS, MOST_ROWS = 2**25, 256, 4096
# K additions to a growing sum leave round-off of about 0.1 sqrt(K) eps of it. Adding 32 blocks to a partial sum first
# keeps that below a few eps for any realistic number of batches.
BLOCKS_PER_PARTIAL = 32


class Moments:
    """Accumulates the count, mean and scatter of rows in float64, in one pass and mergeable.

    The scatter is S = sum_i (z_i - mean)(z_i - mean)^T. Joining n rows with m others, whose means differ by delta,
    adds n m / (n + m) delta delta^T to the sum of both scatters. Each block of rows is centred by its own mean first,
    and means are kept as differences from the first row, so that a mean far larger than the spread costs no digits.
    Memory is O(d^2) plus one block, however many rows one call adds. Time is O(d^2) per row.

    Attributes:
        dim: Number of columns d.
        fast: Whether products are computed in float32.
        count: Number of rows so far.

    References:
        Chan, Golub and LeVeque 1983, Algorithms for computing the sample variance.

    Examples:
        >>> moments = Moments(2)
        >>> moments.update(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
        >>> moments.update(torch.tensor([[2.0, 3.0]]))
        >>> moments.count, moments.mean.tolist()
        (3, [2.0, 1.0])
        >>> moments.covariance.diagonal()
        tensor([0.6667, 2.0000], dtype=torch.float64)
    """

    @torch.inference_mode(False)  # tensors made in inference mode could not be changed in place outside it
    def __init__(self, dim: int, *, fast: bool = False, device: torch.device | str = "cpu") -> None:
        """Start without rows.

        Args:
            dim: Number of columns d of the rows.
            fast: Compute products in float32 and add them up in float64 every few blocks: about twice as fast, with the
                higher `noise_floor` for `fast`.
            device: Where the sums are kept; rows from other devices are moved there.

        Raises:
            ValueError: For a dimension below 1.
        """
        if dim < 1:
            raise ValueError(f"rows need 1 dimension or more, got {dim}")
        self.dim, self.fast, self.count = dim, fast, 0
        # The mean is origin + offset; the scatter is _scatter + _partial, of which only the lower triangles count.
        self._origin = torch.zeros(dim, dtype=torch.float64, device=device)
        self._offset = torch.zeros_like(self._origin)
        self._scatter = torch.zeros(dim, dim, dtype=torch.float64, device=device)
        self._partial = torch.zeros_like(self._scatter, dtype=torch.float32 if fast else torch.float64)
        self._blocks = 0
        self._reduced = False
        self._sources = frozenset([uuid.uuid4().hex])  # identities of all moments whose rows are in these sums
        self._has_others_rows = False  # merged from sums over all processes

    @torch.no_grad()
    def update(self, rows: Shaped[Numbers, "n d"]) -> None:
        """Add rows. If a block of them (up to 4096) holds NaN or infinity, the blocks before it stay added.

        Args:
            rows: Real numbers of any format, on any device; n may be 0.

        Raises:
            ValueError: For another shape than (n, dim), complex rows, NaN and infinity (with the place of the first),
                and after `all_reduce`.
        """
        self._require_own_rows("update")
        if not isinstance(rows, Tensor):
            rows = as_rows(rows, "rows")
        if rows.ndim != 2 or rows.shape[1] != self.dim or rows.is_complex():
            raise ValueError(f"rows are {rows.dtype} of shape {tuple(rows.shape)}; expected real (n, {self.dim})")
        size = min(max(FEWEST_ROWS, BLOCK_BYTES // (self._partial.element_size() * self.dim)), MOST_ROWS)
        block = self._partial.new_empty(min(size, len(rows)) + 1, self.dim)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            filled = block[: len(part) + 1]
            origin, offset = _centre(part, filled[:-1])
            if not bool(torch.isfinite(offset).all()):  # a mean is not finite if any row is not
                check_finite([part], start)
            # The term of the means is added as one more row, which saves a pass over the scatter.
            filled[-1] = self._join(len(part), origin, offset)
            _add_products(filled, self._partial)
            self._blocks += 1
            if self._blocks == BLOCKS_PER_PARTIAL:
                self._settle()

    @torch.no_grad()
    def merge(self, other: "Moments") -> None:
        """Add the rows of other moments.

        Args:
            other: Moments of the same dimension, which stay as they are.

        Raises:
            ValueError: For another dimension, for rows that would be counted twice (moments merged before, or these
                themselves), and after `all_reduce`.
        """
        self._require_own_rows("merge")
        if not isinstance(other, Moments):
            raise ValueError(f"moments do not merge with {type(other).__name__}; give Moments")
        if self._sources & other._sources:
            raise ValueError("these moments already share rows; merging them would count those rows twice")
        if other.dim != self.dim:
            raise ValueError(f"moments of {other.dim} dimensions do not merge into those of {self.dim}")
        self._sources |= other._sources
        self._has_others_rows |= other._reduced or other._has_others_rows
        self._settle()
        other._settle()
        device = self._scatter.device
        if other.count:
            self._scatter += other._scatter.to(device)
            row = self._join(other.count, other._origin.to(device), other._offset.to(device))
            self._scatter.addr_(row, row)

    @torch.no_grad()
    def all_reduce(self, group: ProcessGroup | None = None) -> None:
        """Join the moments of all processes of a group: afterwards each one holds the moments of all rows.

        Call it once, at the end, on every process; some may have no rows. The sums must be on a device that the group's
        backend reaches, for example a GPU for NCCL.

        Args:
            group: The process group; None for the default one.

        Raises:
            ValueError: On a second call, or after merging moments of all processes, which would count rows once per
                process. `update` and `merge` raise it from then on, too.
        """
        self._require_own_rows("all_reduce")
        if self._has_others_rows:
            raise ValueError("all_reduce after a merge of moments of all processes would count their rows again")
        self._reduced = True
        self._settle()
        _, centre = _mean_over_processes(self.count, self.mean, group)
        # A second pass removes the rounding of the first, now that all means are differences from one place.
        own = self._origin - centre + self._offset
        total, rest = _mean_over_processes(self.count, own, group)
        self._scatter.addr_(own - rest, own - rest, alpha=self.count)
        torch.distributed.all_reduce(self._scatter, group=group)
        self.count, self._origin, self._offset = total, centre, rest

    @torch.no_grad()
    def translate(self, offset: Float[Tensor, " d"]) -> None:
        """Add one vector to every row so far, which changes the mean but not the covariance.

        Args:
            offset: The vector (dim,).

        Raises:
            ValueError: For another shape.
        """
        if tuple(offset.shape) != (self.dim,):
            raise ValueError(f"offset has shape {tuple(offset.shape)}; give one number for each of {self.dim} columns")
        self._origin = self._origin + offset.to(self._origin)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the sums as tensors: count (), origin (d,), offset (d,) and scatter (d, d); `restored` takes them.

        Of the scatter only the lower triangle counts. It is not copied.
        """
        self._settle()
        return torch.tensor(self.count, device=self._scatter.device), self._origin, self._offset, self._scatter

    @classmethod
    def restored(cls, tensors: Sequence[Tensor], *, fast: bool = False) -> "Moments":
        """Return moments from what `tensors` returned. They change the given scatter in place when rows are added.

        Args:
            tensors: Count, origin, offset and scatter.
            fast: Whether products are computed in float32.

        Returns:
            Moments that count as a source of their own.
        """
        count, origin, offset, scatter = tensors
        moments = cls(len(origin), fast=fast, device=scatter.device)
        moments.count, moments._origin, moments._offset, moments._scatter = int(count), origin, offset, scatter
        return moments

    def __getstate__(self) -> dict[str, Any]:
        """Return the sums for a pickle, without the partial sum, which is as large as all the rest."""
        self._settle()
        return {name: value for name, value in vars(self).items() if name != "_partial"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the sums from a pickle."""
        vars(self).update(state)
        self._partial = torch.zeros_like(self._scatter, dtype=torch.float32 if self.fast else torch.float64)

    def _require_own_rows(self, action: str) -> None:
        """Raise ValueError if the sums hold rows of other processes, which another sum would count again."""
        if self._reduced:
            raise ValueError(f"{action} after all_reduce would count rows of other processes again; start anew")

    @property
    def mean(self) -> Float[Tensor, " d"]:
        """Mean of the rows (d,) in float64; 0 without rows."""
        return self._origin + self._offset

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """Covariance (1/n) sum_i (z_i - mean)(z_i - mean)^T in float64, exactly symmetric; ValueError without rows."""
        lower = self._lower() / self.count
        return lower.tril() + lower.tril(-1).mT

    @property
    def second_moment(self) -> Float[Tensor, "d d"]:
        """Second moment (1/n) sum_i z_i z_i^T, which is covariance + mean mean^T; ValueError without rows."""
        return self.covariance.addr_(self.mean, self.mean)

    @property
    def finite(self) -> bool:
        """Whether no square of the rows overflowed: in float32 if `fast`, else in float64."""
        self._settle()
        # |S_jk|^2 <= S_jj S_kk, so a finite diagonal bounds all entries.
        return bool(torch.isfinite(self._scatter.diagonal() + self.mean.square()).all())

    def spectrum(self) -> Float[Tensor, " d"]:
        """Compute the eigenvalues of the covariance, with negative round-off set to 0.

        Eigenvalues below `noise_floor` are round-off of the rows and the sums.

        Returns:
            The eigenvalues (d,) in float64, descending.

        Raises:
            ValueError: Without rows, and for moments that are not `finite`.
        """
        lower = self._lower()
        if not self.finite:
            raise ValueError("the rows hold numbers whose squares overflow; no spectrum is defined")
        if lower.device.type == "cpu":
            # Uses the BLAS threads that `update` uses already, and is as fast as torch and NumPy on one thread.
            values = torch.from_numpy(scipy.linalg.eigvalsh((lower / self.count).numpy(), overwrite_a=True))
        else:
            values = torch.linalg.eigvalsh(lower / self.count)
        return values.flip(0).clamp_min(0)

    def _lower(self) -> Float[Tensor, "d d"]:
        if not self.count:
            raise ValueError("no rows were added; their covariance is not defined")
        self._settle()
        return self._scatter

    def _join(self, count: int, origin: Float[Tensor, " d"], offset: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        """Update the mean by `count` other rows; return sqrt(n m / (n + m)) delta, whose outer product S gains."""
        if not self.count:
            self._origin = origin
        delta = (origin - self._origin) + (offset - self._offset)
        total = self.count + count
        self._offset = self._offset + delta * (count / total)
        weight = self.count * count / total
        self.count = total
        return delta * weight**0.5

    def _settle(self) -> None:
        """Move the partial sum into the scatter."""
        if self._blocks:
            self._scatter += self._partial
            self._partial.zero_()
            self._blocks = 0


def _centre(rows: Shaped[Tensor, "n d"], out: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Write the centred rows to `out`; return their mean as a sum of two float64 vectors, one large and one small.

    The first row is subtracted before anything is summed: nearly equal numbers are subtracted without rounding.
    """
    if out.dtype == torch.float32 and (rows.dtype == torch.float64 or not rows.is_floating_point()):
        origin = rows[0].to(out.device, torch.float64, copy=True)  # the caller may change its rows
        out.copy_(rows.to(out.device, torch.float64) - origin)
    else:
        out.copy_(rows)
        first = out[0].clone()
        out -= first
        origin = first.to(torch.float64)
    offset = out.mean(0)
    out -= offset
    return origin, offset.to(torch.float64)


def _add_products(block: Float[Tensor, "n d"], target: Float[Tensor, "d d"]) -> None:
    """Add block^T block to the lower triangle of `target`, and perhaps to the upper, in place and without copies."""
    if block.device.type == "cpu":
        product = dsyrk if block.dtype == torch.float64 else ssyrk
        # BLAS expects Fortran order: it gets transposed views, and its upper triangle is the lower one here.
        product(1.0, block.numpy().T, 1.0, target.numpy().T, overwrite_c=1)
        return
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # TF32 would raise the noise floor far above the stated one
    try:
        target.addmm_(block.mT, block)
    finally:
        torch.set_float32_matmul_precision(precision)


def _mean_over_processes(
    count: int, mean: Float[Tensor, " d"], group: ProcessGroup | None
) -> tuple[int, Float[Tensor, " d"]]:
    sums = torch.cat([count * mean, mean.new_tensor([count])])
    torch.distributed.all_reduce(sums, group=group)
    total = int(sums[-1])
    return total, sums[:-1] / max(total, 1)
