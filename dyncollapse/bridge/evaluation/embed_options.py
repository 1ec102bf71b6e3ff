"""Which of an encoder's spaces and views are saved, and of which images: options of `bridge embed`."""

from typing import Literal

from dyncollapse.bridge.spaces import SPACES, SpaceName
from dyncollapse.runtime.records import record, setting

Split = Literal["train", "test"]
EmbeddedViews = Literal["clean", "one-sided", "two-sided"]
Saved = Literal[SpaceName, "both"]


@record
class EmbedOptions:
    """Which of an encoder's spaces and views are saved, and of which images.

    Raises:
        SettingError: One line for an option of another type or out of range.

    Examples:
        >>> EmbedOptions(space="both").spaces, EmbedOptions().spaces
        (('representation', 'embedding'), None)
    """

    space: Saved | None = setting(
        None,
        "Which space to save: representation, before the projector; embedding, after it; or both.",
        group="embeddings",
        unset="both; representation for a published model, which has no projector",
    )
    split: Split | None = setting(None, "Which images.", group="data", unset="test if there are any, else train")
    views: EmbeddedViews = setting(
        "clean",
        "clean: the plain images; one-sided: an augmented view of each besides; two-sided: two augmented views.",
        group="embeddings",
        unset="clean: one view is enough to count dimensions",
    )

    @property
    def spaces(self) -> tuple[str, ...] | None:
        """The spaces by name; None for those that an encoder has."""
        return SPACES if self.space == "both" else (self.space,) if self.space else None
