"""The index of a set of shards, made once and kept: where every image lies, and its label."""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Int
from safetensors.torch import save
from torch import Tensor

from dyncollapse.bridge.data.cache import cache_folder
from dyncollapse.bridge.data.image_sets import NO_CLASS
from dyncollapse.bridge.data.shard_samples import Samples, Tally, samples_of, stamp_of
from dyncollapse.formats.arrays import read_safetensors
from dyncollapse.runtime import progress
from dyncollapse.runtime.files import unmarked, write_bytes
from dyncollapse.runtime.schemas import Count, Text, checked

THREADS = 16  # shards that are indexed at a time: reading waits for the disk
RULES = "2"  # of what is indexed and how: raised when `samples_of` finds others, so that no earlier index is used
SKIPPED, DIGEST = "skipped", "digest"  # of the file: what was skipped, as JSON; the hash of all else


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Where the images of shards lie.

    Attributes:
        stamps: Size of each shard in bytes and time of its last change in nanoseconds.
        shards: The shard of each image.
        starts: Where it begins there, in bytes.
        sizes: Its length in bytes.
        labels: Its label; -1 without one.
        skipped: What is in the shards and not in the index.
    """

    stamps: Int[Tensor, "s 2"]
    shards: Int[Tensor, " n"]
    starts: Int[Tensor, " n"]
    sizes: Int[Tensor, " n"]
    labels: Int[Tensor, " n"]
    skipped: Tally

    def take(self, kept: Int[Tensor, " k"]) -> "ShardIndex":
        """The index of the images with these numbers, in this order."""
        shards, starts, sizes, labels = self.shards[kept], self.starts[kept], self.sizes[kept], self.labels[kept]
        return ShardIndex(self.stamps, shards, starts, sizes, labels, self.skipped)


COLUMNS = {"stamps": torch.int64, "shards": torch.int32} | dict.fromkeys(("starts", "sizes", "labels"), torch.int64)


def index_of(paths: Sequence[str], tell: Callable[[str], object]) -> ShardIndex:
    """The index of shards: from the cache if it has that of the same files, unchanged; else made, and kept there.

    Args:
        paths: The shards.
        tell: Called with a line every ten seconds while the index is made, and with one if it cannot be kept.

    Returns:
        The index, in the order of `paths` and of the members of each.
    """
    real = [os.path.realpath(path) for path in paths]
    name = hashlib.sha256("\0".join([RULES, *real]).encode(errors="surrogateescape")).hexdigest()[:32]
    kept = cache_folder() / "shards" / f"{name}.safetensors"
    index, done = None, [0]
    with _reported(paths, done, tell):
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(kept.with_suffix(".lock")):  # of several processes, one makes it
                if (index := _read(kept, real)) is None:
                    index = _made(real, done)
                    write_bytes(kept, _as_bytes(index))
        except OSError as error:
            tell(f"`data`: the index of shards cannot be kept in {unmarked(str(kept.parent))} ({error.strerror})")
        return _made(real, done) if index is None else index


@contextmanager
def _reported(paths: Sequence[str], done: list[int], tell: Callable[[str], object]) -> Iterator[None]:
    """Report every few seconds how many shards are indexed."""

    def report() -> None:
        if done[0]:
            tell(f"`data`: indexed {done[0]} of {len(paths)} shards")
        else:
            tell("`data`: another process indexes the shards, or they are slow to open")

    with progress.called_every(progress.LOG_EVERY, report):
        yield


def _made(paths: Sequence[str], done: list[int]) -> ShardIndex:
    """Read the headers of all shards."""
    lock = threading.Lock()

    def one(path: str) -> Samples:
        samples = samples_of(path)
        with lock:
            done[0] += 1
        return samples

    pool = ThreadPoolExecutor(min(THREADS, len(paths)))
    try:
        found = list(pool.map(one, paths))
    finally:
        pool.shutdown(cancel_futures=True)
    skipped = Tally()
    for samples in found:
        skipped.merge(samples.skipped)
    counts = torch.tensor([len(samples.starts) for samples in found])
    starts, sizes, labels = (
        torch.from_numpy(np.concatenate([np.frombuffer(getattr(samples, name), np.int64) for samples in found]))
        for name in ("starts", "sizes", "labels")
    )
    stamps = torch.tensor([samples.stamp for samples in found], dtype=torch.int64)
    shards = torch.arange(len(found), dtype=torch.int32).repeat_interleave(counts)
    return ShardIndex(stamps, shards, starts, sizes, labels, skipped)


def _as_bytes(index: ShardIndex) -> bytes:
    skipped = [[*kind, number, names] for kind, (number, names) in index.skipped.counts.items()]
    columns = {name: getattr(index, name).contiguous() for name in COLUMNS}
    columns[SKIPPED] = torch.frombuffer(bytearray(json.dumps(skipped).encode()), dtype=torch.uint8)
    return save(columns | {DIGEST: torch.frombuffer(bytearray(_digest(columns)), dtype=torch.uint8)})


def _digest(columns: Mapping[str, Tensor]) -> bytes:
    """The hash of columns, which tells of damage on the disk."""
    found = hashlib.sha256()
    for name in (*COLUMNS, SKIPPED):
        found.update(columns[name].numpy().tobytes())
    return found.digest()


def _read(kept: Path, paths: Sequence[str]) -> ShardIndex | None:
    """The index in a file, which anyone may have written; None unless it is sound and fits the shards as they are."""
    try:
        arrays = read_safetensors(kept, mapped=False)
        columns = {name: arrays[name].load() for name in (*COLUMNS, SKIPPED)}
        if arrays[DIGEST].load().numpy().tobytes() != _digest(columns):
            return None
        skipped = json.loads(columns.pop(SKIPPED).numpy().tobytes())
        counts = {
            (one, many): (number, names)
            for one, many, number, names in checked(skipped, list[tuple[Text, Text, Count, list[Text]]])
        }
        stamps = [stamp_of(os.stat(path)) for path in paths]
    except Exception:  # damage can raise anything
        return None
    index = ShardIndex(**columns, skipped=Tally(counts))
    return index if _fits(index, stamps) else None


def _fits(index: ShardIndex, stamps: list[tuple[int, int]]) -> bool:
    count = index.labels.shape[:1]
    whole = all(getattr(index, name).dtype is dtype for name, dtype in COLUMNS.items())
    if not whole or any(getattr(index, name).shape != count for name in COLUMNS if name != "stamps"):
        return False
    if not torch.equal(index.stamps, torch.tensor(stamps, dtype=torch.int64)):
        return False
    if not len(index.labels):
        return True
    shards, lasts = index.shards.long(), index.stamps[:, 0]
    if not (int(shards.min()) >= 0 and int(shards.max()) < len(stamps) and bool((shards.diff() >= 0).all())):
        return False
    least = min(int(index.starts.min()), int(index.sizes.min()), int(index.labels.min()) - NO_CLASS)
    return least >= 0 and bool((index.starts <= lasts[shards] - index.sizes).all())
