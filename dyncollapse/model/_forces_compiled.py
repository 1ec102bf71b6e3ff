"""Force X of Eq. 2 and of the dot-product loss, its derivative and the loss, compiled for the CPU.

Each makes one pass over the n x n softmax weights. `forces.infonce_force`, `forces.mean_force_along` and `losses` are
the readable forms; tests/model/test_forces_compiled.py holds them equal. Functions are in one file because numba
notices the changes of one.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from dyncollapse.runtime.compiled import compiled, inlined

LOG2_E = 1 / math.log(2)
# Taylor coefficients of 2^r for |r| <= 1/2, as many as round-off asks for.
A1, A2, A3, A4, A5, A6, A7, A8, A9, A10, A11, A12 = (math.log(2) ** k / math.factorial(k) for k in range(1, 13))
S1, S2, S3, S4, S5, S6, S7 = (np.float32(a) for a in (A1, A2, A3, A4, A5, A6, A7))
ONE = np.float32(1)
# Powers of 2 below the smallest normal number count as 0, and those beyond 2^MOST as that: n of them can be added up.
LEAST, MOST = -1022.0, 960.0
LEAST_32, MOST_32 = np.float32(-126), np.float32(96)
# Softmax weights that are held at a time: some rows of them, in a core's own cache.
HELD = 2**15
# Multiplications in one product. OpenBLAS, which SciPy brings, shares larger ones among threads, and where other work
# keeps a core busy they wait for each other: one force then took seconds.
ALONE = 2**18


@intrinsic
def whole_power(_typing, exponent):  # type: ignore[no-untyped-def]
    """2^k for a whole number k within reach: k, in the bits of a number's exponent."""
    whole, real, bias, place = ir.IntType(64), ir.DoubleType(), 1023, 52
    if exponent == types.float32:
        whole, real, bias, place = ir.IntType(32), ir.FloatType(), 127, 23

    def made(_context: Any, builder: Any, _signature: Any, given: Any) -> Any:
        biased = builder.add(builder.fptosi(given[0], whole), ir.Constant(whole, bias))
        return builder.bitcast(builder.shl(biased, ir.Constant(whole, place)), real)

    return exponent(exponent), made


def power_of_2(x):  # type: ignore[no-untyped-def]
    """2^x for x from LEAST to MOST, 0 for all that is 1 less, 2^MOST for all that is more, and NaN for NaN."""
    return np.exp2(x)


@overload(power_of_2, jit_options={"forceinline": True})
def by_series(x):  # type: ignore[no-untyped-def]
    """A polynomial, of which numba makes vector instructions; it does not do so with a library's function."""
    return power_64 if x == types.float64 else power_32


def power_64(x):  # type: ignore[no-untyped-def]
    """2^x = 2^k 2^r with k the nearest whole number."""
    within = min(max(x, LEAST - 1), MOST)  # the bits of the least power are those of 0; NaN stays NaN
    k = np.rint(within)
    r = within - k
    p = ((((A12 * r + A11) * r + A10) * r + A9) * r + A8) * r + A7
    p = ((((((p * r + A6) * r + A5) * r + A4) * r + A3) * r + A2) * r + A1) * r + 1.0
    return p * whole_power(k)


def power_32(x):  # type: ignore[no-untyped-def]
    """`power_64` in single precision."""
    within = min(max(x, LEAST_32 - ONE), MOST_32)
    k = np.rint(within)
    r = within - k
    p = ((((((S7 * r + S6) * r + S5) * r + S4) * r + S3) * r + S2) * r + S1) * r + ONE
    return p * whole_power(k)


