"""The samples of one webdataset shard: where its images lie, and their labels."""

import json
import os
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dyncollapse.bridge.data.image_sets import NO_CLASS
from dyncollapse.bridge.data.name_lists import LISTED, counted
from dyncollapse.bridge.data.tar_members import DamagedTar, Member, NoTar, members
from dyncollapse.runtime.untrusted import NoFile, open_regular

# As webdataset parts a name: the key is the path up to the first dot of its last part, the rest is the extension.
KEY_AND_EXTENSION = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)
IMAGE_EXTENSIONS = {"jpg", "jpeg", "png", "webp", "ppm", "pgm", "bmp", "tif", "tiff"}
CLS, JSON = "cls", "json"
LABEL_KEYS = "label", "cls"  # of a sample's .json
MOST_CLS, MOST_JSON = 32, 2**16  # bytes that are read
MOST_LABEL = 2**31

# Reasons to skip something in a shard, in singular and plural.
NOT_TAR = "shard that cannot be read", "shards that cannot be read"
DAMAGED = "shard read only as far as it is sound", "shards read only as far as they are sound"
LINK = "link in a shard", "links in shards"
OTHER = "device or sparse file in a shard", "devices or sparse files in shards"
KEYLESS = "member that belongs to no sample", "members that belong to no sample"
TWICE = "second member of a name in its sample", "second members of a name in their samples"
NO_IMAGE = "sample without an image", "samples without an image"
NO_SPLIT = "shard of another split", "shards of other splits"
NO_LABEL = "sample without a whole number as label", "samples without a whole number as label"
NOT_WHOLE = "label that cannot be read as a whole number", "labels that cannot be read as whole numbers"
SECOND_IMAGE = "second image of its sample", "second images of their samples"


@dataclass
class Tally:
    """How many entries were skipped for each reason, with the names of the first few."""

    counts: dict[tuple[str, str], tuple[int, list[str]]] = field(default_factory=dict)

    def add(self, kind: tuple[str, str], names: Sequence[str], number: int | None = None) -> None:
        """Count entries: as many as names, or `number` of which these are the first."""
        before, own = self.counts.get(kind, (0, []))
        self.counts[kind] = before + (len(names) if number is None else number), [*own, *names][:LISTED]

    def merge(self, other: "Tally") -> None:
        """Add the counts of another tally."""
        for kind, (number, names) in other.counts.items():
            self.add(kind, names, number)

    @property
    def sentence(self) -> str:
        """The counts in words; empty if nothing was counted."""
        return ", ".join(counted(kind, number, names) for kind, (number, names) in self.counts.items())


@dataclass
class Samples:
    """The images of one shard.

    Attributes:
        stamp: Size of the shard in bytes and time of its last change in nanoseconds.
        starts: Where the images begin, in bytes.
        sizes: Their lengths in bytes.
        labels: Their classes; -1 without a label.
        skipped: What is not in these lists.
    """

    stamp: tuple[int, int]
    starts: "array[int]"
    sizes: "array[int]"
    labels: "array[int]"
    skipped: Tally


def stamp_of(status: os.stat_result) -> tuple[int, int]:
    """What changes with a file: its size and the time of its last change, in nanoseconds."""
    return status.st_size, status.st_mtime_ns


def samples_of(path: str) -> Samples:
    """List the samples of a shard by its headers; of contents, only labels are read.

    Args:
        path: The shard. One that cannot be read has no samples, and its reason is among what was skipped.

    Returns:
        The samples.
    """
    found = Samples((0, 0), array("q"), array("q"), array("q"), Tally())
    shard = os.path.basename(path)
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            found.stamp = stamp_of(status)
            if hasattr(os, "posix_fadvise"):  # else the system reads contents ahead that nobody asked for
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            for key, sample in _grouped(members(file, status.st_size), shard, found.skipped):
                _add(found, file, f"{shard}/{key}", sample)
    except DamagedTar as error:
        found.skipped.add(DAMAGED, [f"{shard}: {error}"])
    except (NoTar, NoFile) as error:
        found.skipped.add(NOT_TAR, [f"{shard}: {error}"])
    except OSError as error:
        found.skipped.add(NOT_TAR, [f"{shard}: {error.strerror or error}"])
    return found


def _grouped(found: Iterator[Member], shard: str, skipped: Tally) -> Iterator[tuple[str, dict[str, Member]]]:
    """Yield keys and members by extension: of members one after the other with the same key, as webdataset does."""
    last, sample, damage = "", dict[str, Member](), None
    try:
        for member in found:
            named = KEY_AND_EXTENSION.fullmatch(member.name)
            if member.kind == "folder" or _is_meta(member.name):
                continue
            if member.kind != "file" or named is None:
                kind = {"link": LINK, "other": OTHER}.get(member.kind, KEYLESS)
                skipped.add(kind, [f"{shard}/{member.name}"])
                continue
            key, extension = named[1], named[2].lower()
            if key != last and sample:
                yield last, sample
                sample = {}
            last = key
            if extension in sample:
                skipped.add(TWICE, [f"{shard}/{member.name}"])
            else:
                sample[extension] = member
    except DamagedTar as error:  # an archive that is cut short has samples, too
        damage = error
    if sample:
        yield last, sample
    if damage is not None:
        raise damage


def _is_meta(name: str) -> bool:
    """Whether webdataset leaves a member out, as information on the archive."""
    return name.startswith("__") and name.endswith("__")


def _add(found: Samples, file: Any, name: str, sample: dict[str, Member]) -> None:
    images = [extension for extension in sample if extension in IMAGE_EXTENSIONS]
    if not images:
        found.skipped.add(NO_IMAGE, [name])
        return
    if images[1:]:
        found.skipped.add(SECOND_IMAGE, [name] * len(images[1:]))
    if (label := _label(file, sample)) is None:
        found.skipped.add(NOT_WHOLE, [name])
    image = sample[images[0]]
    found.starts.append(image.start)
    found.sizes.append(image.size)
    found.labels.append(NO_CLASS if label is None else label)


def _label(file: Any, sample: dict[str, Member]) -> int | None:
    """The label in .cls or, without that, in .json; NO_CLASS without one; None if it is no whole number from 0."""
    for extension, most, read in ((CLS, MOST_CLS, _label_of_cls), (JSON, MOST_JSON, _label_of_json)):
        if (member := sample.get(extension)) is not None:
            file.seek(member.start)
            return read(file.read(member.size)) if member.size <= most else None
    return NO_CLASS


def _label_of_cls(content: bytes) -> int | None:
    digits = content.strip()
    return int(digits) if digits.isdigit() and len(digits) <= 10 and int(digits) < MOST_LABEL else None


def _label_of_json(content: bytes) -> int | None:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return None
    given = [values[key] for key in LABEL_KEYS if key in values] if isinstance(values, dict) else []
    whole = (value for value in given if type(value) is int and 0 <= value < MOST_LABEL)
    return next(whole, None if given else NO_CLASS)
