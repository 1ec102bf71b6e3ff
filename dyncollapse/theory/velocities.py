"""How fast singular values, singular vectors and the alignment of two layers move (Lemmas 4-7)."""

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model.precision import full_precision


@full_precision
def singular_value_velocities(
    w: Float[Tensor, "*runs m d"], w_dot: Float[Tensor, "*runs m d"]
) -> Float[Tensor, "*runs k"]:
    """Velocities of the singular values, s_k' = u_k^T W' v_k (Lemma 4).

    Args:
        w: Matrices (*runs, m, d) of any shape.
        w_dot: Their velocities W'.

    Returns:
        s' (*runs, k) with k = min(m, d), in descending order of s. Inside a group of equal singular values the numbers
        depend on the basis that the decomposition returns, which is arbitrary.

    Raises:
        ValueError: When the two shapes differ.

    References:
        Jing et al. 2022, Lemma 4.

    Examples:
        >>> singular_value_velocities(torch.diag(torch.tensor([2.0, 1.0])), torch.eye(2)).tolist()
        [1.0, 1.0]
    """
    _check_same_shape(w, w_dot)
    u, _, vh = torch.linalg.svd(w, full_matrices=False)
    return (u.mT @ w_dot * vh).sum(-1)


@full_precision
def singular_vector_velocities(
    w: Float[Tensor, "*runs d d"], w_dot: Float[Tensor, "*runs d d"]
) -> tuple[Float[Tensor, "*runs d d"], Float[Tensor, "*runs d d"]]:
    """Velocities of the singular vectors in the columns of U and V, for W = U S V^T (Lemma 5).

    U' = U (H o [U^T W' V S + S V^T W'^T U]) and V' = V (H o [V^T W'^T U S + S U^T W' V]), with
    H_kl = 1 / (s_l^2 - s_k^2) off the diagonal and 0 on it.

    Args:
        w: Square matrices (*runs, d, d) with distinct singular values.
        w_dot: Their velocities W'.

    Returns:
        U' and V', with the signs of torch.linalg.svd(w).

    Raises:
        ValueError: When the shapes differ, and for matrices that are not square or whose singular values are not
            distinct: singular vectors then have no velocity of their own.

    References:
        Jing et al. 2022, Lemma 5, whose second line drops the transpose of W'.

    Examples:
        >>> turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])  # W' = Omega W turns U and leaves V
        >>> w = torch.diag(torch.tensor([2.0, 1.0]))
        >>> u_dot, v_dot = singular_vector_velocities(w, turn @ w)
        >>> round(float(u_dot.norm()), 4), round(float(v_dot.norm()), 4)
        (1.4142, 0.0)
    """
    _check_same_shape(w, w_dot)
    u, s, v = _distinct_svd(w)
    h, drive = _inverse_gaps(s), u.mT @ w_dot @ v
    row, column = s.unsqueeze(-2), s.unsqueeze(-1)
    return u @ (h * (drive * row + column * drive.mT)), v @ (h * (drive.mT * row + column * drive))


@full_precision
def alignment_velocity(
    w1: Float[Tensor, "*runs d d"], w2: Float[Tensor, "*runs d d"], pull: Float[Tensor, "*runs d d"]
) -> Float[Tensor, "*runs d d"]:
    """Velocity of the alignment matrix A = V2^T U1 under W1' = W2^T Y and W2' = Y W1^T (Lemma 6).

    A' = A (H1 o [A^T F + F^T A]) - (H2 o [A F^T + F A^T]) A with F = S2 U2^T Y V1 S1 and H as in Lemma 5. The gradient
    flow of any loss of P = W2 W1 has this form.

    Args:
        w1: The lower layer (*runs, d, d), with distinct singular values.
        w2: The upper layer.
        pull: Y = -dL/dP, which is P X under Eq. 2.

    Returns:
        A', with the signs of `alignment_matrix(w1, w2)`.

    Raises:
        ValueError: For shapes that do not fit, and as `singular_vector_velocities` does.

    References:
        Jing et al. 2022, Lemma 6.

    Examples:
        >>> w1, w2 = torch.diag(torch.tensor([2.0, 1.0])), torch.diag(torch.tensor([3.0, 1.0]))
        >>> alignment_velocity(w1, w2, w2 @ w1).abs().max().item()  # aligned layers stay aligned
        0.0
    """
    _check_pull(w1, w2, pull)
    (u1, s1, v1), (u2, s2, v2) = _distinct_svd(w1), _distinct_svd(w2)
    a = v2.mT @ u1
    f = s2.unsqueeze(-1) * (u2.mT @ pull @ v1) * s1.unsqueeze(-2)
    below, above = a.mT @ f, a @ f.mT
    return a @ (_inverse_gaps(s1) * (below + below.mT)) - (_inverse_gaps(s2) * (above + above.mT)) @ a


