"""Where the members of a tar archive lie, from its headers alone: nothing is extracted, no name becomes a path."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass

BLOCK = 512  # bytes; headers and contents begin at multiples of it
ZEROS = bytes(BLOCK)  # ends an archive
MOST_NOTE = 2**20  # bytes of a long name or of extended attributes
MOST_SPARSE = 2**10  # blocks that list the pieces of a sparse member
FILES, LINKS, FOLDER, WITHOUT_CONTENT, NOTES = b"0\x007", b"12", b"5", b"123456", b"LKxgX"  # kinds of members
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\3\4": "zip"}


class NoTar(ValueError):
    """A file that is no tar archive; the message is a clause."""


class DamagedTar(ValueError):
    """An archive whose headers end in nonsense, or that is cut short; the members before are sound."""


@dataclass(slots=True)
class Member:
    """A member of an archive.

    Attributes:
        name: Its name, as it stands there.
        start: Where its content begins, in bytes.
        size: Bytes of its content.
        kind: file, folder, link, or other (devices, pipes, sparse files).
    """

    name: str
    start: int
    size: int
    kind: str


def members(file: io.BufferedReader, size: int) -> Iterator[Member]:
    """Yield the members of an archive in their order, up to the first block of zeros.

    Args:
        file: The open archive: ustar, or that of GNU or POSIX with long names.
        size: Its size in bytes.

    Yields:
        Members whose content lies within the archive.

    Raises:
        NoTar: If it does not begin with a header.
        DamagedTar: If a header is damaged or says that its content ends beyond the archive.
    """
    _check_begin(file.read(BLOCK))
    at, notes = 0, dict[str, str]()
    while at < size and (header := _read(file, at, BLOCK)) != ZEROS:
        if not _sums_up(header):
            raise DamagedTar(f"byte {at} begins no header")
        kind, length, start = header[156:157], _number(header[124:136]), at + BLOCK
        if kind in WITHOUT_CONTENT:
            length = 0
        if kind == b"S":
            start = _after_sparse(file, start, header)
        if start + length > size:
            raise DamagedTar(f"the member at byte {at} would end at {start + length}, and the file ends at {size}")
        at = start + -(-length // BLOCK) * BLOCK
        if kind in NOTES:
            notes |= _noted(file, kind, start, length)
            continue
        if "size" in notes and kind in FILES:
            length = _decimal(notes["size"])
            if start + length > size:
                raise DamagedTar(f"the member at byte {start - BLOCK} ends beyond the file")
            at = start + -(-length // BLOCK) * BLOCK
        name = notes.get("path") or _name(header)
        yield Member(name, start, length, "other" if "sparse" in notes else _kind(kind, name))
        notes = {}


def member_name(file: io.BufferedReader, start: int) -> str:
    """The name of the member whose content begins at `start`, as its own header has it. Raises DamagedTar."""
    header = _read(file, max(0, start - BLOCK), BLOCK)
    if not _sums_up(header):
        raise DamagedTar("no header precedes the member")
    return _name(header)


def _read(file: io.BufferedReader, at: int, count: int) -> bytes:
    """Bytes of the file, which a buffer may hold already. Raises DamagedTar at its end."""
    file.seek(at)
    if len(content := file.read(count)) < count:
        raise DamagedTar(f"it is cut short at byte {at + len(content)}")
    return content


def _check_begin(header: bytes) -> None:
    for magic, kind in COMPRESSED.items():
        if header.startswith(magic):
            raise NoTar(f"it is compressed by {kind}; unpack that, and keep the .tar")
    if len(header) < BLOCK or not (header == ZEROS or _sums_up(header)):
        raise NoTar("it is no tar archive")


def _sums_up(header: bytes) -> bool:
    """Whether the checksum of a header is right."""
    try:
        said = _number(header[148:156])
    except DamagedTar:
        return False
    return said == sum(header) - sum(header[148:156]) + 8 * 32


def _number(field: bytes) -> int:
    """A number in a header: octal digits, or binary behind a marked byte. Raises DamagedTar for a negative one."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.rstrip(b" \0").lstrip(b" ")
    if digits and digits.strip(b"01234567"):
        raise DamagedTar("a number in a header is none")
    return int(digits or b"0", 8)


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise DamagedTar("the size of a member is no number")
    return int(text)


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return os.fsdecode(prefix + b"/" + name if prefix else name)


def _kind(kind: bytes, name: str) -> str:
    if kind in LINKS:
        return "link"
    if kind == FOLDER or (kind in FILES and name.endswith("/")):
        return "folder"
    return "file" if kind in FILES else "other"


def _after_sparse(file: io.BufferedReader, start: int, header: bytes) -> int:
    """Where the content of a sparse member of GNU begins: after blocks that list its pieces."""
    more, blocks = header[482], 0
    while more:
        if (blocks := blocks + 1) > MOST_SPARSE:
            raise DamagedTar("a sparse member has too many pieces")
        more, start = _read(file, start, BLOCK)[504], start + BLOCK
    return start


def _noted(file: io.BufferedReader, kind: bytes, start: int, length: int) -> dict[str, str]:
    """What a header that precedes a member says of it: path, size, and whether it is sparse."""
    if length > MOST_NOTE:
        raise DamagedTar(f"the attributes at byte {start} take {length} bytes")
    content = _read(file, start, length)
    if kind == b"L":
        return {"path": os.fsdecode(content.split(b"\0", 1)[0])}
    return _attributes(content) if kind in b"xX" else {}


def _attributes(content: bytes) -> dict[str, str]:
    """The attributes of POSIX, each as its length in decimal, a space, its name, =, its value and a line break."""
    known, at = dict[str, str](), 0
    while at < len(content) and content[at]:
        digits, _, _ = content[at : at + 20].partition(b" ")
        if not digits.isdigit() or not len(digits) < int(digits) <= len(content) - at:
            raise DamagedTar("the attributes of a member are damaged")
        name, _, value = content[at + len(digits) + 1 : at + int(digits) - 1].partition(b"=")
        if name in (b"path", b"size"):
            known[name.decode()] = os.fsdecode(value)
        elif name.startswith(b"GNU.sparse."):
            known["sparse"] = ""
        at += int(digits)
    return known
