"""Augmentation pipelines by name or from a TOML file, and each of their operations alone and left out."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from dyncollapse.bridge.data.augmentations import PAIRS, View
from dyncollapse.runtime.files import unmarked
from dyncollapse.runtime.records import Number, Several, Whole, record, setting
from dyncollapse.runtime.settings import SettingError
from dyncollapse.runtime.settings_file import read_toml

NOTHING = View(
    scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=(0.0,) * 4, jitter_probability=0.0, grey=0.0
)  # leaves every image as it is
# The settings of a view that each operation has.
OPERATIONS = {
    "crop": ("scale", "ratio"),
    "rotation": ("degrees",),
    "flip": ("flip",),
    "colour": ("jitter", "jitter_probability"),
    "grey": ("grey",),
    "blur": ("blur", "blur_size", "blur_sigma"),
    "solarise": ("solarise",),
    "noise": ("noise",),
}
# Least and largest values of settings with two ends. A thousandth of the area is one pixel of 32 x 32, and a blur below
# a twentieth of a pixel changes no image.
RANGES = {"scale": (0.001, 1), "ratio": (0.01, 100), "blur_sigma": (0.05, 100)}
NAMES = {"cifar10": "cifar"}  # names of pipelines beside those of PAIRS


class Pipeline(NamedTuple):
    """The augmentations of two views of an image.

    Attributes:
        first: How the first view is drawn.
        second: How the second view is drawn.
        name: What it is called in reports.

    Examples:
        >>> flips = ViewSettings(flip=0.5, noise=0.1).as_view()
        >>> pipeline = Pipeline(flips, flips, "flips and noise")
        >>> pipeline.operations, pipeline.only("flip").operations
        (('flip', 'noise'), ('flip',))
    """

    first: View
    second: View
    name: str

    @property
    def alike(self) -> bool:
        """Whether both views are drawn from one distribution."""
        return self.first == self.second

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the operations that change an image in either view, in the order in which they run."""
        return tuple(name for name in OPERATIONS if _has(self.first, name) or _has(self.second, name))

    def only(self, operation: str) -> "Pipeline":
        """The pipeline with a single one of its operations."""
        kept = OPERATIONS[operation]
        first, second = (
            replace(NOTHING, **{name: getattr(view, name) for name in kept}) for view in (self.first, self.second)
        )
        return Pipeline(first, second, operation)

    def without(self, operation: str) -> "Pipeline":
        """The pipeline with all of its operations but one."""
        left_out = {name: getattr(NOTHING, name) for name in OPERATIONS[operation]}
        return Pipeline(replace(self.first, **left_out), replace(self.second, **left_out), f"without {operation}")

    def for_channels(self, channels: int) -> "Pipeline":
        """The pipeline as images of so many channels see it: grey images have no saturation, no hue and no grey."""
        if channels == 3:
            return self
        first, second = (replace(view, grey=0.0, jitter=(*view.jitter[:2], 0.0, 0.0)) for view in self[:2])
        return Pipeline(first, second, self.name)


def _has(view: View, operation: str) -> bool:
    """Whether an operation can change an image."""
    if operation == "crop":
        return view.scale != NOTHING.scale or view.ratio != NOTHING.ratio
    if operation == "colour":
        return view.jitter_probability > 0 and any(view.jitter)
    return float(getattr(view, operation if operation != "rotation" else "degrees")) > 0