@full_precision
def layer_value_velocities(
    w1: Float[Tensor, "*runs h d"], w2: Float[Tensor, "*runs m h"], pull: Float[Tensor, "*runs m d"]
) -> tuple[Float[Tensor, "*runs k"], Float[Tensor, "*runs l"]]:
    """Velocities of two layers' singular values, without any assumption on their alignment (Lemma 7).

    s1_k' = sum_l A_lk s2_l (u2_l^T Y v1_k) and s2_k' = sum_l A_kl s1_l (u2_k^T Y v1_l) under W1' = W2^T Y and
    W2' = Y W1^T. With A = I it is Theorem 3.

    Args:
        w1: The lower layer (*runs, h, d).
        w2: The upper layer (*runs, m, h).
        pull: Y = -dL/dP (*runs, m, d), which is P X under Eq. 2.

    Returns:
        s1' and s2', in descending order of s1 and s2.

    Raises:
        ValueError: For shapes that do not fit.

    References:
        Jing et al. 2022, Lemma 7.

    Examples:
        >>> lower, upper = layer_value_velocities(2 * torch.eye(1), 3 * torch.eye(1), torch.eye(1))
        >>> lower.item(), upper.item()  # s1' = s2 and s2' = s1 for Y = 1
        (3.0, 2.0)
    """
    _check_pull(w1, w2, pull)
    u1, s1, v1h = torch.linalg.svd(w1, full_matrices=False)
    u2, s2, v2h = torch.linalg.svd(w2, full_matrices=False)
    weighted = (v2h @ u1) * (u2.mT @ pull @ v1h.mT)
    return (s2.unsqueeze(-2) @ weighted).squeeze(-2), (weighted @ s1.unsqueeze(-1)).squeeze(-1)


def _distinct_svd(w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, s, V of a square matrix with distinct singular values."""
    if w.shape[-1] != w.shape[-2]:
        raise ValueError(
            f"a layer has shape {tuple(w.shape)}; singular vectors have velocities here for square layers only, "
            "singular values (Lemmas 4 and 7) for any"
        )
    u, s, vh = torch.linalg.svd(w)
    closest = (s[..., :-1] - s[..., 1:]) / s[..., :1].clamp_min(torch.finfo(s.dtype).tiny)
    # Round-off moves a vector by eps over this gap, so at sqrt(eps) half the digits are lost.
    if not (closest > torch.finfo(s.dtype).eps ** 0.5).all():
        raise ValueError(
            f"two singular values differ by {float(closest.min()):.2g} of the largest, so their vectors have no "
            "velocity of their own; give matrices with distinct singular values"
        )
    return u, s, vh.mT


def _inverse_gaps(values: Tensor) -> Tensor:
    """H_kl = 1 / (s_l^2 - s_k^2), zero on the diagonal."""
    row, column = values.unsqueeze(-2), values.unsqueeze(-1)
    # Factored, since the difference of two squares loses the digits of close values.
    gaps = (row - column) * (row + column)
    gaps.diagonal(dim1=-2, dim2=-1).fill_(torch.inf)
    return 1 / gaps


def _check_same_shape(w: Tensor, w_dot: Tensor) -> None:
    if w.shape != w_dot.shape:
        raise ValueError(
            f"the matrix has shape {tuple(w.shape)}, its velocity {tuple(w_dot.shape)}; give both in one shape"
        )


def _check_pull(w1: Tensor, w2: Tensor, pull: Tensor) -> None:
    if w1.shape[-2] != w2.shape[-1] or pull.shape[-2:] != (w2.shape[-2], w1.shape[-1]):
        raise ValueError(
            f"layers of shape {tuple(w1.shape)} and {tuple(w2.shape)} with a pull of shape {tuple(pull.shape)} "
            "do not fit; w1's outputs must be w2's inputs and the pull as large as W2 W1"
        )
