"""Where the page is served, and whether a browser opens: options of `dyncollapse explore`."""

from dyncollapse.runtime.records import Whole, record, setting

HOST = "127.0.0.1"  # the loopback: other machines cannot reach it
MOST_PORT = 2**16 - 1


@record
class ExploreOptions:
    """Where the page is served, and whether a browser opens.

    Raises:
        SettingError: One line for an option of another type or out of range.

    Examples:
        >>> ExploreOptions().port is None
        True
    """

    port: Whole | None = setting(
        None,
        f"Port on {HOST}, which other machines cannot reach.",
        group="page",
        low=1,
        high=MOST_PORT,
        unset="a free one",
    )
    browser: bool = setting(True, "Open the page in the default browser.", group="page")
