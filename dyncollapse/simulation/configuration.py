"""All settings of a simulation in one immutable record, and the checks that they agree with each other."""

from dataclasses import asdict
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator

from dyncollapse.model.choices import (
    AUTHORS_TEMPERATURE,
    DYNAMICS,
    INVARIANCE,
    SELF_DISTILLED,
    Activation,
    Dtype,
    Dynamics,
    Initialiser,
    Loss,
    SelfDistilled,
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
    record,
    setting,
    settings_of,
)
from dyncollapse.runtime.settings import SettingError, quoted

PresetName = Literal["paper", "authors-code"]
# Beside the two conventions: two-sided views whose noises are correlated with each other.
SimulatedViews = Literal["one-sided", "two-sided", "correlated"]
PRESETS = get_args(PresetName)
TrainedLoss = Literal[Loss, SelfDistilled]
# Default of `target_momentum` for byol.
TARGET_MOMENTUM = 0.99
# Defaults of `init_scale` for gaussian and of `init_rate`; `resolve` says when.
SMALL_START, AUTHORS_RATE = 0.1, 0.35
# Larger sizes are taken for typing errors; whether smaller ones fit into memory is checked in `build`.
WIDEST, DEEPEST = 10**4, 10**3
MOST_SAMPLES, MOST_STEPS, MOST_RUNS = 10**9, 10**12, 10**6


