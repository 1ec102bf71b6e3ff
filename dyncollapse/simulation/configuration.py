"""Every setting of a simulation in one immutable record: presets, resolution of defaults, validation."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from dyncollapse.model.choices import (
    AUTHORS_TEMPERATURE,
    DYNAMICS,
    Activation,
    Dtype,
    Dynamics,
    Initialiser,
    Loss,
    Views,
)
from dyncollapse.runtime.records import (
    DEVICE,
    DEVICE_WORDS,
    LARGE,
    MOST_SEED,
    MOST_WORKERS,
    SMALL,
    Number,
    Several,
    Text,
    Whole,
    check_value,
    record,
    setting,
    settings_of,
)
from dyncollapse.runtime.settings import SettingError, quoted

PresetName = Literal["paper", "authors-code"]
PRESETS = get_args(PresetName)
# Starts that are not given: see `resolve`.
SMALL_START, AUTHORS_RATE = 0.1, 0.35
# Sizes beyond which a number is a slip: what they take is checked besides.
WIDEST, DEEPEST = 10**4, 10**3
MOST_SAMPLES, MOST_STEPS, MOST_RUNS = 10**9, 10**12, 10**6


@record
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

    preset: PresetName | None = setting(
        None, "Eq. 2 as the paper analyses it, or the loss its code trains.", group="data", unset="none"
    )
    case: Whole | None = setting(
        None,
        "Which of the authors' two toy settings: 1 (strong augmentation) or 2 (deep).",
        group="data",
        low=1,
        high=2,
        must="the authors' toy code has cases 1 and 2",
        unset="1 for `preset` authors-code",
    )
    aug_strength: Number = setting(
        1.5, "Augmentation variance k on the last `aug_dim` inputs.", group="data", low=0, high=LARGE
    )
    dim: Whole = setting(
        16,
        "Input dimension, and that of all layers where no other is given.",
        group="data",
        unit="dimensions",
        low=1,
        high=WIDEST,
    )
    hidden_dim: Whole | None = setting(
        None,
        "Width of the layers between.",
        group="network",
        unit="dimensions",
        low=1,
        high=WIDEST,
        unset="as `dim`",
    )
    out_dim: Whole | None = setting(
        None, "Embedding dimension.", group="network", unit="dimensions", low=1, high=WIDEST, unset="as `dim`"
    )
    aug_dim: Whole = setting(
        8, "Number of augmented inputs.", group="data", unit="inputs", low=0, high=WIDEST, unset="half of `dim`"
    )
    data_var: Number = setting(0.5, "Data variance s of every input.", group="data", low=SMALL, high=LARGE)
    views: Views = setting(
        "one-sided",
        "Which views are augmented: one, as the paper analyses, or both, as its code trains.",
        group="data",
        unset="one-sided; two-sided for `loss` ntxent",
    )
    loss: Loss = setting("infonce", "Loss; infonce is the paper's Eq. 2.", group="training")
    temperature: Number | None = setting(
        None, "Temperature of dot and ntxent.", group="training", low=SMALL, high=LARGE, unset=f"{AUTHORS_TEMPERATURE}"
    )
    depth: Whole = setting(1, "Number of layers.", group="network", unit="layers", low=1, high=DEEPEST)
    activation: Activation = setting("linear", "Between layers.", group="network")
    bias: bool = setting(False, "Give every layer a bias, started as torch's Linear.", group="network")
    init: Initialiser = setting("gaussian", "Initialiser.", group="network")
    init_scale: Number = setting(
        0.1,
        "Standard deviation of gaussian, factor of the other initialisers.",
        group="network",
        low=SMALL,
        high=LARGE,
        unset=f"gaussian: {SMALL_START}, for `loss` ntxent 1; others: 1",
    )
    init_rate: Number | None = setting(
        None,
        "Of the initialiser spectrum: singular values exp(-rate k).",
        group="network",
        low=0,
        high=LARGE,
        unset=f"{AUTHORS_RATE}",
    )
    batch_size: Whole = setting(128, "Pairs in a batch, N.", group="training", unit="pairs", low=2, high=MOST_SAMPLES)
    pool: Whole = setting(
        10_000,
        "Samples per run to draw batches from; 0 draws fresh ones.",
        group="training",
        unit="samples",
        low=0,
        high=MOST_SAMPLES,
    )
    lr: Number = setting(
        0.1, "Learning rate; a step advances flow time by it.", group="training", low=SMALL, high=LARGE
    )
    steps: Whole = setting(3_000, "SGD steps.", group="training", unit="steps", low=1, high=MOST_STEPS)
    momentum: Number = setting(0.0, "Heavy-ball momentum.", group="training", low=0, below=1)
    runs: Whole = setting(
        8, "Independent runs, all at once, from one seed.", group="training", unit="runs", low=1, high=MOST_RUNS
    )
    seed: Whole = setting(0, "Seed of everything random.", group="training", low=0, high=MOST_SEED)
    dynamics: Several[Dynamics] = setting(("sgd", "flow"), "Any of sgd,flow,population, with commas.", group="flow")
    flow_batches: Whole = setting(
        8,
        "Fixed batches M that the flow's loss averages over.",
        group="flow",
        unit="batches",
        low=1,
        high=MOST_RUNS,
    )
    device: Text = setting("cpu", "cpu, cuda or cuda:N.", group="training", pattern=DEVICE, must=DEVICE_WORDS)
    threads: Whole = setting(
        1,
        "CPU threads; more than one pays for many `runs` only.",
        group="training",
        unit="threads",
        low=1,
        high=MOST_WORKERS,
    )
    dtype: Dtype = setting("float64", "Of SGD; flows are always float64.", group="training")
    out: Text | None = setting(None, "", group="output")

    def __post_init__(self) -> None:
        """Check what the settings say together."""
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
            "init_rate": AUTHORS_RATE,
        },
    ),
}


def resolve(given: Mapping[str, Any]) -> Configuration:
    """Fill in what was not given: from the preset, then from what the given settings imply, then from the defaults.

    Raises SettingError, one line each, for a setting out of range or one that contradicts the preset.
    """
    known = settings_of(Configuration)
    if unknown := given.keys() - known.keys():
        raise SettingError(f"there is no setting {quoted(min(unknown, key=str))}; the settings are {', '.join(known)}")
    given = {name: check_value(Configuration, name, value) for name, value in given.items()}
    preset, case = given.get("preset"), given.get("case")
    suggested: dict[str, Any] = {}
    if preset is not None:
        case = 1 if case is None and preset == "authors-code" else case
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
    settings.setdefault("init_scale", SMALL_START if small else 1.0)
    if init == "spectrum":
        settings.setdefault("init_rate", AUTHORS_RATE)
    if "dim" in settings:
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
            f"`dynamics` is {quoted(','.join(c.dynamics))}; name one or more of {', '.join(DYNAMICS)}, each once"
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


def setting_names() -> tuple[str, ...]:
    """Names of all settings, in the order in which they are declared."""
    return tuple(settings_of(Configuration))
