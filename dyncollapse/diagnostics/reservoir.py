"""A uniform random sample of the rows of a stream, in constant memory."""

import torch
import torch.distributed
from jaxtyping import Float, Shaped
from torch import Tensor


class Reservoir:
    """A uniform random sample of at most `size` of the rows added so far.

    Every row draws a random key, and the rows with the smallest keys are kept (Efraimidis and Spirakis 2006, with equal
    weights). So two reservoirs merge by keeping the smallest keys of both. They need different seeds: with one seed,
    rows at the same places of two streams have the same keys.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        """Start without rows; ValueError for a size below 2."""
        if size < 2:
            raise ValueError(f"the sample's size is {size}; keep at least 2 rows")
        self.size, self.generator = size, torch.Generator().manual_seed(seed)
        self.keys = torch.empty(0, dtype=torch.float64)
        self._buffer: Tensor | None = None

    @classmethod
    def restored(cls, buffer: Shaped[Tensor, "size d"], keys: Float[Tensor, " r"], seed: int) -> "Reservoir":
        """Return a reservoir from the rows that another one kept, in the first places of `buffer`, and their keys.

        It writes new rows into `buffer`.
        """
        reservoir = cls(len(buffer), seed)
        reservoir.keys, reservoir._buffer = keys, buffer
        return reservoir

    @property
    def rows(self) -> Shaped[Tensor, "r d"] | None:
        """The rows that are kept, in order of arrival while all fit; None before any update."""
        return None if self._buffer is None else self._buffer[: len(self.keys)]

    def update(self, rows: Shaped[Tensor, "n d"]) -> None:
        """Add rows to the stream; those that are kept are copied."""
        self._keep(torch.rand(len(rows), generator=self.generator, dtype=torch.float64), rows)

    def merge(self, other: "Reservoir") -> None:
        """Become a sample of both streams; ValueError for reservoirs of different sizes and for this one itself."""
        if other is self:
            raise ValueError("a sample does not merge with itself: that would keep every row twice")
        if other.size != self.size:
            raise ValueError(f"samples of {other.size} rows do not merge into those of {self.size}")
        if other.rows is not None:
            self._keep(other.keys, other.rows)

    def all_reduce(self, group: torch.distributed.ProcessGroup | None = None) -> None:
        """Become one sample of the streams of all processes, equal on each; all must have had an `update`."""
        kept = self.rows
        assert kept is not None
        world = torch.distributed.get_world_size(group)
        # Collectives need equal shapes: missing rows are filled in, with keys that are never kept.
        missing = self.size - len(self.keys)
        keys = torch.nn.functional.pad(self.keys, (0, missing), value=2.0).to(kept.device)
        rows = torch.nn.functional.pad(kept, (0, 0, 0, missing)).contiguous().view(torch.uint8)  # any format
        all_keys, all_rows = ([torch.empty_like(own) for _ in range(world)] for own in (keys, rows))
        torch.distributed.all_gather(all_keys, keys, group)
        torch.distributed.all_gather(all_rows, rows, group)
        joined, joined_rows = torch.cat(all_keys).cpu(), torch.cat(all_rows).view(kept.dtype)
        real = joined < 1
        self.keys = torch.empty(0, dtype=torch.float64)
        self._keep(joined[real], joined_rows[real.to(rows.device)])

    @torch.no_grad()
    def _keep(self, keys: Tensor, rows: Tensor) -> None:
        with torch.inference_mode(False):  # a buffer made in inference mode could not be changed outside it
            if self._buffer is None:
                self._buffer = rows.new_empty(self.size, rows.shape[1])
            held = len(self.keys)
            fresh = min(self.size - held, len(keys))
            self._buffer[held : held + fresh] = rows[:fresh]
            self.keys = torch.cat([self.keys, keys[:fresh]])
            keys, rows = keys[fresh:], rows[fresh:]
            if len(keys):
                self._replace(keys, rows)

    def _replace(self, keys: Tensor, rows: Tensor) -> None:
        """Replace the rows of the largest keys by new rows with smaller ones."""
        assert self._buffer is not None
        smallest = torch.zeros(self.size + len(keys), dtype=torch.bool)
        smallest[torch.cat([self.keys, keys]).topk(self.size, largest=False).indices] = True
        leaving, entering = (~smallest[: self.size]).nonzero()[:, 0], smallest[self.size :].nonzero()[:, 0]
        self.keys[leaving] = keys[entering]
        self._buffer[leaving.to(self._buffer.device)] = rows[entering.to(rows.device)].to(self._buffer)
