"""How hostile files are written: pickles, archives and headers of whatever claims; `FILES` collects who writes one."""

import io
import pickle
import struct
import warnings
import zipfile
import zlib

import torch

FILES = {}
HOLE = 2**33  # bytes of zeros that take no disk


def file(suffix):
    """Enter a function that writes a file of this kind."""

    def enter(write):
        FILES[f"{write.__name__}{suffix}"] = write
        return write

    return enter


class Raw:
    """Pickled, this is the result of `function(*arguments)`, where the function is named `module.name`."""

    def __init__(self, name, *arguments):
        self.name, self.arguments = name, arguments


class Pickler(pickle._Pickler):
    """Writes `Raw` calls and the persistent ids of storages, of whatever claims they make."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_raw(self, call):
        self.write(b"c" + call.name.rpartition(".")[0].encode() + b"\n" + call.name.rpartition(".")[2].encode() + b"\n")
        self.save(call.arguments)
        self.write(b"R")

    dispatch[Raw] = save_raw

    def persistent_id(self, value):
        return value.identity if isinstance(value, Claim) else None

    def save_class(self, kind):
        self.write(f"ctorch\n{kind.__name__}\n".encode())

    dispatch[type] = save_class


class Claim:
    """A storage of `count` numbers."""

    def __init__(self, count=4, key="0", kind=torch.FloatStorage):
        self.identity = ("storage", kind, key, "cpu", count)


def pickled(content):
    written = io.BytesIO()
    Pickler(written, protocol=2).dump(content)
    return written.getvalue()


def tensor(offset=0, size=(2, 2), stride=(2, 1), storage=None):
    return Raw("torch._utils._rebuild_tensor_v2", storage or Claim(), offset, size, stride, False, None)


def write_pt(path, content, storages=None, **records):
    """A file as torch.save writes it, of a pickle that is `content` or holds it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", content if isinstance(content, bytes) else pickled(content))
        for name, data in {"byteorder": b"little", "version": b"3\n", **records}.items():
            archive.writestr(f"a/{name}", data)
        for key, data in ({"0": bytes(16)} if storages is None else storages).items():
            archive.writestr(f"a/data/{key}", data)


def write_members(path, members, compression=zipfile.ZIP_STORED):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as archive:
        warnings.simplefilter("ignore")  # two members of one name
        for name, data in members:
            archive.writestr(name, data)


def bomb(size):
    """Bytes that deflate makes `size` zeros of: one compressed piece, many times."""
    piece, packer = 2**20, zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(piece)) + packer.flush(zlib.Z_FULL_FLUSH)
    return packed * (size // piece) + b"\x03\x00"


def write_bomb(path, name, head=b"", size=HOLE, others=()):
    """A zip whose member `name` unpacks to `head` and zeros, of `size` bytes together."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(head + bytes(2**20 - len(head))) + packer.flush(zlib.Z_FULL_FLUSH) + bomb(size - 2**20)
    write_members(path, [(name, packed), *others])
    data = bytearray(path.read_bytes())
    central = data.find(b"PK\x01\x02")
    for start, method, sizes in ((0, 8, 18), (central, 10, 20)):
        data[start + method : start + method + 2] = struct.pack("<H", 8)
        data[start + sizes : start + sizes + 8] = struct.pack("<II", len(packed), min(size, 2**32 - 1))
    path.write_bytes(data)


def npy(header=(), version=(1, 0)):
    text = str({"descr": "<f8", "fortran_order": False, "shape": (3, 3)} | dict(header)).encode() + b"\n"
    return (
        b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text + bytes(72)
    )
