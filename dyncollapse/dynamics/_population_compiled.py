"""The population flow's velocity, derivative and preconditioner at one point, compiled for NumPy arrays on a CPU.

Matrices lie one behind the other, row by row, in flat arrays; `Terms.places` says where. For layers W_1, ..., W_L and
P = W_L ... W_1 (m, d) there are

- LAYER: W_l, also in a vector of all weights,
- PRODUCT: W_l ... W_1, of which the first is W_1,
- FORCE: X (d, d), then K1 and K2 (d, d) of dX = -(K1 G K2 + K2 G K1) with G = dP^T P + P^T dP, and Y = P X (m, d),
- ABOVE and BELOW of a preconditioner: A_l = U^T W_L ... W_{l+1} and B_l = W_{l-1} ... W_1 V with eigenbases U and V,
- SHARE: of the preconditioner's change, for each of these modes (m, d).

Sums over entries are loops: numba takes seconds to compile one line of whole arrays, and no time for a loop.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from dyncollapse.runtime.compiled import compiled, inlined

LAYER, PRODUCT, FORCE, ABOVE, BELOW, SHARE = range(6)
X, K1, K2, Y = range(4)


class Terms(NamedTuple):
    """What a flow's velocity is made of.

    Attributes:
        places: Start, rows and columns of each matrix, by kind and number.
        depth: L.
        weight_decay: Its product with the weights is subtracted from the velocity.
        quartic: Whether X = X0 - r M P^T P M, as of losses of fourth order in P, and not infonce's.
        repulsion: r.
        factor: M, or S_e^(1/2) for infonce. One row is the diagonal of a diagonal matrix, for infonce alone.
        constant: X0, or -A_e for infonce.
    """

    places: np.ndarray
    depth: int
    weight_decay: float
    quartic: bool
    repulsion: float
    factor: np.ndarray
    constant: np.ndarray


def places_of(shapes: Sequence[tuple[int, int]]) -> tuple[np.ndarray, int, int]:
    """Find a place for each matrix.

    Args:
        shapes: Of W_1, ..., W_L.

    Returns:
        Start, rows and columns by kind and number; how many numbers a point has, and how many a preconditioner.
    """
    (m, _), (_, d), depth = shapes[-1], shapes[0], len(shapes)
    places = np.zeros((6, max(depth, 4), 3), dtype=np.int64)
    products = [(rows, d) for rows, _ in shapes[1:]]
    size = _lay_out([places[LAYER], places[PRODUCT, 1:], places[FORCE]], [shapes, products, [(d, d)] * 3 + [(m, d)]])
    places[PRODUCT, 0] = places[LAYER, 0]
    above, below = [(m, rows) for rows, _ in shapes], [(columns, d) for _, columns in shapes]
    return places, size, _lay_out([places[ABOVE], places[BELOW], places[SHARE]], [above, below, [(m, d)]])


def _lay_out(tables: Iterable[np.ndarray], shapes: Iterable[Sequence[tuple[int, int]]]) -> int:
    """Fill tables of starts, rows and columns for matrices one behind the other, and return where they end."""
    size = 0
    for table, some in zip(tables, shapes, strict=True):
        for place, (rows, columns) in zip(table, some, strict=False):
            place[:] = size, rows, columns
            size += rows * columns
    return size


@compiled
def fill_point(y: np.ndarray, terms: Terms, point: np.ndarray, velocity: np.ndarray) -> None:
    """Compute everything at y, and the velocity there.

    Args:
        y: All weights.
        terms: The flow.
        point: Is filled.
        velocity: Is filled: dW_l / dt = (W_L ... W_{l+1})^T Y (W_{l-1} ... W_1)^T - weight decay.
    """
    places, depth = terms.places, terms.depth
    for i in range(len(y)):
        point[i] = y[i]
    for i in range(1, depth):
        layer, below = _matrix(point, places[LAYER, i]), _matrix(point, places[PRODUCT, i - 1])
        np.dot(layer, below, _matrix(point, places[PRODUCT, i]))
    product, from_above = _matrix(point, places[PRODUCT, depth - 1]), _matrix(point, places[FORCE, Y])
    _fill_force(product, terms, point)
    np.dot(product, _matrix(point, places[FORCE, X]), from_above)
    for i in range(depth - 1, 0, -1):
        np.dot(from_above, _matrix(point, places[PRODUCT, i - 1]).T, _matrix(velocity, places[LAYER, i]))
        from_above = np.dot(_matrix(point, places[LAYER, i]).T, from_above)
    _copy(from_above, _matrix(velocity, places[LAYER, 0]))
    if terms.weight_decay > 0:
        for i in range(len(y)):
            velocity[i] -= terms.weight_decay * y[i]


@inlined
def _fill_force(product: np.ndarray, terms: Terms, point: np.ndarray) -> None:
    force, k1, k2 = (
        _matrix(point, terms.places[FORCE, X]),
        _matrix(point, terms.places[FORCE, K1]),
        _matrix(point, terms.places[FORCE, K2]),
    )
    if terms.quartic:
        seen = np.dot(product, terms.factor)
        np.dot(seen.T, seen, force)
        for i in range(len(force)):
            for j in range(len(force)):
                force[i, j] = terms.constant[i, j] - terms.repulsion * force[i, j]
                k1[i, j], k2[i, j] = terms.repulsion / 2 * terms.factor[i, j], terms.factor[i, j]
        return
    # N_q = S_e^(1/2) (1 + K)^-q S_e^(1/2) with K = S_e^(1/2) P^T P S_e^(1/2).
    seen = _times(product, terms.factor)
    np.dot(seen.T, seen, k1)
    for i in range(len(k1)):
        k1[i, i] += 1
    if _finite(k1):
        _copy(np.linalg.inv(k1).T, k1)  # symmetric; numba has it by columns
    else:  # which numba's inverse refuses
        k1[:] = np.nan
    half = _times(k1, terms.factor)
    _copy(_times(np.ascontiguousarray(half.T), terms.factor), k1)
    np.dot(half.T, half, k2)
    # X = N_1 + N_2 - A_e, and N_1 G (N_1 + N_2) + N_2 G N_1 is twice the symmetric part of N_1 G (N_1 / 2 + N_2).
    for i in range(len(force)):
        for j in range(len(force)):
            force[i, j] = k1[i, j] + k2[i, j] + terms.constant[i, j]
            k2[i, j] += k1[i, j] / 2


@compiled
def fill_derivative(direction: np.ndarray, terms: Terms, point: np.ndarray, derivative: np.ndarray) -> None:
    """Compute the change of the velocity along a direction: the product rule, term by term.

    Args:
        direction: All entries of V_1, ..., V_L.
        terms: The flow.
        point: Where.
        derivative: Is filled.
    """
    places, depth = terms.places, terms.depth
    changes = np.empty(places[FORCE, 0, 0])  # of the layers and their products
    _copy(_matrix(direction, places[LAYER, 0]), _matrix(changes, places[LAYER, 0]))
    for i in range(1, depth):
        change = _matrix(changes, places[PRODUCT, i])
        np.dot(_matrix(direction, places[LAYER, i]), _matrix(point, places[PRODUCT, i - 1]), change)
        _add(np.dot(_matrix(point, places[LAYER, i]), _matrix(changes, places[PRODUCT, i - 1])), change)
    product, change = _matrix(point, places[PRODUCT, depth - 1]), _matrix(changes, places[PRODUCT, depth - 1])
    force, from_above = _matrix(point, places[FORCE, X]), _matrix(point, places[FORCE, Y])
    d_above = np.dot(product, _derivative_of_force(np.dot(change.T, product), terms, point))
    _add(np.dot(change, force), d_above)
    for i in range(depth - 1, 0, -1):
        layer, v = _matrix(point, places[LAYER, i]), _matrix(direction, places[LAYER, i])
        result = _matrix(derivative, places[LAYER, i])
        np.dot(d_above, _matrix(point, places[PRODUCT, i - 1]).T, result)
        _add(np.dot(from_above, _matrix(changes, places[PRODUCT, i - 1]).T), result)
        d_above = np.dot(layer.T, d_above)
        _add(np.dot(v.T, from_above), d_above)
        from_above = np.dot(layer.T, from_above)
    _copy(d_above, _matrix(derivative, places[LAYER, 0]))
    if terms.weight_decay > 0:
        for i in range(len(direction)):
            derivative[i] -= terms.weight_decay * direction[i]


@inlined
def _derivative_of_force(gram: np.ndarray, terms: Terms, point: np.ndarray) -> np.ndarray:
    """The change of the force, -(K1 G K2 + K2 G K1), for G = gram + gram^T."""
    _symmetrise(gram, 1.0)
    change = np.dot(np.dot(_matrix(point, terms.places[FORCE, K1]), gram), _matrix(point, terms.places[FORCE, K2]))
    _symmetrise(change, -1.0)
    return change


@compiled
def almost_diagonal(terms: Terms, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric matrices (m, m) and (d, d) in whose eigenbases the stiff part of J is almost diagonal."""
    places, depth = terms.places, terms.depth
    if depth == 1:  # of one layer J is H itself
        product = _matrix(point, places[LAYER, 0])
        part = np.dot(product, _matrix(point, places[FORCE, K1]))
        return np.dot(part, product.T), _matrix(point, places[FORCE, X])
    above, below = _matrix(point, places[LAYER, depth - 1]), _matrix(point, places[PRODUCT, depth - 2])
    for i in range(depth - 2, 0, -1):
        above = np.dot(above, _matrix(point, places[LAYER, i]))
    return np.dot(above, above.T), np.dot(below.T, below)


