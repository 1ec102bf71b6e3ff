"""The rows of the check: a recipe for each projector and seed, as in the paper's Tables 1 and 2."""

from collections.abc import Iterable, Mapping, Sequence

from dyncollapse.bridge.models.backbones import representation_dim
from dyncollapse.bridge.models.encoders import embedding_dim, encoder_shapes
from dyncollapse.bridge.presets import resolve
from dyncollapse.bridge.recipe import PROJECTORS, Recipe

# Epochs and seeds of each projector in the tables; then, for Fig. 12, sizes of DirectCLR's sub-vector, with one seed.
EPOCHS, SEEDS = 30, 3
SUBVECTORS = (4, 8, 64)
SHORT_EPOCHS, SHORT_HEADS, SHORT_SUBVECTORS = 15, ("mlp", "linear", "none", "low-rank-diagonal"), (4, 64)
SWEPT = "sweep-d0-"  # beginning of the names of the runs for Fig. 12
# The same on images of the user's own, as shares of the representation: below and above DirectCLR's 0.176.
SHARES = (1 / 32, 1 / 8, 1 / 2)


def check_recipes(seeds: int = SEEDS, *, short: bool = False, epochs: int | None = None) -> dict[str, Recipe]:
    """Choose the runs of the check on digits.

    Besides the paper's rows there is a linear projector with as many outputs as DirectCLR keeps dimensions. In the
    paper these numbers differ, 128 and 360.

    Args:
        seeds: Runs of each projector.
        short: Whether to leave out the ablations of Table 2.
        epochs: Epochs of each run; None for 30, or 15 if `short`.

    Returns:
        Settings by the name of the run's folder.

    Examples:
        >>> list(check_recipes(seeds=1, short=True))
        ['mlp-seed0', 'linear-seed0', 'none-seed0', 'low-rank-diagonal-seed0', 'sweep-d0-4', 'sweep-d0-64']
    """
    epochs = epochs or (SHORT_EPOCHS if short else EPOCHS)
    common = {"data": "digits", "epochs": epochs, "monitor_every": 0, "tensorboard": False}
    recipes: dict[str, Recipe] = {}
    for seed in range(seeds):
        heads = SHORT_HEADS if short else PROJECTORS
        recipes |= {f"{name}-seed{seed}": r for name, r in table_recipes(common | {"seed": seed}, heads).items()}
    return recipes | swept_recipes(common, SHORT_SUBVECTORS if short else SUBVECTORS)


def table_recipes(common: Mapping[str, object], heads: Sequence[str] = PROJECTORS) -> dict[str, Recipe]:
    """Make a recipe for each row of the tables.

    Args:
        common: Settings that all of them share.
        heads: Projectors. With all of PROJECTORS, the linear one that matches DirectCLR's d0 is added.

    Returns:
        Recipes by projector; the added one is "linear-matched".
    """
    recipes = {head: resolve({**common, "projector": head}) for head in heads}
    if {"linear", "low-rank-diagonal"} <= recipes.keys() and len(heads) == len(PROJECTORS):
        # As many outputs as DirectCLR keeps, which does not depend on the images' channels.
        d0 = embedding_dim(encoder_shapes(recipes["low-rank-diagonal"], 1))
        recipes["linear-matched"] = resolve({**common, "projector": "linear", "out_dim": d0})
    return recipes


def swept_recipes(common: Mapping[str, object], sizes: Iterable[int]) -> dict[str, Recipe]:
    """Make a recipe of DirectCLR for each size of the sub-vector, by the name of the run's folder.

    Args:
        common: Settings that all of them share.
        sizes: Dimensions of the sub-vector.

    Returns:
        Recipes by the name of the run's folder.
    """
    return {f"{SWEPT}{size}": resolve({**common, "method": "directclr", "d0": size}) for size in sizes}


def sizes_of_shares(common: Mapping[str, object], shares: Iterable[float]) -> list[int]:
    """Turn shares of the representation's dimensions into sizes of a sub-vector, at least 1.

    Args:
        common: Settings that say which encoder it is.
        shares: Parts of the representation's dimensions.

    Returns:
        The sizes.

    Examples:
        >>> sizes_of_shares({"data": "digits"}, [1 / 32, 1 / 2])
        [4, 64]
    """
    dim = representation_dim(encoder_shapes(resolve({**common, "projector": "none"}), 1).backbone)
    return [max(1, round(share * dim)) for share in shares]
