"""The two spaces of an encoder, where embeddings are taken; nothing heavy is imported for their names."""

from typing import Literal, get_args

SpaceName = Literal["representation", "embedding"]  # before and after the projector
SPACES: tuple[str, ...] = get_args(SpaceName)