@compiled
def fill_bases(left: np.ndarray, right: np.ndarray, terms: Terms, point: np.ndarray, bases: np.ndarray) -> None:
    """Compute what `places` calls ABOVE and BELOW, and for SHARE the diagonal of H in these bases.

    Args:
        left: U^T (m, m), whose rows are the eigenvectors of the first matrix of `almost_diagonal`.
        right: V (d, d), whose columns are those of the second.
        terms: The flow.
        point: Where.
        bases: Is filled.
    """
    places, depth = terms.places, terms.depth
    for i in range(depth - 1, -1, -1):
        above, below = _matrix(bases, places[ABOVE, i]), _matrix(bases, places[BELOW, i])
        if i == depth - 1:
            _copy(left, above)
        else:
            np.dot(_matrix(bases, places[ABOVE, i + 1]), _matrix(point, places[LAYER, i + 1]), above)
        if i == 0:
            _copy(right, below)
        else:
            np.dot(_matrix(point, places[PRODUCT, i - 1]), right, below)
    product = np.dot(_matrix(point, places[PRODUCT, depth - 1]).T, left.T)
    force, k1, k2 = (
        _matrix(point, places[FORCE, X]),
        _matrix(point, places[FORCE, K1]),
        _matrix(point, places[FORCE, K2]),
    )
    rates, of_force = _matrix(bases, places[SHARE, 0]), _diagonal(np.dot(force, right), right)
    left_1, right_1 = _diagonal(np.dot(k1, product), product), _diagonal(np.dot(k1, right), right)
    left_2, right_2 = _diagonal(np.dot(k2, product), product), _diagonal(np.dot(k2, right), right)
    for i in range(rates.shape[0]):
        for j in range(rates.shape[1]):  # without the terms that exchange two modes
            rates[i, j] = of_force[j] - left_1[i] * right_2[j] - left_2[i] * right_1[j]


