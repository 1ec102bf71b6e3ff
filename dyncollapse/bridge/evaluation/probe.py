"""Linear probes: how well a linear classifier separates the classes in a frozen encoder's representation."""

import math
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from dyncollapse.diagnostics.conversion import Rows, as_rows
from dyncollapse.runtime.settings import SettingError

# scikit-learn's fastest solver on such features, and more steps than it needs.
SOLVER, ITERATIONS = "newton-cg", 1000
# C where none can be chosen: scikit-learn's own.
STRENGTH = 1.0
# C to choose from: half decades. For 10 000 natural images and 512 dimensions, 0.03 to 0.1 was best.
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
# Tried next, one by one, while the weakest decay is best: collapsed representations need large weights.
WEAKER = (30.0, 100.0, 300.0, 1000.0)
TOLERANCE = 1e-4  # largest gradient at the end of a fit, scikit-learn's own; beyond C = 1, divided by C
HELD_OUT = 5  # one training image of so many is held out to choose C, and a class needs as many
# The same of the search, below what a step of the grid changes. Up to C = 10, fits in float32 classify the held-out
# images as in float64, in half the time.
SEARCH_TOLERANCE, FLOAT32_TO = 1e-5, 10.0
CHOSEN, GIVEN, DEFAULT = "held-out fifth", "given", f"default: a class has fewer than {HELD_OUT} training images"

MEAN_VARIANCE = "centred, over the root of their mean variance"
CONSTANT = "the representations do not vary, or are not finite; there is nothing to probe"

Features = Float[np.ndarray, "n d"]
Classes = Shaped[np.ndarray, " n"]
# `bool` for `at_edge` and `augmented` is a float to mypy.
Settings = dict[str, float | str | list[float]]


@dataclass(frozen=True)
class Probed:
    """A linear probe's result.

    Attributes:
        method: "logistic" or "sgd".
        dimensions: Dimensions of the representation that the probe used, from the first.
        of: Dimensions of the representation.
        top1: Accuracy on the test images, in percent.
        error: Standard error of `top1` from the number of test images, in percent.
        train_top1: Accuracy on the training images, in percent.
        train: Number of training images.
        test: Number of test images that could be read.
        seed: Seed of the order of images and of views, or of the images that are held out.
        settings: Training settings. Of a logistic probe: the inverse strength of its decay `C`, and how it was found,
            `C_from`. If it was chosen on held-out images, also the `grid`, the accuracy on the held-out images for
            each of its values, `held_out_top1`, in percent, and whether C is the first or last value, `at_edge`.

    Examples:
        >>> import torch
        >>> r, labels = torch.eye(4), torch.tensor([0, 0, 1, 1])
        >>> probed = logistic_probe((r, labels), (r, labels), subvector=3)
        >>> probed.dimensions, probed.of, probed.as_dict()["test"]
        (3, 4, 4)
    """

    method: str
    dimensions: int
    of: int
    top1: float
    error: float
    train_top1: float
    train: int
    test: int
    seed: int
    settings: Settings

    def as_dict(self) -> dict[str, object]:
        """The result as plain JSON values."""
        return asdict(self)


