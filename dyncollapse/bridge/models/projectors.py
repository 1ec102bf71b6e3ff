"""Between representation and loss: SimCLR's projectors, the paper's ablations (its Tables 1 and 2), DirectCLR."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dyncollapse.bridge.recipe import SUBVECTORS, Recipe
from dyncollapse.runtime.settings import SettingError
from dyncollapse.simulation.footprint import check_room

PAPER_D0, PAPER_REPRESENTATION, PAPER_OUT = 360, 2048, 128


class Diagonal(nn.Module):
    """A trainable gain on each dimension of the representation (the paper's Proposition 1), 1 at the start."""

    def __init__(self, dim: int) -> None:
        """Start as the identity."""
        super().__init__()
        self.gain = nn.Parameter(torch.ones(dim))

    def forward(self, r: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Scale every dimension."""
        return r * self.gain


class Fixed(nn.Module):
    """Multiplication by a fixed matrix with orthonormal rows, drawn by Haar measure.

    Square, this is the orthogonal projector. The paper trains one (by the exponential map); the loss sees embeddings
    through their inner products alone, which no orthogonal matrix changes, so its gradient along the orthogonal group
    is 0 and training never moves it: a fixed one is the same model. With d0 rows it is the fixed low-rank projector:
    the same inner products as d0 singular values of 1, the rest 0, between fixed orthogonal matrices (Appendix F).
    """

    matrix: Tensor

    def __init__(self, dim: int, rows: int) -> None:
        """Draw the matrix from torch's global generator."""
        super().__init__()
        q, r = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64))
        q = q * r.diagonal().sign()  # makes the distribution Haar's (Mezzadri 2007)
        self.register_buffer("matrix", q[:rows].to(torch.float32))

    def forward(self, r: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Turn, and cut off."""
        return r @ self.matrix.mT.to(r.dtype)


class SubVector(nn.Module):
    """The first d0 dimensions: DirectCLR, z = r[0:d0]."""

    def __init__(self, d0: int) -> None:
        """Keep d0 dimensions."""
        super().__init__()
        self.d0 = d0

    def forward(self, r: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Cut off."""
        return r[..., : self.d0]


class RandomSubVector(nn.Module):
    """Other d0 dimensions at every step (Appendix F); between steps, and after training, those of the last `redraw`."""

    coordinates: Tensor

    def __init__(self, dim: int, d0: int, seed: int) -> None:
        """Start with the dimensions of step 0."""
        super().__init__()
        self.dim, self.d0, self.seed = dim, d0, seed
        self.register_buffer("coordinates", torch.empty(d0, dtype=torch.int64))
        self.redraw(0)

    @torch.no_grad()
    def redraw(self, step: int) -> None:
        """Take the dimensions of a step, the same in every process."""
        generator = torch.Generator().manual_seed(self.seed + step)
        self.coordinates.copy_(torch.randperm(self.dim, generator=generator)[: self.d0])

    def forward(self, r: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Pick them out."""
        return r[..., self.coordinates]


class UnitNorm(nn.Module):
    """Division of each embedding by its length, where a projector of others ends with it."""

    def forward(self, z: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """Put embeddings on the unit sphere; 0 stays 0."""
        return functional.normalize(z, dim=-1)


def build_projector(recipe: Recipe, dim: int) -> nn.Module:
    """Build a recipe's projector, drawn from torch's global generator.

    Sizes that the recipe leaves open are the paper's for 2048: a sub-vector of 360, in proportion for other `dim`; an
    output of 128, or `dim` where that is less; a hidden layer as wide as the representation.

    Args:
        recipe: Which projector, and its sizes.
        dim: Dimension of the representations.

    Returns:
        The projector.

    Raises:
        SettingError: For a d0 above `dim`, and for sizes beyond the memory.
    """
    out, hidden = recipe.out_dim or min(PAPER_OUT, dim), recipe.hidden_dim or dim
    d0 = recipe.d0 or max(1, round(dim * PAPER_D0 / PAPER_REPRESENTATION))
    if recipe.head in SUBVECTORS and d0 > dim:
        raise SettingError(
            f"`d0` is {d0}, but {recipe.arch} gives representations of {dim} dimensions; give at most {dim}"
        )
    numbers = {"mlp": hidden * (dim + out), "linear": dim * out}.get(recipe.head, 0)
    check_room(4 * numbers, "cpu", "the projector", "lower `hidden_dim` or `out_dim`")
    match recipe.head:
        case "mlp":  # with BatchNorm, whose shift takes the place of a bias
            first, last = nn.Linear(dim, hidden, bias=False), nn.Linear(hidden, out, bias=False)
            return nn.Sequential(first, nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), last)
        case "linear":
            return nn.Linear(dim, out, bias=False)
        case "none":
            return nn.Identity()
        case "diagonal":
            return Diagonal(dim)
        case "orthogonal":
            return Fixed(dim, dim)
        case "low-rank":
            return Fixed(dim, d0)
        case "low-rank-diagonal":
            return SubVector(d0)
        case "random-subvector":
            return RandomSubVector(dim, d0, recipe.seed)
    raise AssertionError(recipe.head)
