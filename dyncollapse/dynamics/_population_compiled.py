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

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from dyncollapse.runtime.compiled import compiled

LAYER, PRODUCT, FORCE, ABOVE, BELOW, SHARE = range(6)
X, K1, K2, Y = range(4)


class Terms(NamedTuple):
    """What a flow's velocity is made of.

    Attributes:
        places: Start, rows and columns of each matrix, by kind and number.
        depth: L.
        weight_decay: Its product with the weights is subtracted from the velocity.
        repulsion: r of X = X0 - r M P^T P M, the losses of fourth order; 0 for infonce.
        factor: M, or S_e^(1/2) for infonce. One row is the diagonal of a diagonal matrix, for infonce alone.
        constant: X0, or -A_e for infonce.
    """

    places: np.ndarray
    depth: int
    weight_decay: float
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


@compiled
def _fill_force(product: np.ndarray, terms: Terms, point: np.ndarray) -> None:
    force, k1, k2 = (
        _matrix(point, terms.places[FORCE, X]),
        _matrix(point, terms.places[FORCE, K1]),
        _matrix(point, terms.places[FORCE, K2]),
    )
    if terms.repulsion > 0:
        seen = np.dot(product, terms.factor)
        np.dot(seen.T, seen, force)
        for i in range(len(force)):
            for j in range(len(force)):
                force[i, j] = terms.constant[i, j] - terms.repulsion * force[i, j]
                k1[i, j], k2[i, j] = terms.repulsion / 2 * terms.factor[i, j], terms.factor[i, j]
        return
    # N_q = S_e^(1/2) (1 + K)^-q S_e^(1/2) with K = S_e^(1/2) P^T P S_e^(1/2).
    seen = _times(product, terms.factor)
    np.dot(seen.T, seen, force)
    _fill_inverse_of_1_and(force, k1)
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


@compiled
def _derivative_of_force(gram: np.ndarray, terms: Terms, point: np.ndarray) -> np.ndarray:
    """dX = -(K1 G K2 + K2 G K1) for G = gram + gram^T."""
    _symmetrise(gram, 1.0)
    change = np.dot(np.dot(_matrix(point, terms.places[FORCE, K1]), gram), _matrix(point, terms.places[FORCE, K2]))
    _symmetrise(change, -1.0)
    return change


@compiled
def fill_bases(terms: Terms, point: np.ndarray, gamma: float, bases: np.ndarray) -> float:
    """Prepare an approximation of (1 - gamma J)^-1 at a point, see `Point.preconditioner` of the tensors.

    Args:
        terms: The flow.
        point: Where.
        gamma: At least 0.
        bases: Is filled: what `places` calls ABOVE, BELOW and SHARE.

    Returns:
        By how much the most damped mode is damped; 0 for not at all.
    """
    places, depth = terms.places, terms.depth
    left, right = _eigenbases(terms, point)
    from_above, share = np.ascontiguousarray(left.T), _matrix(bases, places[SHARE, 0])
    gram = np.zeros(share.shape)
    for i in range(depth - 1, -1, -1):
        above, below = _matrix(bases, places[ABOVE, i]), _matrix(bases, places[BELOW, i])
        _copy(from_above, above)
        if i > 0:
            np.dot(_matrix(point, places[PRODUCT, i - 1]), right, below)
            from_above = np.dot(from_above, _matrix(point, places[LAYER, i]))
        else:
            _copy(right, below)
        _add_outer(
            _diagonal(above, above), _diagonal(np.ascontiguousarray(below.T), np.ascontiguousarray(below.T)), 1.0, gram
        )
    _fill_rates(left, right, terms, point, share)
    largest = 0.0
    gamma /= 1 + gamma * terms.weight_decay
    for i in range(share.shape[0]):
        for j in range(share.shape[1]):
            # Directions along which the flow runs away need no damping, and 1 - gamma h could be 0.
            rate = min(gamma * share[i, j], 0.0)
            largest = max(largest, -rate * gram[i, j])
            share[i, j] = rate / (1 - rate * gram[i, j])
    return largest