def _listed_widths(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


Widths = Annotated[str, BeforeValidator(_listed_widths)]


@record
class Configuration:
    """All settings of a toy simulation, checked and immutable.

    Strengths of data and augmentation are variances, not standard deviations. Flow time is lr x steps / (1 - momentum).
    The defaults are the paper's setting (Eq. 2, one-sided views, S = I/2). The paper gives no learning rate,
    initialisation or number of steps for it; those here show both mechanisms of collapse within seconds.

    The class takes every field as it is. Presets, and defaults that follow from other settings, are the work of
    `expand_grid` and of the command line: `expand_grid({"dim": 4})[0]` has `aug_dim` 2, while `Configuration(dim=4)`
    is refused, because `aug_dim` stays 8.

    Raises:
        SettingError: For a setting of another type or out of range, and for settings that contradict each other. It
            is a ValueError of one line.

    References:
        docs/explanation/theory.md, section 2, has the mathematics; docs/reference/settings.md lists the options.

    Examples:
        >>> Configuration(dim=4, aug_dim=2).layer_widths
        [4, 4]
        >>> Configuration(lr=-3)
        Traceback (most recent call last):
            ...
        dyncollapse.runtime.settings.SettingError: lr is -3.0; it must be between 1e-15 and 1e15
    """

    preset: PresetName | None = setting(
        None,
        "paper: the loss and views of its Eq. 2; authors-code: those of the authors' toy code.",
        group="data",
        unset="none",
    )
    case: Whole | None = setting(
        None,
        "Experiment of the authors' toy code: 1, strong augmentation of one layer; 2, weak augmentation of two.",
        group="data",
        low=1,
        high=2,
        must="the authors' toy code has cases 1 and 2",
        unset="1 for `preset` authors-code",
    )
    aug_strength: Number = setting(
        1.5, "Augmentation variance k of the last `aug_dim` inputs.", group="data", low=0, high=LARGE
    )
    dim: Whole = setting(
        16,
        "Input dimension, and width of every layer whose width is not given.",
        group="data",
        unit="dimensions",
        low=1,
        high=WIDEST,
    )
    hidden_dim: Whole | None = setting(
        None,
        "Width of the hidden layers.",
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
    data_cov: Text | None = setting(
        None,
        "A .npy file with the covariance (d, d) of the data, in place of `data_var`.",
        group="data",
        unset="none",
        metavar="FILE",
    )
    aug_cov: Text | None = setting(
        None,
        "A .npy file with the covariance (d, d) of the augmentation, in place of `aug_strength` and `aug_dim`.",
        group="data",
        unset="none",
        metavar="FILE",
    )
    views: SimulatedViews = setting(
        "one-sided",
        "Augmented views: one-sided, only the positive, as in the paper's analysis; two-sided, all, as in its code; "
        "correlated, all, with noises that are correlated by `view_corr`.",
        group="data",
        unset="one-sided; two-sided for `loss` ntxent, byol and simsiam",
    )
    view_corr: Text | None = setting(
        None,
        "For `views` correlated, the covariance between the noises of both views: a .npy file (d, d), or a number "
        "between -1 and 1 that multiplies the covariance of the augmentation.",
        group="data",
        unset="none",
        metavar="FILE|NUMBER",
    )
    loss: TrainedLoss = setting(
        "infonce",
        "infonce, the paper's Eq. 2; dot, that of the authors' toy code; ntxent; spectral; vcreg and vicreg, VICReg "
        "without and with its hinge; barlow and barlow-normalised, Barlow Twins on covariances and on correlations; "
        "byol and simsiam, with a predictor.",
        group="training",
    )
    temperature: Number | None = setting(
        None,
        "Temperature of the losses dot and ntxent.",
        group="training",
        low=SMALL,
        high=LARGE,
        unset=f"{AUTHORS_TEMPERATURE}",
    )
    invariance: Number | None = setting(
        None,
        "Weight of the invariance term of the losses vcreg and vicreg.",
        group="training",
        low=0,
        high=LARGE,
        unset=f"{INVARIANCE:g}",
    )
    predictor_rate: Number | None = setting(
        None,
        "Learning rate of the predictor of byol and simsiam over `lr`.",
        group="training",
        low=SMALL,
        high=LARGE,
        unset="1",
    )
    target_momentum: Number | None = setting(
        None,
        "Share of its old weights that the target of byol keeps in every step.",
        group="training",
        low=0,
        below=1,
        unset=f"{TARGET_MOMENTUM}",
    )
    depth: Whole = setting(1, "Number of layers.", group="network", unit="layers", low=1, high=DEEPEST)
    widths: Widths | None = setting(
        None,
        "Width of the inputs, of each hidden layer and of the embedding, as 16,8,4; in place of `dim`, `depth`, "
        "`hidden_dim` and `out_dim`.",
        group="network",
        pattern="[0-9]{1,6}(,[0-9]{1,6})+",
        must="write two or more whole numbers, as 16,8,4",
        unset="from `dim`, `depth`, `hidden_dim` and `out_dim`",
        metavar="N,N,..",
    )
    activation: Activation = setting("linear", "Activation between layers.", group="network")
    bias: bool = setting(False, "Give every layer a bias, initialised as in torch.nn.Linear.", group="network")
    init: Initialiser = setting(
        "gaussian", "Initial weights: gaussian, uniform as in torch.nn.Linear, or of a given spectrum.", group="network"
    )
    init_scale: Number = setting(
        0.1,
        "Standard deviation of gaussian weights; a factor for the other initialisers.",
        group="network",
        low=SMALL,
        high=LARGE,
        unset=f"gaussian: {SMALL_START}, for `loss` ntxent and barlow-normalised 1; others: 1",
    )
    init_rate: Number | None = setting(
        None,
        "Decay rate of the initialiser spectrum: singular values exp(-rate k), k = 0, 1, ...",
        group="network",
        low=0,
        high=LARGE,
        unset=f"{AUTHORS_RATE}",
    )
    batch_size: Whole = setting(128, "Pairs in a batch, N.", group="training", unit="pairs", low=2, high=MOST_SAMPLES)
    pool: Whole = setting(
        10_000,
        "Samples per run from which batches are drawn; 0 for fresh samples in every batch.",
        group="training",
        unit="samples",
        low=0,
        high=MOST_SAMPLES,
    )
    lr: Number = setting(
        0.1,
        "Learning rate; a step advances flow time by lr / (1 - momentum).",
        group="training",
        low=SMALL,
        high=LARGE,
    )
    steps: Whole = setting(3_000, "SGD steps.", group="training", unit="steps", low=1, high=MOST_STEPS)
    momentum: Number = setting(0.0, "Heavy-ball momentum.", group="training", low=0, below=1)
    weight_decay: Number = setting(
        0.0,
        "Weight decay: its product with the weights is added to their gradient, in SGD and in flows.",
        group="training",
        low=0,
        high=LARGE,
    )
    runs: Whole = setting(
        8, "Independent runs, each with its own start and data.", group="training", unit="runs", low=1, high=MOST_RUNS
    )
    seed: Whole = setting(0, "Seed of everything random.", group="training", low=0, high=MOST_SEED)
    dynamics: Several[Dynamics] = setting(
        ("sgd", "flow"), "What to run: any of sgd,flow,population, separated by commas.", group="flow"
    )
    flow_batches: Whole = setting(
        8,
        "Fixed batches M over which the flow averages its loss.",
        group="flow",
        unit="batches",
        low=1,
        high=MOST_RUNS,
    )
    ridge: Number = setting(
        0.01,
        "Penalty of the ridge probe that shows what collapse costs; the embedding variances it is compared with are of "
        "order 1.",
        group="output",
        low=SMALL,
        high=LARGE,
    )
    device: Text = setting("cpu", "cpu, cuda or cuda:N.", group="training", pattern=DEVICE, must=DEVICE_WORDS)
    threads: Whole | None = setting(
        None,
        "CPU threads.",
        group="training",
        unit="threads",
        low=1,
        high=MOST_WORKERS,
        unset="all cores for flows and for SGD of many `runs`, else 1",
    )
    dtype: Dtype = setting("float64", "Floating-point type of SGD; flows always use float64.", group="training")
    out: Text | None = setting(None, "", group="output")

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        _check_together(self)

    @property
    def layer_widths(self) -> list[int]:
        """Width of the inputs, of each hidden layer and of the embedding: one more number than there are layers."""
        if self.widths is not None:
            return [int(width) for width in self.widths.split(",")]
        return [self.dim, *[self.hidden_dim or self.dim] * (self.depth - 1), self.out_dim or self.dim]

    @property
    def view_convention(self) -> str:
        """The view convention that the loss sees: two-sided for correlated views."""
        return "two-sided" if self.views == "correlated" else self.views

    def as_dict(self) -> dict[str, Any]:
        """All settings by name, as plain values for JSON.

        Returns:
            A new dictionary, in the order in which the settings are declared.
        """
        return {**asdict(self), "dynamics": list(self.dynamics)}


def _check_together(c: Configuration) -> None:
    if c.case is not None and c.preset != "authors-code":
        raise SettingError(f"`case` is {c.case}, but cases belong to `preset` authors-code; add it or drop `case`")
    if c.aug_dim > c.dim:
        raise SettingError(f"`aug_dim` is {c.aug_dim}; it must be between 0 and `dim` {c.dim}")
    if c.widths is not None:
        _check_widths(c)
    if (c.views == "correlated") != (c.view_corr is not None):
        missing = "is not given; add it" if c.view_corr is None else f"is {quoted(c.view_corr)}; drop it"
        raise SettingError(f"`views` is {c.views}, and `view_corr` {missing}, or change `views`")
    if c.hidden_dim is not None and c.depth == 1:
        raise SettingError(
            f"`hidden_dim` is {c.hidden_dim}, but `depth` 1 has no hidden layer; give `depth` 2 or more, or drop "
            "`hidden_dim`"
        )
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
        origin = "`bias` is on" if c.preset is None else f"`preset` {c.preset} has them"
        raise SettingError(f"`dynamics` population is for layers without biases, and {origin}; drop one of them")
    _check_self_distillation(c)
    if c.loss not in SELF_DISTILLED:
        _check_objective(c)


def _check_self_distillation(c: Configuration) -> None:
    for name, losses in (("predictor_rate", SELF_DISTILLED), ("target_momentum", ("byol",))):
        if getattr(c, name) is not None and c.loss not in losses:
            raise SettingError(f"`{name}` is {getattr(c, name)}, but `loss` {c.loss} has none; drop it")
    if c.loss not in SELF_DISTILLED:
        return
    if c.bias:
        raise SettingError(f"`loss` {c.loss} is for layers without biases, and `bias` is on; drop one of them")
    for name in ("temperature", "invariance"):
        if getattr(c, name) is not None:
            raise SettingError(f"`{name}` is {getattr(c, name)}, but `loss` {c.loss} has none; drop it")
    if "population" in c.dynamics and c.activation != "linear" and c.depth > 1:
        raise SettingError(f"`dynamics` population is for linear layers, not for `activation` {c.activation}; drop it")


def _check_widths(c: Configuration) -> None:
    widths = c.layer_widths
    if (c.dim, c.depth, c.hidden_dim, c.out_dim) != (widths[0], len(widths) - 1, None, None):
        raise SettingError(
            f"`widths` is {c.widths}, which needs `dim` {widths[0]}, `depth` {len(widths) - 1}, and neither "
            "`hidden_dim` nor `out_dim`"
        )
    if not all(1 <= width <= WIDEST for width in widths):
        raise SettingError(f"`widths` is {c.widths}; each width must be between 1 and {WIDEST}")


def _check_objective(c: Configuration) -> None:
    # Imported here, because these import torch, and the command line's options need only the fields.
    from dyncollapse.model.objective import Objective
    from dyncollapse.theory.population import check_population

    try:
        objective = Objective(c.loss, c.temperature, c.activation, c.invariance)
        objective.check_views(c.view_convention)
        if "population" in c.dynamics:
            check_population(objective)
    except SettingError:
        raise
    except ValueError as error:
        raise SettingError(str(error)) from None


def setting_names() -> tuple[str, ...]:
    """The names of all settings, in the order in which they are declared."""
    return tuple(settings_of(Configuration))