def logistic_probe(
    train: tuple[Rows, Rows],
    test: tuple[Rows, Rows],
    subvector: int | None = None,
    *,
    strength: float | None = None,
) -> Probed:
    """Fit scikit-learn's multinomial logistic regression with L2 decay to representations of plain images.

    Features are centred and divided by a single number, the root of their mean variance. Scaling each dimension by its
    own standard deviation would enlarge collapsed dimensions.

    C is the inverse strength of the decay: the loss is the squared norm of the weights, halved, plus C times the sum of
    the cross-entropy over images. It is chosen by the accuracy on a fifth of the training images, the same in every
    call, drawn from each class alike; the probe is then fitted to all of them. Half decades from 1e-4 to 10 are tried,
    and up to 1000 while the largest is best. If a class has fewer than 5 training images, C is 1.

    Args:
        train: Representations (n, d) and classes (n,) to train on, as tensors or NumPy arrays.
        test: Representations (m, d) and classes (m,) to test on.
        subvector: Dimensions to use, from the first; None for all.
        strength: C; None to choose it.

    Returns:
        Accuracies and settings.

    Raises:
        SettingError: If the training images have a single class, if `subvector` exceeds the representation, or if
            `strength` is not positive.
        ValueError: If the representations do not vary or are not finite.

    Examples:
        >>> import torch
        >>> r, labels = torch.tensor([[0.0, 1.0], [0.0, 2.0], [1.0, 1.0], [1.0, 2.0]]), torch.tensor([0, 0, 1, 1])
        >>> probed = logistic_probe((r, labels), (r, labels))
        >>> probed.top1, probed.settings["C"], probed.settings["C_from"]
        (100.0, 1.0, 'default: a class has fewer than 5 training images')
    """
    from sklearn.linear_model import LogisticRegression

    (x, classes), (x_test, test_classes) = (
        (as_rows(rows, "representations"), as_rows(labels, "classes")) for rows, labels in (train, test)
    )
    check_classes(classes)
    check_strength(strength)
    dim = x.shape[1]
    kept = kept_dimensions(subvector, dim)
    x, x_test = (features[:, :kept].double() for features in (x, x_test))
    mean, scale = x.mean(0), x.var(0, correction=0).mean().sqrt()
    if not 0 < float(scale) < math.inf:
        raise ValueError(CONSTANT)
    fitted, tested = (((features - mean) / scale).numpy() for features in (x, x_test))
    if strength is None:
        strength, found = _choose_strength(fitted, classes.numpy())
    else:
        found = {"C_from": GIVEN}
    tolerance = TOLERANCE / max(1.0, strength)
    fit = LogisticRegression(C=strength, solver=SOLVER, max_iter=ITERATIONS, tol=tolerance)
    fit.fit(fitted, classes.numpy())
    top1, train_top1 = (
        100 * float(fit.score(features, labels.numpy()))
        for features, labels in ((tested, test_classes), (fitted, classes))
    )
    return Probed(
        method="logistic",
        dimensions=kept,
        of=dim,
        top1=top1,
        error=standard_error(top1, len(x_test)),
        train_top1=train_top1,
        train=len(x),
        test=len(x_test),
        seed=0,
        settings={"C": strength, **found, "solver": SOLVER, "features": MEAN_VARIANCE, "augmented": False},
    )


def _choose_strength(x: Features, classes: Classes) -> tuple[float, Settings]:
    """The C of the grid with the best accuracy on held-out images, the middle one of several; how it was found."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    if np.unique(classes, return_counts=True)[1].min() < HELD_OUT:
        return STRENGTH, {"C_from": DEFAULT}
    parts = train_test_split(x, classes, test_size=1 / HELD_OUT, stratify=classes, random_state=0)
    fit = LogisticRegression(solver=SOLVER, max_iter=ITERATIONS, warm_start=True)  # each starts from the one before
    grid: list[float] = []
    accuracies: list[float] = []
    for strength in (*STRENGTHS, *WEAKER):
        if strength in WEAKER and _middle_of_best(accuracies) < len(grid) - 1:
            break
        dtype = np.float32 if strength <= FLOAT32_TO else np.float64
        fit.set_params(C=strength, tol=min(SEARCH_TOLERANCE, TOLERANCE / strength))
        fit.fit(parts[0].astype(dtype), parts[2])
        grid.append(strength)
        accuracies.append(100 * float(fit.score(parts[1].astype(dtype), parts[3])))
    best = _middle_of_best(accuracies)
    return grid[best], {
        "C_from": CHOSEN,
        "grid": grid,
        "held_out_top1": accuracies,
        "at_edge": best in {0, len(grid) - 1},
    }


def _middle_of_best(accuracies: list[float]) -> int:
    """The place of the largest accuracy, the middle one of several."""
    tied = [k for k, accuracy in enumerate(accuracies) if accuracy == max(accuracies)]
    return tied[len(tied) // 2]


def check_strength(strength: float | None) -> None:
    """Check the C of a logistic probe. Raises SettingError if it is given, and not positive and finite."""
    if strength is not None and not 0 < strength < math.inf:
        raise SettingError(f"`strength` is {strength}; it must be a positive number")


def check_classes(labels: Int[Tensor, " n"]) -> None:
    """Check that there are at least two classes. Raises SettingError."""
    if len(classes := labels.unique()) < 2:
        raise SettingError(f"`data` has training images of {len(classes)} class; a probe needs at least two")


def kept_dimensions(subvector: int | None, dim: int) -> int:
    """The number of dimensions that a probe uses. Raises SettingError if `subvector` exceeds `dim`."""
    if subvector is not None and not 1 <= subvector <= dim:
        raise SettingError(f"`subvector` is {subvector}, but the representation has {dim} dimensions; give 1 to {dim}")
    return subvector or dim


def standard_error(top1: float, count: int) -> float:
    """Standard error of an accuracy from the number of test images; both in percent."""
    return 100 * math.sqrt(top1 / 100 * (1 - top1 / 100) / count)
