"""Every setting of a simulation in one immutable record: presets, resolution of defaults, validation."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any

from dyncollapse.model.choices import (
    ACTIVATIONS,
    AUTHORS_TEMPERATURE,
    DTYPES,
    DYNAMICS,
    INITIALISERS,
    LOSSES,
    VIEWS,
)
from dyncollapse.runtime.settings import DEVICE, SettingError, check_settings, quoted, setting

PRESETS = ("paper", "authors-code")
# Beyond these, squares leave the range of float32.
SMALL, LARGE = 1e-15, 1e15


@dataclass(frozen=True)
class Configuration:
    """A toy simulation, fully resolved. Variances, not standard deviations; time is lr x steps / (1 - momentum).

    The defaults are the paper's setting (Eq. 2, one-sided, S = I/2). The paper does not give a learning rate, an
    initialisation or a number of steps for it; the ones here show both mechanisms of collapse within seconds.

    Raises:
        SettingError: One line for a setting of another type or out of range, and for settings that contradict
            each other.

    Example:
        >>> Configuration(dim=4, aug_dim=2).lr
        0.1
        >>> Configuration(lr=-3)
        Traceback (most recent call last):
            ...
        dyncollapse.runtime.settings.SettingError: lr is -3.0; it must be between 1e-15 and 1e15
    """

    preset: str | None = setting(None, "Eq. 2 as the paper analyses it, or the loss its code trains.", allowed=PRESETS)
    case: int | None = setting(
        None, "Which of the authors' two toy settings: 1 (strong augmentation) or 2 (deep).", low=1, high=2
    )
    aug_strength: float = setting(1.5, "Augmentation variance k on the last --aug-dim inputs.", low=0, high=LARGE)
    dim: int = setting(16, "Input dimension, and that of all layers where no other is given.", low=1, high=10**4)
    hidden_dim: int | None = setting(None, "Width of the layers between.  [as --dim]", low=1, high=10**4)
    out_dim: int | None = setting(None, "Embedding dimension.  [as --dim]", low=1, high=10**4)
    aug_dim: int = setting(8, "Number of augmented inputs.  [half of --dim]", low=0, high=10**4)
    data_var: float = setting(0.5, "Data variance s of every input.", low=SMALL, high=LARGE)
    views: str = setting("one-sided", "Which views are augmented.", allowed=VIEWS)
    loss: str = setting("infonce", "Loss; infonce is the paper's Eq. 2.", allowed=LOSSES)
    temperature: float | None = setting(None, "Temperature of dot and ntxent.  [0.1]", low=SMALL, high=LARGE)
    depth: int = setting(1, "Number of layers.", low=1, high=10**3)
    activation: str = setting("linear", "Between layers.", allowed=ACTIVATIONS)
    bias: bool = setting(False, "Give every layer a bias, started as torch's Linear.  [no]")
    init: str = setting("gaussian", "Initialiser.", allowed=INITIALISERS)
    init_scale: float = setting(
        0.1, "Gaussian: standard deviation [0.1; ntxent: 1]; others: factor [1].", low=SMALL, high=LARGE
    )
    init_rate: float | None = setting(None, "Spectrum: singular values exp(-rate k).  [0.35]", low=0, high=LARGE)
    batch_size: int = setting(128, "Pairs in a batch, N.", low=2, high=10**9, unit="pairs")
    pool: int = setting(
        10_000,
        "Samples per run to draw batches from; 0 draws fresh ones.",
        low=0,
        high=10**9,
        unit="samples",
    )
    lr: float = setting(0.1, "Learning rate; a step advances flow time by it.", low=SMALL, high=LARGE)
    steps: int = setting(3_000, "SGD steps.", low=1, high=10**12)
    momentum: float = setting(0.0, "Heavy-ball momentum.", low=0, below=1)
    runs: int = setting(8, "Independent runs, all at once, from one seed.", low=1, high=10**6)
    seed: int = setting(0, "Seed of everything random.", low=0, high=2**63 - 1)
    dynamics: tuple[str, ...] = setting(("sgd", "flow"), "Any of sgd,flow,population.", allowed=DYNAMICS)
    flow_batches: int = setting(8, "Fixed batches M that the flow's loss averages over.", low=1, high=10**6)
    device: str = setting("cpu", "cpu, cuda or cuda:N.", form=DEVICE)
    threads: int = setting(1, "CPU threads; more than one pays for many --runs only.", low=1, high=10**3)
    dtype: str = setting("float64", "Of SGD; flows are always float64.", allowed=DTYPES)
    out: str | None = setting(None, "")

    def __post_init__(self) -> None:
        """Check every setting, and what they say together."""
        check_settings(self)
        _check_together(self)

    @property
    def widths(self) -> list[int]:
        """Dimensions from the inputs to the embedding, one more than there are layers."""
        return [self.dim, *[self.hidden_dim or self.dim] * (self.depth - 1), self.out_dim or self.dim]

    def as_dict(self) -> dict[str, Any]:
        """All settings as plain values for JSON."""
        return {**asdict(self), "dynamics": list(self.dynamics)}


@dataclass(frozen=True)
class Preset:
    """Settings that come as one: `pinned` ones define the preset, `suggested` ones are its defaults."""

    pinned: dict[str, Any]
    suggested: dict[str, Any]


PAPER = Preset({"loss": "infonce", "views": "one-sided", "data_var": 0.5}, {})
_AUTHORS = {"loss": "dot", "temperature": AUTHORS_TEMPERATURE, "views": "two-sided", "data_var": 1.0}
_AUTHORS_SIZES = {"batch_size": 128, "pool": 10_000, "steps": 10_000, "dim": 16}
AUTHORS_CASES = {
    1: Preset(
        {**_AUTHORS, "depth": 1, "bias": True, "init": "uniform"},
        {**_AUTHORS_SIZES, "lr": 1e-3, "init_scale": 1.0},
    ),
    2: Preset(
        {**_AUTHORS, "bias": False, "init": "spectrum"},
        {
            **_AUTHORS_SIZES,
            "lr": 1e-2,
            "depth": 2,
            "aug_strength": 1e-6,  # the authors' noise, a standard deviation of 1e-3
            "init_scale": 1.0,
            "init_rate": 0.35,
        },
    ),
}


def resolve(given: Mapping[str, Any]) -> Configuration:
    """Fill in what was not given: from the preset, then from what the given settings imply, then from the defaults.

    Raises SettingError, one line each, for a setting out of range or one that contradicts the preset.
    """
    if unknown := given.keys() - setting_names():
        raise SettingError(
            f"there is no setting {quoted(min(unknown, key=str))}; the settings are {', '.join(setting_names())}"
        )
    preset, case = given.get("preset"), given.get("case")
    suggested: dict[str, Any] = {}
    if preset == "authors-code":
        case = 1 if case is None else case
        if case not in AUTHORS_CASES:
            raise SettingError(f"`case` is {quoted(case)}; the authors' toy code has cases 1 and 2")
    if preset in PRESETS:  # any other is refused with the record
        chosen = PAPER if preset == "paper" else AUTHORS_CASES[case or 1]
        for name, value in chosen.pinned.items():
            if name in given and given[name] != value:
                raise SettingError(
                    f"`preset` {preset} means `{name}` {_shown(value)}, not {_shown(given[name])}; "
                    f"drop `preset` or `{name}`"
                )
        suggested = {**chosen.suggested, **chosen.pinned}
    settings = {**suggested, **given, "case": case}
    if settings.get("loss") == "ntxent":
        settings.setdefault("views", "two-sided")  # the only views that loss is defined on
    if settings.get("loss") in ("dot", "ntxent"):
        settings.setdefault("temperature", AUTHORS_TEMPERATURE)
    init = settings.get("init", "gaussian")
    # ntxent knows no scale, and its gradient grows as 1 / |W|: a small start would only make it stiff.
    small = init == "gaussian" and settings.get("loss") != "ntxent"
    settings.setdefault("init_scale", 0.1 if small else 1.0)
    if init == "spectrum":
        settings.setdefault("init_rate", 0.35)  # the authors' code
    if isinstance(settings.get("dim"), int | float):  # what is no number is refused with the record
        everywhere = (preset, case) == ("authors-code", 2)
        settings.setdefault("aug_dim", settings["dim"] if everywhere else settings["dim"] // 2)
    return Configuration(**settings)


def _check_together(c: Configuration) -> None:
    if c.case is not None and c.preset != "authors-code":
        raise SettingError(f"`case` is {c.case}, but cases belong to `preset` authors-code; add it or drop `case`")
    if c.aug_dim > c.dim:
        raise SettingError(f"`aug_dim` is {c.aug_dim}; it must be between 0 and `dim` {c.dim}")
    if c.hidden_dim is not None and c.depth == 1:
        raise SettingError(f"`hidden_dim` is {c.hidden_dim}, but `depth` 1 has no layer between; drop one of them")
    if c.pool != 0 and c.pool < c.batch_size:
        raise SettingError(
            f"`pool` is {c.pool} with `batch_size` {c.batch_size}; "
            "a pool holds at least one batch, or is 0 for fresh samples"
        )
    if not c.dynamics or len(set(c.dynamics)) < len(c.dynamics):
        raise SettingError(
            f"`dynamics` is {','.join(c.dynamics)!r}; name one or more of {', '.join(DYNAMICS)}, each once"
        )
    if c.init != "spectrum" and c.init_rate is not None:
        raise SettingError(
            f"`init_rate` is {c.init_rate}, but `init` {c.init} has none; add `init` spectrum or drop it"
        )
    if c.bias and "population" in c.dynamics:
        raise SettingError("`dynamics` population has no closed form with `bias`; drop one of them")
    _check_objective(c)


def _check_objective(c: Configuration) -> None:
    # Imported here, for torch comes with them, and options are made of the fields alone.
    from dyncollapse.model.objective import Objective
    from dyncollapse.theory.population import check_population

    try:
        objective = Objective(c.loss, c.temperature, c.activation)
        objective.check_views(c.views)
        if "population" in c.dynamics:
            check_population(objective)
    except ValueError as error:
        raise SettingError(str(error)) from None


def _shown(value: Any) -> str:
    return ("off", "on")[value] if isinstance(value, bool) else quoted(value).strip("'")


@cache
def setting_names() -> tuple[str, ...]:
    """Names of all settings, in the order in which they are declared."""
    return tuple(field.name for field in fields(Configuration))
