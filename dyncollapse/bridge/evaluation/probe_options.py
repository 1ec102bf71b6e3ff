"""How a linear probe is trained: options of `bridge probe`."""

from typing import Literal

from dyncollapse.bridge.recipe import WIDEST
from dyncollapse.runtime.records import LARGE, MOST_EPOCHS, SMALL, Number, Whole, record, setting
from dyncollapse.runtime.settings import SettingError

Classifier = Literal["logistic", "sgd"]
# Training images up to which the probe is by logistic regression, unless asked for otherwise: all features are held
# in memory, 2048 of them 1.6 GB in float64.
LOGISTIC_MOST = 100_000
SGD_EPOCHS = 100


@record
class ProbeOptions:
    """How a linear probe is trained, and on which dimensions.

    Raises:
        SettingError: One line for an option of another type or out of range, and for options of both classifiers.

    Examples:
        >>> ProbeOptions(epochs=5).choose(images=1000), ProbeOptions().choose(images=1000)
        ('sgd', 'logistic')
    """

    classifier: Classifier | None = setting(
        None,
        "logistic: regression on stored representations of plain images; sgd: trained on new crops and flips.",
        group="probe",
        unset=f"logistic up to {LOGISTIC_MOST} images, sgd beyond",
    )
    images: Whole | None = setting(
        None,
        "Training images of the probe, drawn at random, the same ones every time.",
        group="probe",
        unit="images",
        low=2,
        high=10**9,
        unset="those that the run was trained on, else all",
    )
    subvector: Whole | None = setting(
        None,
        "Probe the first N dimensions only.",
        group="probe",
        unit="dimensions",
        low=1,
        high=WIDEST,
        unset="all",
        metavar="N",
    )
    epochs: Whole | None = setting(
        None,
        "Epochs of sgd; giving them chooses sgd.",
        group="probe",
        unit="epochs",
        low=1,
        high=MOST_EPOCHS,
        unset=f"{SGD_EPOCHS} epochs",
    )
    strength: Number | None = setting(
        None,
        "C of logistic regression, the inverse of its decay; giving it chooses logistic.",
        group="probe",
        low=SMALL,
        high=LARGE,
        unset="chosen on a fifth of the training images",
    )

    def __post_init__(self) -> None:
        """Check what the options say together."""
        if self.classifier == "logistic" and self.epochs is not None:
            raise SettingError(f"`epochs` is {self.epochs}, but `classifier` logistic has none; drop one of them")
        if self.strength is None:
            return
        if self.classifier == "sgd" or self.epochs is not None:
            given = "`epochs`" if self.classifier is None else "`classifier` sgd"
            raise SettingError(
                f"`strength` is {self.strength:g}, but {given} asks for sgd, whose decay is fixed; drop one"
            )

    def choose(self, images: int) -> str:
        """The classifier for so many training images."""
        if self.classifier is not None:
            return self.classifier
        by_sgd = self.epochs is not None or (images > LOGISTIC_MOST and self.strength is None)
        return "sgd" if by_sgd else "logistic"
