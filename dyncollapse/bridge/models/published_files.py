"""Files of published models: in a local folder, in the cache of the Hugging Face hub, or downloaded into it."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dyncollapse.bridge.data.cache import PATIENCE
from dyncollapse.runtime.files import first_line, unmarked
from dyncollapse.runtime.settings import SettingError

# What holds weights in timm's layout, best first. None is unpickled: see `checkpoint_tensors`.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
REPOSITORY = re.compile(rf"({PART}/{PART})(?:@([A-Za-z0-9][A-Za-z0-9._/-]{{0,99}}))?")


@dataclass(frozen=True)
class HubModel:
    """A model's repository on the hub.

    Attributes:
        repository: Its name, ORG/NAME.
        revision: A branch, tag or commit; None for the main branch.
        shown: What messages call it.
    """

    repository: str
    revision: str | None
    shown: str

    def file(self, names: Sequence[str]) -> tuple[Path, str | None]:
        """Find the first of some files that the repository has, in the cache or else on the hub.

        What is fetched, from where and to where is said on stderr.

        Args:
            names: Names of files, best first.

        Returns:
            The file, and the commit that it is of, if that is known.

        Raises:
            SettingError: If the hub cannot be reached or does not have them. One line.
        """
        from huggingface_hub import try_to_load_from_cache

        revision = self.revision or "main"
        for name in names:
            cached = try_to_load_from_cache(self.repository, name, revision=revision)
            if isinstance(cached, str):
                return Path(cached), _commit(Path(cached))
        return self._downloaded(names, revision)

    def _downloaded(self, names: Sequence[str], revision: str) -> tuple[Path, str | None]:
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError

        try:
            for name in names:
                try:
                    found = get_hf_file_metadata(hf_hub_url(self.repository, name, revision=revision), timeout=PATIENCE)
                except EntryNotFoundError:
                    continue
                size = f"{found.size / 1e6:.3g} MB" if found.size else "of unknown size"
                where = unmarked(str(constants.HF_HUB_CACHE))
                sys.stderr.write(
                    f"{self.shown}: downloading {name} ({size}) from {constants.ENDPOINT}/{self.repository} into "
                    f"{where}\n"
                )
                path = hf_hub_download(
                    self.repository, name, revision=found.commit_hash or revision, etag_timeout=PATIENCE
                )
                return Path(path), found.commit_hash or _commit(Path(path))
        except Exception as error:  # the library's versions raise errors of several HTTP clients
            raise SettingError(
                f"{self.shown} is not in {unmarked(str(constants.HF_HUB_CACHE))} and cannot be downloaded "
                f"({_reason(error)}); give a local folder with config.json and {WEIGHTS[0]}, or fill that cache where "
                f"there is a network: hf download {self.repository}"
            ) from None
        raise SettingError(
            f"{self.shown} has no {' or '.join(names)} on the hub; give a model in timm's layout, or "
            "download its file and name it, with `arch`"
        )


def _reason(error: Exception) -> str:
    """Why a download failed, in a few words: the hub's messages explain in several lines."""
    line = unmarked(first_line(error)).rstrip(" .:")
    return f"{type(error).__name__}: {line[:200]}" if line and line != type(error).__name__ else type(error).__name__


def hub_model(name: str, shown: str) -> HubModel:
    """Read the name of a repository.

    Args:
        name: ORG/NAME or ORG/NAME@REVISION.
        shown: What messages call it.

    Returns:
        The repository.

    Raises:
        SettingError: For another name.

    Examples:
        >>> hub_model("timm/resnet18.a1_in1k@main", "it").revision
        'main'
    """
    parts = REPOSITORY.fullmatch(name)
    if parts is None or ".." in name:
        raise SettingError(f"{shown} names no repository; write hf-hub:ORG/NAME or hf-hub:ORG/NAME@REVISION")
    return HubModel(parts[1], parts[2], shown)


def local_weights(folder: Path, shown: str) -> Path:
    """The file of weights in a folder of timm's layout. Raises ValueError if there is none."""
    for name in WEIGHTS:
        if (folder / name).exists():
            return folder / name
    raise ValueError(f"{shown} has no {' or '.join(WEIGHTS)}; copy the whole folder, or name the file of weights")


def _commit(path: Path) -> str | None:
    """The commit of a file in the hub's cache, whose snapshots lie in folders named after them."""
    return path.parent.name if path.parent.parent.name == "snapshots" else None
