"""Read zip archives from strangers: sizes are checked before anything is unpacked."""

import io
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dyncollapse.runtime.process import available_memory
from dyncollapse.runtime.untrusted import Refused, open_regular

# Bytes of the list of members, at least 46 bytes each: zipfile reads a list of this length in 1.5 seconds.
MOST_DIRECTORY = 2**23
# Deflate packs at most 1032 bytes into one. Embeddings shrink to a quarter, one-hot rows to a hundredth.
MOST_DEFLATED, MOST_RATIO, FREE = 1032, 100, 2**30
CHUNK = 2**20
LOCAL_HEADER = 30  # bytes; a name and a field follow, whose lengths are in it
STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


class _Bounded(io.BufferedReader):
    """A file that reads at most `MOST_DIRECTORY` bytes at once, since zipfile reads the whole list of members."""

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(MOST_DIRECTORY + 1 if size is None or size < 0 else min(size, MOST_DIRECTORY + 1))
        if len(content) > MOST_DIRECTORY:
            raise Refused(f"lists too many members (over {MOST_DIRECTORY} bytes of names and sizes); save fewer arrays")
        return content


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive whose list of members is sound.

    Args:
        path: A regular file.

    Yields:
        The archive. No two of its members share a name, none is encrypted, and each lies in the file.

    Raises:
        OSError: For a file that cannot be read.
        ValueError: `Refused` for an archive that is not sound; another for a file that is not regular.
        zipfile.BadZipFile: For a file that is not a zip archive.
    """
    with _Bounded(open_regular(path).detach()) as file, zipfile.ZipFile(file) as archive:
        size = file.seek(0, io.SEEK_END)
        if len(archive.NameToInfo) < len(archive.filelist):
            raise Refused("holds two members of one name; save it again")
        for member in archive.filelist:
            if member.flag_bits & 1:
                raise Refused("is encrypted; save it without a password")
            if member.compress_type not in (STORED, DEFLATED):
                raise Refused("is compressed by another method than deflate; save it again, deflated or not compressed")
            most = member.compress_size if member.compress_type == STORED else MOST_DEFLATED * member.compress_size
            if member.compress_size > size or member.file_size > most + CHUNK * (member.compress_type == DEFLATED):
                raise Refused("is damaged or truncated; copy it or save it again")
        yield archive


def check_unpacked(members: Iterable[zipfile.ZipInfo]) -> None:
    """Refuse members that unpack to more than memory holds, or to far more bytes than embeddings do.

    Args:
        members: Members of an archive that will be unpacked together.

    Raises:
        ValueError: `Refused`, with the size.
    """
    unpacked = packed = 0
    for member in members:
        unpacked, packed = unpacked + member.file_size, packed + member.compress_size
    check_growth(unpacked, packed)


def check_growth(unpacked: int, packed: int) -> None:
    """Refuse what takes more memory than there is, or far more bytes than it has in the file.

    Args:
        unpacked: Bytes in memory.
        packed: Bytes in the file.

    Raises:
        ValueError: `Refused`, with the size.
    """
    if unpacked > max(FREE, MOST_RATIO * packed):
        raise Refused(
            f"unpacks to {unpacked / 2**30:.3g} GiB from {packed / 2**20:.3g} MiB, more than embeddings do; save a .npy"
        )
    check_room(unpacked)


def check_room(size: int) -> None:
    """Refuse to read more bytes at once than memory holds.

    Args:
        size: Number of bytes.

    Raises:
        ValueError: `Refused`, with the size.
    """
    room = available_memory()
    if room is not None and size > room:
        raise Refused(f"does not fit into memory ({size / 2**30:.3g} GiB); save a .npy, which is never read whole")


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytearray:
    """Read a member of an archive.

    Args:
        archive: The archive.
        member: A member that `check_unpacked` accepts.

    Returns:
        As many bytes as the archive states for it.

    Raises:
        EOFError: For a member with fewer bytes.
    """
    content = bytearray(member.file_size)
    view, done = memoryview(content), 0
    with archive.open(member) as file:
        while done < len(content):  # in pieces, since a member may hold more bytes than stated
            piece = file.read(min(CHUNK, len(content) - done))
            if not piece:
                raise EOFError
            view[done : done + len(piece)] = piece
            done += len(piece)
    return content


def offset_in_file(content: np.ndarray[Any, np.dtype[np.uint8]], member: zipfile.ZipInfo) -> int:
    """Return the position in a file's content at which a member's bytes begin."""
    header = bytes(content[member.header_offset :][:LOCAL_HEADER])
    if len(header) < LOCAL_HEADER or not header.startswith(b"PK\3\4"):
        raise Refused("is damaged or truncated; copy it or save it again")
    return member.header_offset + LOCAL_HEADER + sum(int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
