"""Checks of the types, names and sizes of what was read from a file, before it is used."""

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from dyncollapse.runtime.files import printable

SchemaT = TypeVar("SchemaT")
# Most characters of a message, which may repeat what was read.
MOST_LETTERS = 200

Count = Annotated[int, Meta(ge=0, le=2**53)]
Size = Annotated[int, Meta(ge=1, le=10**7)]
# These bounds exclude infinity, which is what 1e999 is read as; JSON has no NaN.
Number = Annotated[float, Meta(ge=-1.7e308, le=1.7e308)]
Name = Annotated[str, Meta(max_length=4096)]
Text = Annotated[str, Meta(max_length=10**5)]
Column = Annotated[list[Number | None], Meta(min_length=1, max_length=10**6)]
Spectrum = Annotated[list[Number], Meta(min_length=1, max_length=10**6)]


def checked(values: Any, schema: type[SchemaT]) -> SchemaT:
    """Check that values have the structure of `schema`.

    Args:
        values: Plain values, as `files.read_json` returns them.
        schema: A type that msgspec understands; keys that a `TypedDict` does not name are dropped.

    Returns:
        The values as that type.

    Raises:
        ValueError: In one line that says where the structure differs.

    Examples:
        >>> checked([1, 2], list[Count])
        [1, 2]
        >>> checked([1, "2"], list[Count])
        Traceback (most recent call last):
            ...
        ValueError: Expected `int`, got `str` - at `$[1]`
    """
    try:
        return msgspec.convert(values, schema)
    except msgspec.ValidationError as error:
        raise ValueError(printable(str(error))[:MOST_LETTERS]) from None