@record
class ViewSettings:
    """The settings of a view in a TOML file; an operation whose settings are not given is left out.

    Raises:
        SettingError: One line for a setting of another type or out of range.

    Examples:
        >>> ViewSettings(flip=0.5).as_view().flip
        0.5
    """

    scale: Several[Number] = setting(
        NOTHING.scale, "Smallest and largest area of the crop.", must="write two fractions, as [0.2, 1.0]"
    )
    ratio: Several[Number] = setting(
        NOTHING.ratio, "Smallest and largest width of the crop over its height.", must="write two, as [0.75, 1.33]"
    )
    degrees: Number = setting(0.0, "Largest rotation.", unit="degrees", low=0, high=180)
    flip: Number = setting(0.0, "Probability of a horizontal flip.", low=0, high=1)
    jitter: Several[Number] = setting(
        NOTHING.jitter,
        "Strengths of brightness, contrast, saturation and hue jitter.",
        must="write four, as [0.4, 0.4, 0.2, 0.1]; hue is at most 0.5",
    )
    jitter_probability: Number = setting(1.0, "Probability of the jitters.", low=0, high=1)
    grey: Number = setting(0.0, "Probability of a greyscale view.", low=0, high=1)
    blur: Number = setting(0.0, "Probability of a blur.", low=0, high=1)
    blur_size: Whole = setting(23, "Width of the blur's kernel.", unit="pixels", low=1, high=999)
    blur_sigma: Several[Number] = setting(
        (0.1, 2.0), "Smallest and largest blur.", must="write two in pixels, as [0.1, 2.0]"
    )
    solarise: Number = setting(0.0, "Probability of solarisation.", low=0, high=1)
    noise: Number = setting(0.0, "Standard deviation of the noise on pixels in [0, 1].", low=0, high=1)

    def __post_init__(self) -> None:
        """Check the settings that hold several numbers."""
        for name, (low, high) in RANGES.items():
            ends = getattr(self, name)
            if len(ends) != 2 or not low <= ends[0] <= ends[1] <= high:
                raise SettingError(
                    f"`{name}` is {list(ends)}; write its smallest and largest value, between {low} and {high}"
                )
        if len(self.jitter) != 4 or min(self.jitter) < 0 or self.jitter[3] > 0.5 or max(self.jitter) > 10:
            raise SettingError(
                f"`jitter` is {list(self.jitter)}; write the strengths of brightness, contrast and saturation, from 0 "
                "to 10, and of hue, from 0 to 0.5"
            )

    def as_view(self) -> View:
        """The view."""
        return View(**asdict(self))


def open_pipeline(name: str, channels: int) -> Pipeline:
    """Find a pipeline by its name, or read it from a TOML file with the settings of a view.

    Args:
        name: imagenet, cifar10, cifar or digits, or a file whose name ends in .toml. Both views are drawn as the file
            says.
        channels: Channels of the images.

    Returns:
        The pipeline, without operations that have no effect on such images.

    Raises:
        SettingError: For an unknown name, a file that cannot be used, and a pipeline that leaves images as they are.

    Examples:
        >>> open_pipeline("digits", channels=1).operations
        ('crop', 'rotation', 'colour', 'noise')
        >>> _ = Path("flips.toml").write_text("flip = 0.5")
        >>> open_pipeline("flips.toml", channels=3).operations
        ('flip',)
    """
    if name in NAMES or name in PAIRS:
        found = Pipeline(*PAIRS[NAMES.get(name, name)], name)
    elif name.endswith(".toml"):
        view = _read_view(Path(name))
        found = Pipeline(view, view, name)
    else:
        known = ", ".join(sorted({*NAMES, *PAIRS} - {*NAMES.values()}))
        raise SettingError(
            f"`augment` is {unmarked(name) or '(empty)'}; choose one of {known}, or name a file FILE.toml"
        )
    return effective(found, channels)


def effective(pipeline: Pipeline, channels: int) -> Pipeline:
    """The pipeline as images with so many channels see it. Raises SettingError if it leaves them as they are."""
    found = pipeline.for_channels(channels)
    if not found.operations:
        raise SettingError(
            f"`augment` {unmarked(found.name)} changes no image of {channels} channel(s), so both views are one; give "
            f"it an operation: {', '.join(OPERATIONS)}"
        )
    return found


def _read_view(path: Path) -> View:
    """Read the view that a file describes, with errors that name the option `augment`."""
    try:
        written = read_toml(ViewSettings, path)
        return ViewSettings(**{name: value for name, (_, value) in written.items()}).as_view()
    except SettingError as error:
        at = f"`augment` {unmarked(str(path))}"
        text = error.text.replace("`config`", "`augment`", 1)
        raise SettingError(text if text != error.text else f"{at}: {error.text}") from None
