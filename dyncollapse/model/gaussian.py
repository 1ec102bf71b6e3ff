"""Gaussian data with Gaussian augmentations: the toy task of the paper's Sections 4 and 5."""

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Self

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dyncollapse.model._drawing import Factor, split_generators, symmetric_root
from dyncollapse.model.array_arguments import array_fields, takes_arrays
from dyncollapse.model.covariance_checks import check_covariance, check_same_kind
from dyncollapse.model.pairs import Pairs, check_views
from dyncollapse.model.streams import JoinedStream, PairStream


@array_fields
@dataclass(frozen=True, eq=False)
class GaussianTask:
    """Samples x ~ N(0, S) and their views x + n with n ~ N(0, A).

    White noise is drawn in float32 and converted, so both precisions use the same numbers. On a CPU none of them lies
    beyond 5.8 standard deviations.

    Attributes:
        data_cov: S (d, d), PSD.
        aug_cov: A (d, d), PSD.
        views: "one-sided" (the paper's Eq. 2): anchors and negatives are clean, only the positive is augmented.
            "two-sided" (SimCLR): both views are augmented, negatives come from the other view.
        noise_cov: C (d, d), the covariance E[n n'^T] between the noises of two-sided views; None for independent ones.
            It is symmetric, with A + C and A - C PSD.

    Raises:
        ValueError: For matrices that are not finite, square, symmetric and PSD, or that differ in size, precision or
            device, and for a noise covariance with one-sided views or that no two noises have.

    References:
        Jing et al. 2022, Section 4; docs/explanation/theory.md, section 2.

    Examples:
        >>> task = GaussianTask(torch.eye(2), torch.diag(torch.tensor([0.0, 4.0])))
        >>> pairs = task.sample(5, torch.Generator().manual_seed(0))
        >>> (pairs.positive - pairs.anchor)[:, 0].tolist()  # not augmented
        [0.0, 0.0, 0.0, 0.0, 0.0]
    """

    data_cov: Float[Tensor, "d d"]
    aug_cov: Float[Tensor, "d d"]
    views: str = "one-sided"
    noise_cov: Float[Tensor, "d d"] | None = None

    def __post_init__(self) -> None:
        """Check the covariances and the view convention."""
        check_views(self.views)
        for name, cov in (("data covariance", self.data_cov), ("augmentation covariance", self.aug_cov)):
            check_covariance(name, cov)
        check_same_kind("augmentation covariance", self.aug_cov, self.data_cov, "data covariance")
        if self.noise_cov is not None:
            self._check_noise(self.noise_cov)

    def _check_noise(self, noise_cov: Tensor) -> None:
        if self.views == "one-sided":
            raise ValueError("noise_cov is given with one-sided views, of which only one is noisy; use two-sided views")
        check_same_kind("noise_cov", noise_cov, self.aug_cov)
        for sign, name in ((1, "A + C"), (-1, "A - C")):
            check_covariance(f"{name} of aug_cov A and noise_cov C", self.aug_cov + sign * noise_cov)

    @classmethod
    def block(
        cls,
        dim: int = 16,
        aug_dim: int = 8,
        aug_strength: float = 1.0,
        data_var: float = 0.5,
        views: str = "one-sided",
        dtype: torch.dtype = torch.float64,
    ) -> Self:
        """Build the task of the paper's Fig. 3: S = data_var I, A = diag(0, ..., 0, k, ..., k).

        Args:
            dim: Input dimension d.
            aug_dim: How many of the last coordinates are augmented.
            aug_strength: Their augmentation k, a variance and not a standard deviation.
            data_var: Variance of every coordinate. 1/2 makes the covariance of pairwise differences the identity, as in
                the paper's Section 4.3.
            views: As in `GaussianTask`.
            dtype: Precision of both covariances.

        Returns:
            The task, with diagonal covariances.

        Raises:
            ValueError: For values out of range.

        References:
            Jing et al. 2022, Section 4.3 and Fig. 3.

        Examples:
            >>> GaussianTask.block(3, 1, 2.0).aug_cov.diagonal().tolist()
            [0.0, 0.0, 2.0]
        """
        if dim < 1 or not 0 <= aug_dim <= dim:
            raise ValueError(f"aug_dim is {aug_dim} of dim {dim}; it must lie between 0 and dim, with dim at least 1")
        if not (0 <= aug_strength < float("inf")):
            raise ValueError(f"aug_strength is {aug_strength}; it is a variance, finite and at least 0")
        if not (0 < data_var < float("inf")):
            raise ValueError(f"data_var is {data_var}; it is a variance, finite and above 0")
        aug_vars = aug_strength * (torch.arange(dim) >= dim - aug_dim).to(dtype)
        return cls(data_var * torch.eye(dim, dtype=dtype), torch.diag(aug_vars), views)

    @property
    def dim(self) -> int:
        """The input dimension d."""
        return self.data_cov.shape[-1]

    def to(self, dtype: torch.dtype, device: torch.device | None = None) -> Self:
        """Return the same task in another precision, and on another device if one is given."""
        noise_cov = None if self.noise_cov is None else self.noise_cov.to(device, dtype)
        return type(self)(self.data_cov.to(device, dtype), self.aug_cov.to(device, dtype), self.views, noise_cov)

    def sample(self, n: int, generator: Generator, runs: tuple[int, ...] = ()) -> Pairs:
        """Draw n fresh pairs for each run, with clean samples x ~ N(0, S).

        Args:
            n: Pairs of a run.
            generator: Draws the samples, then the augmentations.
            runs: Shape of the runs.

        Returns:
            Views (*runs, n, d).

        Examples:
            >>> pairs = GaussianTask.block(3, 1, 4.0).sample(10_000, torch.Generator().manual_seed(0))
            >>> [round(v, 1) for v in (pairs.positive - pairs.anchor).var(0).tolist()]  # A's diagonal
            [0.0, 0.0, 4.0]
        """
        return self.augment(self.clean((*runs, n), generator), generator)

    def clean(self, shape: tuple[int, ...], generator: Generator) -> Float[Tensor, "*runs n d"]:
        """Draw clean samples x ~ N(0, S).

        Args:
            shape: How many samples, in any axes.
            generator: Draws them.

        Returns:
            Samples (*shape, d).
        """
        return self._data_factor.normal(shape, generator)

    @takes_arrays
    def augment(self, clean: Float[Tensor, "*runs n d"], generator: Generator) -> Pairs:
        """Draw both views x + n, n ~ N(0, A), of the given clean samples; one-sided anchors stay clean.

        Args:
            clean: Samples x (*runs, n, d), in the task's precision.
            generator: Draws the noise.

        Returns:
            Views (*runs, n, d).

        Examples:
            >>> clean = torch.zeros(5, 2, dtype=torch.float64)
            >>> pairs = GaussianTask.block(2, 2).augment(clean, torch.Generator().manual_seed(0))
            >>> torch.equal(pairs.anchor, clean), torch.equal(pairs.positive, clean)
            (True, False)
        """
        if self.noise_cov is not None:
            # n = (a + b) / sqrt(2) and n' = (a - b) / sqrt(2) with a ~ N(0, A + C) and b ~ N(0, A - C), independent.
            both, apart = (factor.normal(clean.shape[:-1], generator) / 2**0.5 for factor in self._noise_factors)
            return Pairs(clean + both + apart, clean + both - apart, self.views)
        noisy = partial(self._aug_factor.added, clean, generator)
        anchor = clean if self.views == "one-sided" else noisy()
        return Pairs(anchor, noisy(), self.views)

    def stream(
        self, batch_size: int, generator: Generator, runs: tuple[int, ...] = (), pool: int | None = None
    ) -> PairStream | JoinedStream:
        """Describe an endless stream of batches.

        One generator draws on one thread only. On a CPU, many runs are therefore split into streams of a few runs each,
        with generators that `generator` seeds. How many depends on the shapes alone, and not on the threads.

        Args:
            batch_size: Pairs in a batch, n.
            generator: Gives the first state; it is left as it is.
            runs: Shape of the runs.
            pool: Samples that each run visits in shuffled epochs; None draws fresh samples for every batch.

        Returns:
            Batches (*runs, n, d), the same ones each time the stream is iterated; see `PairStream`.

        Raises:
            ValueError: For fewer than two pairs, and a batch larger than the pool.

        Examples:
            >>> stream = GaussianTask.block(3, 1).stream(8, torch.Generator(), (2,))
            >>> next(iter(stream)).anchor.shape
            torch.Size([2, 8, 3])
        """
        stream = PairStream(self, batch_size, runs, pool, generator.device, generator.get_state())
        parts = split_generators(runs, stream.numbers_per_step, generator)
        if not parts:
            return stream
        # Fail now if all pools together do not fit: drawn one by one, they would fill the memory first.
        torch.empty(*runs, pool or 0, self.dim, dtype=self.data_cov.dtype)
        return JoinedStream(
            tuple(replace(stream, runs=(count, *runs[1:]), generator_state=state) for count, state in parts)
        )

    @cached_property
    def shared(self) -> Float[Tensor, "d d"]:
        """G, the covariance E[x x'^T] between the views of a positive pair: S, or S + C with correlated noise."""
        return self.data_cov if self.noise_cov is None else self.data_cov + self.noise_cov

    @cached_property
    def equivalent(self) -> tuple[Float[Tensor, "d d"], Float[Tensor, "d d"]]:
        """(S, A) of independent noise with the same moments: (S + C, A - C) for correlated noise."""
        return (self.data_cov, self.aug_cov) if self.noise_cov is None else (self.shared, self.aug_cov - self.noise_cov)

    @cached_property
    def seen(self) -> tuple[Float[Tensor, "d d"], Float[Tensor, "d d"]]:
        """(S_e, A_e), see `as_seen`."""
        if self.noise_cov is None:
            return as_seen(self.data_cov, self.aug_cov, self.views)
        return self.data_cov + self.aug_cov, 2 * self.equivalent[1]

    @cached_property
    def seen_root(self) -> Float[Tensor, "d d"]:
        """The symmetric square root of S_e."""
        return symmetric_root(self.seen[0])

    @cached_property
    def _data_factor(self) -> Factor:
        return Factor.of(self.data_cov)

    @cached_property
    def _aug_factor(self) -> Factor:
        return Factor.of(self.aug_cov)

    @cached_property
    def _noise_factors(self) -> tuple[Factor, Factor]:
        assert self.noise_cov is not None
        return Factor.of(self.aug_cov + self.noise_cov), Factor.of(self.aug_cov - self.noise_cov)


def as_seen(data: Tensor, aug: Tensor, views: str) -> tuple[Tensor, Tensor]:
    """Return (S_e, A_e): covariance of a point as the loss sees it, and of a positive pair's difference.

    One-sided they are S and A, two-sided S + A and 2 A; the same holds for variances of single modes.
    """
    return (data, aug) if views == "one-sided" else (data + aug, 2 * aug)
