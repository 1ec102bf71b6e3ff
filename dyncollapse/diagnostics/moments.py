"""Mean and covariance of any number of rows in constant memory: batch by batch, file by file, process by process."""

import scipy.linalg
import torch
from jaxtyping import Float, Shaped
from scipy.linalg.blas import dsyrk, ssyrk
from torch import Tensor
from torch.distributed import ProcessGroup

from dyncollapse.diagnostics.finite import check_finite

# Ours, measured at d = 2048: large blocks, since torch's threads and those of BLAS get in each other's way at every
# change between them (8 MB: 20% slower); fewer than 256 rows keep BLAS from full speed.
BLOCK_BYTES, FEWEST_ROWS, MOST_ROWS = 2**25, 256, 4096
# K additions to a growing sum leave round-off of about 0.1 sqrt(K) eps of it. Adding 32 blocks to a partial sum first
# keeps that below a few eps for any number of batches that a run can have.
BLOCKS_PER_PARTIAL = 32


class Moments:
    """Count, mean and scatter of the rows seen so far, in float64 and mergeable (Chan, Golub and LeVeque 1983).

    The scatter is S = sum_i (z_i - mean)(z_i - mean)^T. Joining n rows with m others, whose means differ by delta,
    adds n m / (n + m) delta delta^T to the sum of both scatters. Each block of rows is centred by its own mean first,
    and means are kept as differences from the first row, so a mean far larger than the spread costs no digits.
    Memory is O(d^2) plus one block, however many rows come in one call.

    dim: d. fast: products in float32, added up in float64 every few blocks, with the higher `noise_floor` that
    spectra.py states for it. device: where the sums are kept; rows from elsewhere are moved there.
    """

    @torch.inference_mode(False)  # or no later call could change the sums in place
    def __init__(self, dim: int, *, fast: bool = False, device: torch.device | str = "cpu") -> None:
        """Start with no rows. Raises ValueError for a dimension below 1."""
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

    @torch.no_grad()
    def update(self, rows: Shaped[Tensor, "n d"]) -> None:
        """Add rows of any real dtype, from any device; none is a no-op.

        Raises ValueError for another shape than (n, dim), for complex rows, and after `all_reduce`; also for NaN and
        infinity, of which it names the first row: blocks of up to MOST_ROWS rows before that one's are then added.
        """
        self._require_own_rows("update")
        if rows.ndim != 2 or rows.shape[1] != self.dim or rows.is_complex():
            raise ValueError(f"rows are {rows.dtype} of shape {tuple(rows.shape)}; expected real (n, {self.dim})")
        size = min(max(FEWEST_ROWS, BLOCK_BYTES // (self._partial.element_size() * self.dim)), MOST_ROWS)
        block = self._partial.new_empty(min(size, len(rows)) + 1, self.dim)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            filled = block[: len(part) + 1]
            origin, offset = _centre(part, filled[:-1])
            if not bool(torch.isfinite(offset).all()):  # the mean has what any row has
                check_finite([part], start)
            # One more row carries the term of the means, which saves a pass over the scatter.
            filled[-1] = self._join(len(part), origin, offset)
            _add_products(filled, self._partial)
            self._blocks += 1
            if self._blocks == BLOCKS_PER_PARTIAL:
                self._settle()

    @torch.no_grad()
    def merge(self, other: "Moments") -> None:
        """Add the rows that another of the same dimension has seen.

        Raises ValueError for another dimension, for these moments themselves, and after `all_reduce`.
        """
        self._require_own_rows("merge")
        if other is self:
            raise ValueError("moments do not merge with themselves: that would count every row twice")
        if other.dim != self.dim:
            raise ValueError(f"moments of {other.dim} dimensions do not merge into those of {self.dim}")
        self._settle()
        other._settle()
        device = self._scatter.device
        if other.count:
            self._scatter += other._scatter.to(device)
            row = self._join(other.count, other._origin.to(device), other._offset.to(device))
            self._scatter.addr_(row, row)

    @torch.no_grad()
    def all_reduce(self, group: ProcessGroup | None = None) -> None:
        """Give every process of the group the moments of all their rows; some may have none.

        Once, at the end: a second call would count every row again for each process, so it raises ValueError, as
        `update` and `merge` do from then on. The state's device has to be one that the group's backend reaches, as CUDA
        for NCCL.
        """
        self._require_own_rows("all_reduce")
        self._reduced = True
        self._settle()
        _, centre = _mean_over_processes(self.count, self.mean, group)
        # Again for what rounding left, now that all are measured from one place.
        own = self._origin - centre + self._offset
        total, rest = _mean_over_processes(self.count, own, group)
        self._scatter.addr_(own - rest, own - rest, alpha=self.count)
        torch.distributed.all_reduce(self._scatter, group=group)
        self.count, self._origin, self._offset = total, centre, rest

    @torch.no_grad()
    def translate(self, offset: Float[Tensor, " d"]) -> None:
        """Move every row seen so far by the same vector: means change by it, covariances do not."""
        self._origin = self._origin + offset.to(self._origin)

    def _require_own_rows(self, action: str) -> None:
        """Raise ValueError where the sums hold other processes' rows already, which any further sum would repeat."""
        if self._reduced:
            raise ValueError(f"{action} after all_reduce would count rows of other processes again; start anew")

    @property
    def mean(self) -> Float[Tensor, " d"]:
        """Mean of the rows, float64; 0 without any."""
        return self._origin + self._offset

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """(1/n) sum_i (z_i - mean)(z_i - mean)^T, float64, exactly symmetric. Raises ValueError without any rows."""
        lower = self._lower() / self.count
        return lower.tril() + lower.tril(-1).mT

    @property
    def second_moment(self) -> Float[Tensor, "d d"]:
        """(1/n) sum_i z_i z_i^T, not centred: covariance + mean mean^T. Raises ValueError without any rows."""
        return self.covariance.addr_(self.mean, self.mean)

    @property
    def finite(self) -> bool:
        """Whether no square of the rows overflowed, in float32 where `fast`."""
        self._settle()
        # |S_jk|^2 <= S_jj S_kk: the diagonal speaks for the rest.
        return bool(torch.isfinite(self._scatter.diagonal() + self.mean.square()).all())

    def spectrum(self) -> Float[Tensor, " d"]:
        """Eigenvalues of the covariance, descending, negative round-off set to 0.

        Round-off in the rows and the sums hides those below `noise_floor`. Raises ValueError without any rows and for
        moments that are not `finite`.
        """
        lower = self._lower()
        if not self.finite:
            raise ValueError("the rows hold numbers whose squares overflow; no spectrum is defined")
        if lower.device.type == "cpu":
            # As fast as torch's and numpy's on one thread, and on the BLAS threads that are already awake on several.
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
        """Take the mean of `count` other rows into ours; sqrt(n m / (n + m)) delta, the root of what S gains."""
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
    """Write rows less their mean to `out`; the mean as a sum of two float64 vectors, large and small.

    The first row is taken off before anything is summed: near equal numbers differ without rounding.
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
    """Add block^T block to the lower triangle of `target` at least, in place and without a copy of either."""
    if block.device.type == "cpu":
        product = dsyrk if block.dtype == torch.float64 else ssyrk
        # Rows of torch are columns of Fortran: the transposed views are what BLAS wants, and its upper is our lower.
        product(1.0, block.numpy().T, 1.0, target.numpy().T, overwrite_c=1)
        return
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # TF32 would put the noise floor far above what we state
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