@compiled
def fill_share(terms: Terms, gamma: float, bases: np.ndarray) -> float:
    """Turn the diagonal of H into shares.

    Args:
        terms: The flow.
        gamma: At least 0.
        bases: As `fill_bases` leaves them; SHARE is changed.

    Returns:
        The largest share of -gamma J along a mode.
    """
    places, share, largest = terms.places, _matrix(bases, terms.places[SHARE, 0]), 0.0
    gram = np.zeros(share.shape)
    for i in range(terms.depth):
        above, below = _matrix(bases, places[ABOVE, i]), _matrix(bases, places[BELOW, i])
        sizes, beside = _diagonal(above.T, above.T), _diagonal(below, below)
        for j in range(share.shape[0]):
            for k in range(share.shape[1]):
                gram[j, k] += sizes[j] * beside[k]
    gamma /= 1 + gamma * terms.weight_decay
    for j in range(share.shape[0]):
        for k in range(share.shape[1]):
            # Directions along which the flow runs away need no damping, and 1 - gamma h could be 0.
            rate = min(gamma * share[j, k], 0.0)
            largest = max(largest, -rate * gram[j, k])
            share[j, k] = rate / (1 - rate * gram[j, k])
    return largest


@compiled
def fill_solution(given: np.ndarray, terms: Terms, gamma: float, bases: np.ndarray, solution: np.ndarray) -> None:
    """Apply the approximation of (1 - gamma J)^-1 to a vector.

    Args:
        given: The vector.
        terms: The flow.
        gamma: As `fill_bases` had it.
        bases: What that filled.
        solution: Is filled.
    """
    places, share = terms.places, _matrix(bases, terms.places[SHARE, 0])
    change = np.zeros(share.shape)
    for i in range(terms.depth):
        part = np.dot(_matrix(bases, places[ABOVE, i]), _matrix(given, places[LAYER, i]))
        _add(np.dot(part, _matrix(bases, places[BELOW, i])), change)
    for i in range(share.shape[0]):
        for j in range(share.shape[1]):
            change[i, j] *= share[i, j]
    for i in range(terms.depth):
        part = np.dot(_matrix(bases, places[ABOVE, i]).T, change)
        np.dot(part, _matrix(bases, places[BELOW, i]).T, _matrix(solution, places[LAYER, i]))
    for i in range(len(given)):
        solution[i] = (given[i] + solution[i]) / (1 + gamma * terms.weight_decay)