@inlined
def multiply(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Write a b to `out`, some rows at a time."""
    rows = max(1, ALONE // max(1, b.size))
    for start in range(0, len(a), rows):
        np.dot(a[start : start + rows], b, out[start : start + rows])


@inlined
def multiply_transposed(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Write a^T b to `out`, the sum of products of some rows at a time."""
    rows = max(1, ALONE // max(1, out.size))
    np.dot(a[:rows].T, b[:rows], out)
    for start in range(rows, len(a), rows):
        out += np.dot(a[start : start + rows].T, b[start : start + rows])


@inlined
def transposed(matrix: np.ndarray) -> np.ndarray:
    """A copy of a matrix (n, m) as (m, n): OpenBLAS takes up to 1.7 times as long for a small A B^T as for A B."""
    out = np.empty((matrix.shape[1], matrix.shape[0]), matrix.dtype)
    for k in range(matrix.shape[1]):
        for i in range(matrix.shape[0]):
            out[k, i] = matrix[i, k]
    return out


@inlined
def powers_of_logits(
    e: np.ndarray,
    start: int,
    logits: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    found: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Fill rows of e with powers of 2 of their logits less that of the positive, and with 0 for the positive itself.

    The positive's power is then 1, beside which no digit of the negatives' sum is lost. Where the sum reaches 2^MOST,
    the largest logit takes the positive's place.

    Loops take no rows out of arrays: numba would count references to each row, which took a quarter of a force's time.

    Args:
        e: Rows from `start` on (at most held, n), overwritten.
        start: The first row.
        logits: rows (n, m), columns (m, n), shift (n,) and positive (n,) of `softmax_sums`, its columns transposed.
        found: Arrays (held,) for the positive's power, the sum of the others, and the logit that was subtracted.
    """
    rows, columns, shift, positive = logits
    own, total, subtracted = found
    np.dot(rows[start : start + len(e)], columns, e)
    for i in range(len(e)):
        e[i, start + i] = e.dtype.type(-np.inf)
    for i in range(len(e)):
        less, others = positive[start + i], e.dtype.type(0)
        for j in range(e.shape[1]):
            power = power_of_2(e[i, j] + (shift[j] - less))
            others += power
            e[i, j] = power
        own[i], total[i], subtracted[i] = e.dtype.type(1), others, less
    for i in range(len(e)):
        if not total[i] < power_of_2(e.dtype.type(np.inf)):  # others may overflow beside the positive; or NaN
            own[i], total[i], subtracted[i] = against_the_largest(e, i, start + i, logits)


@inlined
def against_the_largest(
    e: np.ndarray, i: int, at: int, logits: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
) -> tuple[float, float, float]:
    """Do the same for row `at`, which is row i of e, with the largest logit, from the beginning."""
    rows, columns, shift, positive = logits
    largest, total = positive[at], e.dtype.type(0)
    for j in range(e.shape[1]):
        e[i, j] = shift[j]
    for k in range(rows.shape[1]):
        for j in range(e.shape[1]):
            e[i, j] += rows[at, k] * columns[k, j]
    for j in range(e.shape[1]):
        largest = max(largest, positive[at] if j == at else e[i, j])
    for j in range(e.shape[1]):
        e[i, j] = power_of_2(e[i, j] - largest)
        total += e.dtype.type(0) if j == at else e[i, j]
    e[i, at] = e.dtype.type(0)
    return power_of_2(positive[at] - largest), total, largest


@inlined
def softmax_sums(
    rows: np.ndarray,
    columns: np.ndarray,
    shift: np.ndarray,
    positive: np.ndarray,
    y: np.ndarray,
    sums: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Write row sums r and column sums c of B, and B y, where B has the softmax weights and zeros for the positives.

    Args:
        rows: (n, m).
        columns: (n, m). The logits, to base 2, are rows_i . columns_j + shift_j.
        shift: (n,).
        positive: Logits of the positives (n,), in place of those with i = j.
        y: (n, d).
        sums: Arrays for r (n,), c (n,) and B y (n, d).
    """
    r, c, by = sums
    n, logits = len(rows), (rows, transposed(columns), shift, positive)
    zero, one, tiny = rows.dtype.type(0), rows.dtype.type(1), np.finfo(rows.dtype).tiny
    held = rows_held(n, max(rows.shape[1], y.shape[1]))
    weights = np.empty((held, n), rows.dtype)
    own, total, subtracted = np.empty(held, rows.dtype), np.empty(held, rows.dtype), np.empty(held, rows.dtype)
    c[:] = 0
    for start in range(0, n, held):
        stop = min(n, start + held)
        e = weights[: stop - start]
        powers_of_logits(e, start, logits, (own, total, subtracted))
        for i in range(len(e)):
            share, least = one / (total[i] + own[i]), tiny * (total[i] + own[i])
            r[start + i] = total[i] * share
            for j in range(n):
                weight = (zero if e[i, j] < least else e[i, j]) * share  # subnormal ones would be slow
                e[i, j] = weight
                c[j] += weight
        np.dot(e, y, by[start:stop])


@inlined
def softmax_sums_along(
    logits: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    changes: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    y: np.ndarray,
    sums: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Write the derivatives of what `softmax_sums` writes, for given derivatives of the logits.

    Those of a row count against that of its positive. Their mean is then a sum over negatives, which keeps its digits
    where the positive has nearly all of the weight.

    Args:
        logits: rows (n, m), columns (n, m), shift (n,) and positive (n,) of `softmax_sums`.
        changes: Derivatives of the logits, to base e, in the same form: rows and columns (n, k), shift and positive.
        y: (n, d).
        sums: Arrays for dr (n,), dc (n,) and dB y (n, d).
    """
    (rows, columns, shift, positive), (left, right, change, own_change) = logits, changes
    turned, across = (rows, transposed(columns), shift, positive), transposed(right)
    dr, dc, dby = sums
    n, kind = len(left), left.dtype
    zero, one, tiny = kind.type(0), kind.type(1), np.finfo(kind).tiny
    held = rows_held(n, max(left.shape[1], y.shape[1]))
    weights, tilts = np.empty((held, n), kind), np.empty((held, n), kind)
    own, total, subtracted = np.empty(held, kind), np.empty(held, kind), np.empty(held, kind)
    dc[:] = 0
    for start in range(0, n, held):
        stop = min(n, start + held)
        e, t = weights[: stop - start], tilts[: stop - start]
        powers_of_logits(e, start, turned, (own, total, subtracted))
        np.dot(left[start:stop], across, t)
        for i in range(len(e)):
            share, least = one / (total[i] + own[i]), tiny * (total[i] + own[i])
            mean, less = zero, own_change[start + i]
            for j in range(n):
                t[i, j] += change[j] - less
                weight = (zero if e[i, j] < least else e[i, j]) * share
                e[i, j] = weight
                mean += weight * t[i, j]
            dr[start + i] = mean * own[i] * share
            for j in range(n):
                e[i, j] *= t[i, j] - mean
                dc[j] += e[i, j]
        np.dot(e, y, dby[start:stop])


@inlined
def cross_entropy(rows: np.ndarray, columns: np.ndarray, shift: np.ndarray, positive: np.ndarray) -> float:
    """Mean over i of the logarithm of 1 over the positive's softmax weight; arguments as of `softmax_sums`."""
    n, mean, logits = len(rows), rows.dtype.type(0), (rows, transposed(columns), shift, positive)
    held = rows_held(n, rows.shape[1])
    weights = np.empty((held, n), rows.dtype)
    own, total, subtracted = np.empty(held, rows.dtype), np.empty(held, rows.dtype), np.empty(held, rows.dtype)
    for start in range(0, n, held):
        e = weights[: min(n, start + held) - start]
        powers_of_logits(e, start, logits, (own, total, subtracted))
        for i in range(len(e)):
            if own[i] == 1:  # where the positive has all of the weight, 1 + total would round off
                mean += math.log1p(total[i])
            else:
                mean += math.log(own[i] + total[i]) + (subtracted[i] - positive[start + i]) / LOG2_E
    return mean / n


@inlined
def rows_held(n: int, width: int) -> int:
    """How many rows of n softmax weights are held at a time, and multiplied by matrices of this width."""
    return max(1, min(n, HELD // n, ALONE // (n * width)))


@inlined
def add_transposed(h: np.ndarray, rate: float, force: np.ndarray) -> None:
    """Write rate (H + H^T), (d, d), to `force`, and zeros to its row and column beyond, if it has these."""
    d = len(h)
    for i in range(d):
        for j in range(d):
            force[i, j] = rate * (h[i, j] + h[j, i])
    for i in range(len(force)):
        for j in range(d, len(force)):
            force[i, j] = force[j, i] = h.dtype.type(0)


@inlined
def copy_columns(product: np.ndarray, weights: np.ndarray, offset: np.ndarray) -> None:
    """Copy the columns that belong to inputs, as rows (d, m), and the offset behind them if it is asked for."""
    for j in range(weights.shape[0]):
        for k in range(weights.shape[1]):
            weights[j, k] = product[k, j]
    for k in range(len(offset)):
        offset[k] = product[k, weights.shape[0]]


@inlined
def place_points(x: np.ndarray, x_pos: np.ndarray, first: int, points: np.ndarray) -> None:
    """Fill rows with centred anchors, shifts to the positives and, from row `first` on, centred negatives."""
    n, d = x.shape
    centre = np.zeros(d, x.dtype)
    for i in range(n):
        for k in range(d):
            centre[k] += x[i, k]
    centre /= x.dtype.type(n)
    for i in range(n):
        for k in range(d):
            points[n + i, k] = x_pos[i, k] - x[i, k]
            points[first + i, k] = x_pos[i, k] - centre[k]
            points[i, k] = x[i, k] - centre[k]  # once more where the anchors are the negatives


@inlined
def fill_distances(z: np.ndarray, first: int, rows: np.ndarray, positive: np.ndarray, down: np.ndarray) -> None:
    """Fill what `softmax_sums` asks for from embeddings of the points: logits -|z_i - y_j|^2 / 2, plus |z_i|^2 / 2."""
    n, half, scale = len(rows), z.dtype.type(0.5), z.dtype.type(LOG2_E)
    for i in range(n):
        own, far, other = z.dtype.type(0), z.dtype.type(0), z.dtype.type(0)
        for k in range(z.shape[1]):
            rows[i, k] = scale * z[i, k]
            own += z[i, k] * z[i, k]
            far += z[n + i, k] * z[n + i, k]
            other += z[first + i, k] * z[first + i, k]
        positive[i] = half * scale * (own - far)
        down[i] = -half * scale * other


@inlined
def weigh_points(
    points: np.ndarray, first: int, sums: tuple[np.ndarray, np.ndarray, np.ndarray], weighted: np.ndarray
) -> None:
    """Write r x - 2 B y of anchors x, -r s of shifts s and c y of negatives y, each in its place among the points."""
    r, c, by = sums
    n, d = by.shape
    for i in range(n):
        own = c[i] + r[i] if first == 0 else r[i]  # anchors that are the negatives
        for k in range(d):
            weighted[first + i, k] = c[i] * points[first + i, k]
        for k in range(d):
            weighted[i, k] = own * points[i, k] - (by[i, k] + by[i, k])
        for k in range(d):
            weighted[n + i, k] = -r[i] * points[n + i, k]


@inlined
def fill_changes_of_distances(
    points: np.ndarray, turned: np.ndarray, first: int, shift: np.ndarray, positive: np.ndarray
) -> None:
    """Fill what `softmax_sums_along` asks for of logits -|z_i - y_j|^2 / 2 + |z_i|^2 / 2, besides x_i^T S y_j.

    S is the derivative of P^T P, and the points are `turned` by it.
    """
    n, half = len(shift), points.dtype.type(0.5)
    for i in range(n):
        own, far, other = points.dtype.type(0), points.dtype.type(0), points.dtype.type(0)
        for k in range(points.shape[1]):
            own += points[i, k] * turned[i, k]
            far += points[n + i, k] * turned[n + i, k]
            other += points[first + i, k] * turned[first + i, k]
        shift[i], positive[i] = -half * other, half * (own - far)


@compiled
def infonce_forces(products: np.ndarray, x: np.ndarray, x_pos: np.ndarray, one_sided: bool, forces: np.ndarray) -> None:
    """X = H + H^T with 2 n H = x^T (r x - 2 B y) + y^T c y - s^T r s, of centred anchors x, shifts s and negatives y.

    Anchors, shifts and, two-sided, negatives lie in one array, so that one product embeds them and one gives H.

    With products [P c] the network adds an offset c: an input more, always 1, of which forces are known without sums
    over it. No offset moves Eq. 2.

    Args:
        products: P (b, m, d), or (1, m, d) for all batches, of one type with the other arrays; or [P c] (b, m, d + 1).
        x: Anchors (b, n, d).
        x_pos: Positives (b, n, d).
        one_sided: Whether the anchors are the negatives.
        forces: (b, d, d), overwritten; or (b, d + 1, d + 1).
    """
    count, n, d = x.shape
    first, last = (0, 2 * n) if one_sided else (2 * n, 3 * n)  # rows where the negatives begin and all end
    half, share = x.dtype.type(0.5), x.dtype.type(1 / n)
    points, weighted, h = np.empty((last, d), x.dtype), np.empty((last, d), x.dtype), np.empty((d, d), x.dtype)
    z, rows = np.empty((last, products.shape[1]), x.dtype), np.empty((n, products.shape[1]), x.dtype)
    weights, none = np.empty((d, products.shape[1]), x.dtype), np.empty(0, x.dtype)
    by, r, c = np.empty((n, d), x.dtype), np.empty(n, x.dtype), np.empty(n, x.dtype)
    positive, down = np.empty(n, x.dtype), np.empty(n, x.dtype)
    for q in range(count):
        place_points(x[q], x_pos[q], first, points)
        copy_columns(products[q % len(products)], weights, none)
        multiply(points, weights, z)
        fill_distances(z, first, rows, positive, down)
        y = points[first : first + n]
        softmax_sums(rows, z[first : first + n], down, positive, y, (r, c, by))
        weigh_points(points, first, (r, c, by), weighted)
        multiply_transposed(points, weighted, h)
        add_transposed(h, half * share, forces[q])


@compiled
def infonce_forces_along(
    products: np.ndarray, x: np.ndarray, x_pos: np.ndarray, one_sided: bool, changes: np.ndarray
) -> None:
    """Derivatives of `infonce_forces` along changes of P, of which they know S = P^T dP + dP^T P.

    The logits are functions of P^T P. H is linear in r, c and B y, so that it comes of their derivatives as the force
    comes of them.

    Args:
        products: P (b, m, d) over S (b, d, d), as one array (b, m + d, d) or (1, m + d, d); or, with an offset c, [P c]
            over its S, (b, m + d + 1, d + 1).
        x: Anchors (b, n, d).
        x_pos: Positives (b, n, d).
        one_sided: Whether the anchors are the negatives.
        changes: (b, d, d), overwritten; or (b, d + 1, d + 1).
    """
    (count, n, d), m = x.shape, products.shape[1] - products.shape[2]
    first, last = (0, 2 * n) if one_sided else (2 * n, 3 * n)
    half, share = x.dtype.type(0.5), x.dtype.type(1 / n)
    points, weighted, turned = np.empty((last, d), x.dtype), np.empty((last, d), x.dtype), np.empty((last, d), x.dtype)
    weights, metric, h = np.empty((d, m), x.dtype), np.empty((d, d), x.dtype), np.empty((d, d), x.dtype)
    z, rows, none = np.empty((last, m), x.dtype), np.empty((n, m), x.dtype), np.empty(0, x.dtype)
    positive, down = np.empty(n, x.dtype), np.empty(n, x.dtype)
    own, shift = np.empty(n, x.dtype), np.empty(n, x.dtype)
    sums = np.empty(n, x.dtype), np.empty(n, x.dtype), np.empty((n, d), x.dtype)
    for q in range(count):
        place_points(x[q], x_pos[q], first, points)
        copy_columns(products[q % len(products), :m], weights, none)
        copy_columns(products[q % len(products), m:], metric, none)  # S is symmetric
        multiply(points, weights, z)
        multiply(points, metric, turned)
        fill_distances(z, first, rows, positive, down)
        fill_changes_of_distances(points, turned, first, shift, own)
        y = points[first : first + n]
        softmax_sums_along((rows, z[first : first + n], down, positive), (turned[:n], y, shift, own), y, sums)
        weigh_points(points, first, sums, weighted)
        multiply_transposed(points, weighted, h)
        add_transposed(h, half * share, changes[q])


@compiled
def infonce_losses(products: np.ndarray, x: np.ndarray, x_pos: np.ndarray, one_sided: bool, losses: np.ndarray) -> None:
    """Eq. 2 on every batch, one number (b,) each; other arguments as of `infonce_forces`."""
    count, n, d = x.shape
    first, last = (0, 2 * n) if one_sided else (2 * n, 3 * n)
    points, z = np.empty((last, d), x.dtype), np.empty((last, products.shape[1]), x.dtype)
    weights, none = np.empty((d, products.shape[1]), x.dtype), np.empty(0, x.dtype)
    rows, positive, down = np.empty((n, products.shape[1]), x.dtype), np.empty(n, x.dtype), np.empty(n, x.dtype)
    for q in range(count):
        place_points(x[q], x_pos[q], first, points)
        copy_columns(products[q % len(products)], weights, none)
        multiply(points, weights, z)
        fill_distances(z, first, rows, positive, down)
        losses[q] = cross_entropy(rows, z[first : first + n], down, positive)


@inlined
def embed(x: np.ndarray, weights: np.ndarray, offset: np.ndarray, z: np.ndarray) -> None:
    """Write the embeddings of x (n, d) under weights (d, m) to z; the offset is (m,), or empty."""
    multiply(x, weights, z)
    if len(offset):
        for i in range(len(z)):
            for k in range(z.shape[1]):
                z[i, k] += offset[k]


@inlined
def fill_dots(z: np.ndarray, z_pos: np.ndarray, temperature: float, rows: np.ndarray, positive: np.ndarray) -> None:
    """Fill what `softmax_sums` asks for: logits z_i . y_j / temperature."""
    scale = z.dtype.type(LOG2_E / temperature)
    for i in range(len(z)):
        own = z.dtype.type(0)
        for k in range(z.shape[1]):
            rows[i, k] = scale * z[i, k]
            own += rows[i, k] * z_pos[i, k]
        positive[i] = own


@compiled
def dot_losses(
    products: np.ndarray, x: np.ndarray, x_pos: np.ndarray, one_sided: bool, temperature: float, losses: np.ndarray
) -> None:
    """The dot-product loss on every batch, one number (b,) each; other arguments as of `dot_forces`."""
    (count, n, d), m = x.shape, products.shape[1]
    weights, offset = np.empty((d, m), x.dtype), np.empty(m * (products.shape[2] - d), x.dtype)
    z, z_pos = np.empty((n, m), x.dtype), np.empty((n, m), x.dtype)
    rows, positive, none = np.empty(z.shape, x.dtype), np.empty(n, x.dtype), np.zeros(n, x.dtype)
    for q in range(count):
        copy_columns(products[q % len(products)], weights, offset)
        embed(x[q], weights, offset, z)
        embed(x_pos[q], weights, offset, z_pos)
        fill_dots(z, z_pos, temperature, rows, positive)
        losses[q] = cross_entropy(rows, z if one_sided else z_pos, none, positive)


@inlined
def pull_apart(x: np.ndarray, x_pos: np.ndarray, r: np.ndarray, by: np.ndarray, sums: np.ndarray) -> None:
    """Turn B y into B y - r x', and write the sums of its rows."""
    sums[:] = 0
    for i in range(len(x)):
        for k in range(x.shape[1]):
            by[i, k] -= r[i] * x_pos[i, k]
            sums[k] += by[i, k]


@inlined
def add_offsets(sums: np.ndarray, rate: float, force: np.ndarray) -> None:
    """Write the row and the column of an input that is always 1, if the force has them."""
    d = len(sums)
    for j in range(d, len(force)):
        for k in range(d):
            force[j, k] = force[k, j] = rate * sums[k]


@compiled
def dot_forces(
    products: np.ndarray, x: np.ndarray, x_pos: np.ndarray, one_sided: bool, temperature: float, forces: np.ndarray
) -> None:
    """X = -(M + M^T) / (n temperature) with M = x^T (B y - r x'); arguments as of `infonce_forces`.

    Of an input that is always 1, M has the sums of the rows of B y - r x', and 0 in the corner.
    """
    (count, n, d), m, kind = x.shape, products.shape[1], x.dtype.type
    weights, offset = np.empty((d, m), x.dtype), np.empty(m * (products.shape[2] - d), x.dtype)
    rate, sums = kind(-1 / (n * temperature)), np.empty(d, x.dtype)
    z, z_pos = np.empty((n, m), x.dtype), np.empty((n, m), x.dtype)
    by, h, rows = np.empty((n, d), x.dtype), np.empty((d, d), x.dtype), np.empty(z.shape, x.dtype)
    r, c, positive, none = np.empty(n, x.dtype), np.empty(n, x.dtype), np.empty(n, x.dtype), np.zeros(n, x.dtype)
    for q in range(count):
        copy_columns(products[q % len(products)], weights, offset)
        embed(x[q], weights, offset, z)
        embed(x_pos[q], weights, offset, z_pos)
        fill_dots(z, z_pos, temperature, rows, positive)
        softmax_sums(rows, z if one_sided else z_pos, none, positive, x[q] if one_sided else x_pos[q], (r, c, by))
        pull_apart(x[q], x_pos[q], r, by, sums)
        multiply_transposed(x[q], by, h)
        add_transposed(h, rate, forces[q])
        add_offsets(sums, rate, forces[q])


@inlined
def fill_changes_of_dots(
    turned: np.ndarray, x_pos: np.ndarray, y: np.ndarray, offset: np.ndarray, shift: np.ndarray, positive: np.ndarray
) -> None:
    """Fill what `softmax_sums_along` asks for of logits z_i . y_j / temperature, besides the `turned` x_i^T S y_j.

    What the offset, S's last column, adds to all logits of a row is left out: it changes no weight.
    """
    for i in range(len(turned)):
        positive[i] = shift[i] = turned.dtype.type(0)
        for k in range(turned.shape[1]):
            positive[i] += turned[i, k] * x_pos[i, k]
        for k in range(len(offset)):
            positive[i] += offset[k] * x_pos[i, k]
            shift[i] += offset[k] * y[i, k]


@compiled
def dot_forces_along(
    products: np.ndarray, x: np.ndarray, x_pos: np.ndarray, one_sided: bool, temperature: float, changes: np.ndarray
) -> None:
    """Derivatives of `dot_forces` along changes of P; arguments as of `infonce_forces_along`."""
    (count, n, d), m, kind = x.shape, products.shape[1] - products.shape[2], x.dtype.type
    weights, offset = np.empty((d, m), x.dtype), np.empty(m * (products.shape[2] - d), x.dtype)
    metric, across = np.empty((d, d), x.dtype), np.empty(d * (products.shape[2] - d), x.dtype)
    rate, total, h = kind(-1 / (n * temperature)), np.empty(d, x.dtype), np.empty((d, d), x.dtype)
    z, z_pos, rows = np.empty((n, m), x.dtype), np.empty((n, m), x.dtype), np.empty((n, m), x.dtype)
    positive, none, turned = np.empty(n, x.dtype), np.zeros(n, x.dtype), np.empty((n, d), x.dtype)
    own, shift = np.empty(n, x.dtype), np.empty(n, x.dtype)
    dr, dc, dby = np.empty(n, x.dtype), np.empty(n, x.dtype), np.empty((n, d), x.dtype)
    for q in range(count):
        copy_columns(products[q % len(products), :m], weights, offset)
        copy_columns(products[q % len(products), m:], metric, across)
        metric *= kind(1 / temperature)
        across *= kind(1 / temperature)
        embed(x[q], weights, offset, z)
        embed(x_pos[q], weights, offset, z_pos)
        multiply(x[q], metric, turned)
        y = x[q] if one_sided else x_pos[q]
        fill_dots(z, z_pos, temperature, rows, positive)
        fill_changes_of_dots(turned, x_pos[q], y, across, shift, own)
        softmax_sums_along((rows, z if one_sided else z_pos, none, positive), (turned, y, shift, own), y, (dr, dc, dby))
        pull_apart(x[q], x_pos[q], dr, dby, total)
        multiply_transposed(x[q], dby, h)
        add_transposed(h, rate, changes[q])
        add_offsets(total, rate, changes[q])