@compiled
def _eigenbases(terms: Terms, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvectors of symmetric matrices (m, m) and (d, d) in whose bases the stiff part of J is almost diagonal."""
    places, depth = terms.places, terms.depth
    if depth == 1:  # of one layer J is H itself
        product = _matrix(point, places[LAYER, 0])
        left = np.dot(np.dot(product, _matrix(point, places[FORCE, K1])), product.T)
        right = _matrix(point, places[FORCE, X])
    else:
        above, below = _matrix(point, places[LAYER, depth - 1]), _matrix(point, places[PRODUCT, depth - 2])
        for i in range(depth - 2, 0, -1):
            above = np.dot(above, _matrix(point, places[LAYER, i]))
        left, right = np.dot(above, above.T), np.dot(below.T, below)
    return np.linalg.eigh(left)[1], np.linalg.eigh(right)[1]


@compiled
def _fill_rates(left: np.ndarray, right: np.ndarray, terms: Terms, point: np.ndarray, rates: np.ndarray) -> None:
    """Diagonal of H (m, d) in these bases, without the terms that exchange two modes."""
    # Rows are the bases' vectors from here on.
    product = np.dot(left.T, _matrix(point, terms.places[PRODUCT, terms.depth - 1]))
    right = np.ascontiguousarray(right.T)
    force, k1, k2 = (
        _matrix(point, terms.places[FORCE, X]),
        _matrix(point, terms.places[FORCE, K1]),
        _matrix(point, terms.places[FORCE, K2]),
    )
    rates[:] = 0.0
    _add_outer(np.ones(len(rates)), _diagonal(right, np.dot(right, force)), 1.0, rates)
    along_1, along_2 = _diagonal(product, np.dot(product, k1)), _diagonal(product, np.dot(product, k2))
    _add_outer(along_1, _diagonal(right, np.dot(right, k2)), -1.0, rates)
    _add_outer(along_2, _diagonal(right, np.dot(right, k1)), -1.0, rates)


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


@compiled
def _matrix(flat: np.ndarray, place: np.ndarray) -> np.ndarray:
    start, rows, columns = place
    return flat[start : start + rows * columns].reshape((rows, columns))


@compiled
def _copy(matrix: np.ndarray, copy: np.ndarray) -> None:
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            copy[i, j] = matrix[i, j]


@compiled
def _add(matrix: np.ndarray, total: np.ndarray) -> None:
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            total[i, j] += matrix[i, j]


@compiled
def _add_outer(column: np.ndarray, row: np.ndarray, share: float, total: np.ndarray) -> None:
    for i in range(len(column)):
        for j in range(len(row)):
            total[i, j] += share * column[i] * row[j]


@compiled
def _symmetrise(matrix: np.ndarray, share: float) -> None:
    """Replace a matrix by a share of its sum with its transpose."""
    for i in range(len(matrix)):
        for j in range(i + 1):
            matrix[i, j] = matrix[j, i] = share * (matrix[i, j] + matrix[j, i])


@compiled
def _diagonal(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Diagonal of one @ other^T."""
    found = np.zeros(len(one))
    for i in range(len(one)):
        for j in range(one.shape[1]):
            found[i] += one[i, j] * other[i, j]
    return found


@compiled
def _times(matrix: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Product with a matrix, or with the diagonal matrix whose diagonal is the only row of a factor."""
    if len(factor) > 1:
        return np.dot(matrix, factor)
    product = np.empty(matrix.shape)
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            product[i, j] = matrix[i, j] * factor[0, j]
    return product


@compiled
def _fill_inverse_of_1_and(matrix: np.ndarray, inverse: np.ndarray) -> None:
    """(1 + M)^-1, all NaN for a matrix that is not finite, which numba's inverse refuses."""
    finite = True
    for i in range(len(matrix)):
        for j in range(len(matrix)):
            inverse[i, j] = matrix[i, j] + (i == j)
            finite = finite and np.isfinite(matrix[i, j])
    if finite:
        _copy(np.linalg.inv(inverse), inverse)
    else:
        inverse[:] = np.nan