@inlined
def _matrix(flat: np.ndarray, place: np.ndarray) -> np.ndarray:
    start, rows, columns = place[0], place[1], place[2]
    return flat[start : start + rows * columns].reshape((rows, columns))


@inlined
def _copy(matrix: np.ndarray, copy: np.ndarray) -> None:
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            copy[i, j] = matrix[i, j]


@inlined
def _add(matrix: np.ndarray, total: np.ndarray) -> None:
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            total[i, j] += matrix[i, j]


@inlined
def _symmetrise(matrix: np.ndarray, share: float) -> None:
    """Replace a matrix by a share of its sum with its transpose."""
    for i in range(len(matrix)):
        for j in range(i + 1):
            matrix[i, j] = matrix[j, i] = share * (matrix[i, j] + matrix[j, i])


@inlined
def _diagonal(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Diagonal of one^T other."""
    found = np.zeros(one.shape[1])
    for i in range(len(one)):
        for j in range(one.shape[1]):
            found[j] += one[i, j] * other[i, j]
    return found


@inlined
def _finite(matrix: np.ndarray) -> bool:
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            if not np.isfinite(matrix[i, j]):
                return False
    return True


@inlined
def _times(matrix: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Product with a matrix, or with the diagonal matrix whose diagonal is the only row of a factor."""
    if len(factor) > 1:
        return np.dot(matrix, factor)
    product = np.empty(matrix.shape)
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            product[i, j] = matrix[i, j] * factor[0, j]
    return product
