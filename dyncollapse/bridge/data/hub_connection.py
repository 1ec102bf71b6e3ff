"""Whether the Hugging Face Hub can be reached: without it, the library `datasets` retries for a minute or more."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from dyncollapse.bridge.data.cache import PATIENCE


@contextmanager
def offline_if_unreachable(library: Any) -> Iterator[None]:
    """Let the library `datasets` use its cache alone in this block, if the Hub does not answer within PATIENCE.

    Args:
        library: The imported library. With HF_HUB_OFFLINE set it is offline already, and nothing is asked.
    """
    from huggingface_hub import constants

    places: tuple[Any, Any] = (constants, library.config)  # both read the environment when they are imported
    before = [place.HF_HUB_OFFLINE for place in places]
    offline = all(before) or not _answers(library.config.HF_ENDPOINT)
    try:
        for place in places:
            place.HF_HUB_OFFLINE = offline
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value


def _answers(address: str) -> bool:
    """Whether a server answers, whatever it says."""
    try:
        with urlopen(Request(address, method="HEAD"), timeout=PATIENCE):
            return True
    except HTTPError:
        return True
    except URLError as error:  # a certificate that only the library's own settings accept is an answer, too
        return "CERTIFICATE" in str(error.reason).upper()
    except (OSError, ValueError):
        return False
