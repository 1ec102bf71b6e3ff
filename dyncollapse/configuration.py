"""Every setting of a simulation in one immutable record: presets, resolution of defaults, validation."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from dyncollapse.gaussian import VIEWS
from dyncollapse.losses import AUTHORS_TEMPERATURE, LOSSES
from dyncollapse.networks import ACTIVATIONS, INITIALISERS

DYNAMICS = ("sgd", "flow", "population")
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Configuration:
    """A toy simulation, fully resolved. Variances, not standard deviations; time is lr x steps / (1 - momentum).

    The defaults are the paper's setting (Eq. 2, one-sided, S = I/2); sizes of the learning rate, the
    initialisation and the number of steps, which the paper does not give for it, are ours.
    """

    preset: str | None = None
    case: int | None = None
    aug_strength: float = 1.5
    dim: int = 16
    aug_dim: int = 8
    data_var: float = 0.5
    views: str = "one-sided"
    loss: str = "infonce"
    temperature: float | None = None
    depth: int = 1
    activation: str = "linear"
    bias: bool = False
    init: str = "gaussian"
    init_scale: float = 0.1
    init_rate: float | None = None
    batch_size: int = 128
    pool: int = 10_000
    lr: float = 0.1
    steps: int = 3_000
    momentum: float = 0.0
    runs: int = 8
    seed: int = 0
    dynamics: tuple[str, ...] = ("sgd", "flow")
    flow_batches: int = 8
    device: str = "cpu"
    threads: int = 1
    dtype: str = "float64"
    out: str | None = None

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
PRESETS = ("paper", "authors-code")


def resolve(given: dict[str, Any]) -> Configuration:
    """Fill in what was not given: from the preset, then from what the given settings imply, then from the defaults.

    Raises ValueError, one line each, for a setting out of range or one that contradicts the preset.
    """
    preset, case = given.get("preset"), given.get("case")
    suggested: dict[str, Any] = {}
    if preset is not None:
        _one_of("preset", preset, PRESETS)
        if preset == "authors-code":
            case = 1 if case is None else case
            if case not in AUTHORS_CASES:
                raise ValueError(f"--case is {case}; the authors' toy code has cases 1 and 2")
            chosen = AUTHORS_CASES[case]
        else:
            chosen = PAPER
        for name, value in chosen.pinned.items():
            if name in given and given[name] != value:
                raise ValueError(
                    f"--preset {preset} means {option(name)} {_shown(value)}, not {_shown(given[name])}; "
                    f"drop --preset or {option(name)}"
                )
        suggested = {**chosen.suggested, **chosen.pinned}
    if case is not None and preset != "authors-code":
        raise ValueError(f"--case is {case}, but cases belong to --preset authors-code; add it or drop --case")
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
    if "dim" in settings:
        everywhere = (preset, case) == ("authors-code", 2)
        settings.setdefault("aug_dim", settings["dim"] if everywhere else settings["dim"] // 2)
    configuration = Configuration(**settings)
    _check(configuration)
    return configuration


def option(name: str) -> str:
    """Spell a setting as the command line does."""
    return "--" + name.replace("_", "-")


def _check(c: Configuration) -> None:
    for name, allowed in (
        ("views", VIEWS),
        ("loss", LOSSES),
        ("activation", ACTIVATIONS),
        ("init", INITIALISERS),
        ("dtype", DTYPES),
    ):
        _one_of(name, getattr(c, name), allowed)
    for name, most in (
        ("dim", 10**4),
        ("depth", 10**3),
        ("steps", 10**12),
        ("runs", 10**6),
        ("flow_batches", 10**6),
        ("threads", 10**3),
    ):
        _in_range(name, getattr(c, name), 1, f"between 1 and {most}", most)
    _in_range("batch_size", c.batch_size, 2, "between 2 and 10^9", 10**9)
    _in_range("pool", c.pool, 0, "between 0 and 10^9", 10**9)
    for name in ("aug_strength", "init_rate"):
        _in_range(name, getattr(c, name), 0.0, "between 0 and 1e15", 1e15)
    # Beyond these, squares leave the range of float32.
    for name in ("data_var", "lr", "init_scale", "temperature"):
        _in_range(name, getattr(c, name), 1e-15, "between 1e-15 and 1e15", 1e15)
    _in_range("aug_dim", c.aug_dim, 0, f"between 0 and --dim {c.dim}", c.dim)
    _in_range("seed", c.seed, 0, "between 0 and 2^63 - 1", 2**63 - 1)
    if not 0 <= c.momentum < 1:
        raise ValueError(f"--momentum is {c.momentum}; it must be at least 0 and below 1")
    if c.pool != 0 and c.pool < c.batch_size:
        raise ValueError(
            f"--pool is {c.pool} with --batch-size {c.batch_size}; "
            "a pool holds at least one batch, or is 0 for fresh samples"
        )
    if not c.dynamics or len(set(c.dynamics)) < len(c.dynamics):
        raise ValueError(
            f"--dynamics is {','.join(c.dynamics)!r}; name one or more of {', '.join(DYNAMICS)}, each once"
        )
    for name in c.dynamics:
        _one_of("dynamics", name, DYNAMICS)
    if c.init != "spectrum" and c.init_rate is not None:
        raise ValueError(f"--init-rate is {c.init_rate}, but --init {c.init} has none; add --init spectrum or drop it")
    if c.bias and "population" in c.dynamics:
        raise ValueError("--dynamics population has no closed form with --bias; drop one of them")


def _in_range(name: str, value: float | None, low: float, words: str, high: float = float("inf")) -> None:
    if value is not None and not low <= value <= high:
        raise ValueError(f"{option(name)} is {value}; it must be {words}")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{option(name)} is {value!r}; choose one of {', '.join(allowed)}")


def _shown(value: Any) -> str:
    return ("off", "on")[value] if isinstance(value, bool) else str(value)


def setting_names() -> tuple[str, ...]:
    """Names of all settings, in the order in which they are declared."""
    return tuple(field.name for field in fields(Configuration))
