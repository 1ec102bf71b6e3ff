"""Checks of what is read back from a file: types, names and sizes, before anything is made of what it holds."""

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from dyncollapse.runtime.files import printable

SchemaT = TypeVar("SchemaT")
# Letters of a complaint, for it may repeat what was read.
MOST_LETTERS = 200

Count = Annotated[int, Meta(ge=0, le=2**53)]
Size = Annotated[int, Meta(ge=1, le=10**7)]
# JSON has no NaN; these bounds leave out infinity, which numbers such as 1e999 become.
Number = Annotated[float, Meta(ge=-1.7e308, le=1.7e308)]
Name = Annotated[str, Meta(max_length=4096)]
Text = Annotated[str, Meta(max_length=10**5)]
Column = Annotated[list[Number | None], Meta(min_length=1, max_length=10**6)]
Spectrum = Annotated[list[Number], Meta(min_length=1, max_length=10**6)]


def checked(values: Any, schema: type[SchemaT]) -> SchemaT:
    """What was read from a file, when it has the shape of `schema`.

    Args:
        values: Plain values, as `files.read_json` gives them.
        schema: A type that msgspec knows; of a `TypedDict` only the keys that it names are kept.

    Returns:
        The values as that type.

    Raises:
        ValueError: One line that says where the shape differs.

    Example:
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
