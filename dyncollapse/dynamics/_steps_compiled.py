"""A step of SGD of linear networks under known forces, compiled for NumPy arrays on a CPU.

`sgd.sgd_step` after `networks.layer_gradients` is the readable form; tests/dynamics/test_linear_steps.py holds
them equal. Sums over entries are loops, which numba compiles in no time.
"""

import numpy as np

from dyncollapse.runtime.compiled import compiled, inlined


@compiled
def descend(
    parameters: np.ndarray,
    momenta: np.ndarray,
    places: np.ndarray,
    forces: np.ndarray,
    rates: tuple[float, float, float],
    products: np.ndarray,
) -> None:
    """Take a step down the gradient -P X, pulled back to the layers (Lemma 3): v <- momentum v + dL/dw + decay w.

    Args:
        parameters: W_1, ..., W_L of each run (b, size), one behind the other, row by row.
        momenta: v (b, size), or (b, 0) without momentum.
        places: Start, rows, columns of each layer, and how many of its rows change (L, 4).
        forces: X (b, d, d).
        rates: Learning rate, momentum, weight decay.
        products: P (b, m, d) at these parameters; that at the new ones when it returns.
    """
    d, depth = products.shape[2], len(places)
    below = np.empty(_end_of(places, depth) * d, parameters.dtype)
    for run in range(len(parameters)):
        own = parameters[run]
        if depth > 1:
            _fill_below(own, places, below)
        pull = np.dot(products[run], forces[run])
        for i in range(depth - 1, 0, -1):
            pulled = np.dot(pull, _product(below, places, i - 1, d).T)
            pull = np.dot(_layer(own, places, i).T, pull)  # before the layer moves
            _move(own, momenta[run], pulled, places[i], rates)
        _move(own, momenta[run], pull, places[0], rates)
        _fill_below(own, places, below)
        _copy(_product(below, places, depth - 1, d), products[run])


@inlined
def _move(own: np.ndarray, momenta: np.ndarray, pulled: np.ndarray, place: np.ndarray, rates: tuple) -> None:
    """Change the rows of a layer that learn."""
    lr, momentum, decay = own.dtype.type(rates[0]), own.dtype.type(rates[1]), own.dtype.type(rates[2])
    for i in range(place[3]):
        for j in range(place[2]):
            at = place[0] + i * place[2] + j
            update = decay * own[at] - pulled[i, j]
            if len(momenta):
                update += momentum * momenta[at]
                momenta[at] = update
            own[at] -= lr * update


@inlined
def _fill_below(own: np.ndarray, places: np.ndarray, below: np.ndarray) -> None:
    """Fill W_l ... W_1 for every l."""
    d = places[0, 2]
    _copy(_layer(own, places, 0), _product(below, places, 0, d))
    for i in range(1, len(places)):
        np.dot(_layer(own, places, i), _product(below, places, i - 1, d), _product(below, places, i, d))


@inlined
def _layer(own: np.ndarray, places: np.ndarray, i: int) -> np.ndarray:
    start, rows, columns = places[i, 0], places[i, 1], places[i, 2]
    return own[start : start + rows * columns].reshape(rows, columns)


@inlined
def _product(below: np.ndarray, places: np.ndarray, i: int, d: int) -> np.ndarray:
    start, rows = _end_of(places, i) * d, places[i, 1]
    return below[start : start + rows * d].reshape(rows, d)


@inlined
def _end_of(places: np.ndarray, count: int) -> int:
    """How many rows the first layers have together."""
    rows = 0
    for i in range(count):
        rows += places[i, 1]
    return rows


@inlined
def _copy(matrix: np.ndarray, out: np.ndarray) -> None:
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = matrix[i, j]
