"""Projectors, between representation and loss: SimCLR's, the paper's ablations (Tables 1 and 2), and DirectCLR."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dyncollapse.bridge.recipe import SUBVECTORS, Recipe
from dyncollapse.runtime.settings import SettingError
from dyncollapse.simulation.footprint import check_room

PAPER_D0, PAPER_REPRESENTATION, PAPER_OUT = 360, 2048, 128


class Diagonal(nn.Module):
    """A trainable diagonal projector: z = diag(w) r, with all w = 1 at the start.

    Attributes:
        gain: The weights w (d,).

    References:
        Jing et al. (2022), arXiv:2110.09348, Proposition 1 and Table 2.

    Examples:
        >>> projector = Diagonal(3)
        >>> projector(torch.tensor([[1.0, 2.0, 3.0]])).tolist()
        [[1.0, 2.0, 3.0]]
        >>> sum(weight.numel() for weight in projector.parameters())
        3
    """

    def __init__(self, dim: int) -> None:
        """Start as the identity.

        Args:
            dim: Dimension of the representation.
        """
        super().__init__()
        self.gain = nn.Parameter(torch.ones(dim))

    def forward(self, r: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Scale every dimension by its gain.

        Args:
            r: Representations.

        Returns:
            Embeddings of the same dimension.
        """
        return r * self.gain


class Fixed(nn.Module):
    """A fixed projector z = Q r, whose matrix Q has orthonormal rows and is drawn from the Haar measure.

    With `rows` = `dim` this is the orthogonal projector. The paper trains one, by the exponential map. The loss depends
    on embeddings through their inner products only, and no orthogonal matrix changes these. So its gradient along the
    orthogonal group is 0, training would not move Q, and a fixed Q is the same model.

    With fewer rows this is the fixed low-rank projector. It gives the inner products of a matrix with `rows` singular
    values of 1 and the others 0 between fixed orthogonal matrices (Appendix F).

    Attributes:
        matrix: Q (k, d), a buffer.

    References:
        Jing et al. (2022), arXiv:2110.09348, Table 2 and Appendix F. Mezzadri (2007) for the Haar measure.

    Examples:
        >>> projector, r = Fixed(4, 4), torch.randn(5, 4)
        >>> torch.allclose(projector(r) @ projector(r).T, r @ r.T, atol=1e-5)
        True
    """

    matrix: Tensor

    def __init__(self, dim: int, rows: int) -> None:
        """Draw the matrix from torch's global generator.

        Args:
            dim: Dimension of the representation.
            rows: Dimension of the embedding, at most `dim`.
        """
        super().__init__()
        q, r = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64))
        q = q * r.diagonal().sign()  # without it the distribution is not Haar's (Mezzadri 2007)
        self.register_buffer("matrix", q[:rows].to(torch.float32))

    def forward(self, r: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Multiply by the matrix.

        Args:
            r: Representations.

        Returns:
            Embeddings of dimension k = `rows`.
        """
        return r @ self.matrix.mT.to(r.dtype)


class SubVector(nn.Module):
    """DirectCLR's projector: the first d0 dimensions of the representation, z = r[0:d0].

    Attributes:
        d0: Dimension of the embedding.

    References:
        Jing et al. (2022), arXiv:2110.09348, Section 6.

    Examples:
        >>> SubVector(2)(torch.tensor([[1.0, 2.0, 3.0]])).tolist()
        [[1.0, 2.0]]
    """

    def __init__(self, d0: int) -> None:
        """Set the dimension of the embedding.

        Args:
            d0: Dimensions to keep.
        """
        super().__init__()
        self.d0 = d0

    def forward(self, r: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Keep the first d0 dimensions.

        Args:
            r: Representations.

        Returns:
            Embeddings of dimension k = d0.
        """
        return r[..., : self.d0]


class RandomSubVector(nn.Module):
    """A projector that keeps d0 random dimensions of the representation, drawn anew at every training step.

    In evaluation it keeps the dimensions of the last `redraw`.

    Attributes:
        dim: Dimension of the representation.
        d0: Dimension of the embedding.
        seed: Seed of the draws.
        coordinates: The kept dimensions (d0,), a buffer.

    References:
        Jing et al. (2022), arXiv:2110.09348, Appendix F.

    Examples:
        >>> projector = RandomSubVector(dim=100, d0=3, seed=0)
        >>> first = projector.coordinates.tolist()
        >>> projector.redraw(step=1)
        >>> projector(torch.zeros(2, 100)).shape, projector.coordinates.tolist() == first
        (torch.Size([2, 3]), False)
    """

    coordinates: Tensor

    def __init__(self, dim: int, d0: int, seed: int) -> None:
        """Draw the dimensions of step 0.

        Args:
            dim: Dimension of the representation.
            d0: Dimensions to keep.
            seed: Seed of the draws.
        """
        super().__init__()
        self.dim, self.d0, self.seed = dim, d0, seed
        self.register_buffer("coordinates", torch.empty(d0, dtype=torch.int64))
        self.redraw(0)

    @torch.no_grad()
    def redraw(self, step: int) -> None:
        """Draw the dimensions of a step; they are the same in every process.

        Args:
            step: The training step, counted from 0.
        """
        generator = torch.Generator().manual_seed(self.seed + step)
        self.coordinates.copy_(torch.randperm(self.dim, generator=generator)[: self.d0])

    def forward(self, r: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Keep the drawn dimensions.

        Args:
            r: Representations.

        Returns:
            Embeddings of dimension k = d0.
        """
        return r[..., self.coordinates]


class UnitNorm(nn.Module):
    """Division of each embedding by its norm, with which some other libraries' projectors end."""

    def forward(self, z: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """Normalise each row; a row of zeros stays as it is."""
        return functional.normalize(z, dim=-1)


def build_projector(recipe: Recipe, dim: int) -> nn.Module:
    """Build a recipe's projector with random weights from torch's global generator.

    Sizes that the recipe leaves at None follow the paper's for `dim` = 2048: `d0` is 360, in proportion for other
    `dim`; `out_dim` is 128, or `dim` if that is less; `hidden_dim` is `dim`.

    Args:
        recipe: Settings; used are the projector, its sizes and the seed.
        dim: Dimension of the representation.

    Returns:
        The projector, which maps representations (n, `dim`) to embeddings.

    Raises:
        SettingError: If d0 exceeds `dim`, or if the weights do not fit into memory.

    References:
        Jing et al. (2022), arXiv:2110.09348, Section 6 and Appendices D and F.

    Examples:
        >>> from dyncollapse.bridge import resolve
        >>> build_projector(resolve({"data": "digits", "method": "directclr"}), 128).d0
        22
        >>> build_projector(resolve({"data": "digits", "projector": "mlp"}), 128)[-1]
        Linear(in_features=128, out_features=64, bias=False)
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
