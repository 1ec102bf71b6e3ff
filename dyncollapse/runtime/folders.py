"""Folders for results: held by one process at a time, and filled whole or left as they were."""

import errno
import itertools
import os
import platform
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import strftime

from filelock import FileLock, Timeout

from dyncollapse.runtime.files import (
    PARTIAL,
    CannotWrite,
    is_partial,
    partial_path,
    printable,
    remove_partial,
    writing,
)
from dyncollapse.runtime.untrusted import KINDS

LOCK, HOLDER = ".lock", ".lock.holder"
# Holds results that are whole and are on their way into the folder around it: the next process finishes that.
MOVING = ".moving"
# End hidden names beside a folder: what will replace it while it is filled, and once it is whole.
FILLING, WHOLE = ".filling", ".whole"
# A disk that is full or broken, not a folder that was named wrongly.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


class InUse(ValueError):
    """Another process holds the folder."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes. The lock goes with the process, however that ends.

    Raises InUse, one line, where another process holds it; OSError where the lock cannot be written.
    """
    holder, lock = folder / HOLDER, FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = "another process"
        with suppress(OSError):
            who = holder.read_text(errors="replace").strip()[:200] or who
        raise InUse(f"{folder} is in use by {who}; wait for its end, or name another folder") from None
    try:
        with suppress(OSError):  # advice for who is refused
            holder.write_text(f"process {os.getpid()} on {platform.node()}, since {strftime('%Y-%m-%d %H:%M:%S')}\n")
        yield
    finally:
        _let_go(folder)
        lock.release()


def _let_go(folder: Path) -> None:
    """Remove what `held` wrote, while the lock is still held: who waits for it will notice, and start over."""
    for name in (HOLDER, LOCK):
        with suppress(OSError):  # Windows keeps open files; the next process finds it free and uses it
            (folder / name).unlink(missing_ok=True)


@contextmanager
def claimed_folder(
    out: Path | None, name: str, goes_on: Callable[[Path], bool] = lambda _folder: False
) -> Iterator[Path]:
    """The run folder, held until the end of the block: `out`, new or empty, or the next free runs/NAME-NNNN.

    What a killed process left unfinished in it is removed. A folder with content is refused, unless `goes_on` says of
    it, while it is held, that the command continues what a killed one began. Where nothing was saved in the block,
    what was created for it is removed again. Raises ValueError, one line, where the folder is taken, holds files or
    cannot be written; CannotWrite where the disk is full.
    """
    with ExitStack() as stack:
        yield _claim_next(name, stack) if out is None else _claim(out, goes_on, stack)


@contextmanager
def whole_folder(out: Path | None, name: str) -> Iterator[tuple[Path, Path]]:
    """A temporary folder to fill, which replaces the claimed one at the end of the block, and the claimed one.

    Whenever the process is killed, the claimed folder holds all of the results or none of them. Raises what
    `claimed_folder` does.
    """
    with claimed_folder(out, name) as folder:
        home = folder.resolve()
        beside = home.with_name(f".{home.name}{PARTIAL}")
        # A mount point, or where the user's shell stands, cannot be replaced: it is filled from within.
        within = home.is_mount() or home == Path.cwd() or not os.access(home.parent, os.W_OK)
        partial = partial_path(home / name) if within else beside
        shutil.rmtree(partial, ignore_errors=True)
        with writing(folder):
            partial.mkdir()
        try:
            with _named(folder, partial):
                yield partial, folder
                with writing(folder):
                    _fill_from(partial, home) if within else _replace(partial, home)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[tuple[Path, Path]]:
    """A temporary folder to fill, which takes the place of `folder` and of all that it holds at the end of the block.

    Whenever the process is killed, the folder holds all of the earlier results or all of the new ones, but for the
    moment between two renames: then it is not there, and the next process puts the new ones there. Where the block
    fails, the earlier ones stay.

    Args:
        folder: It need not be there, but the folder around it must.

    Yields:
        The temporary folder, and `folder`.

    Raises:
        InUse: Where another process is about to replace it.
        ValueError: Where it cannot be written, and where a file has its name.
        CannotWrite: Where the disk is full.
    """
    home = folder.resolve()
    if home.exists() and not home.is_dir():
        raise ValueError(f"{folder} is in the way; move it away, or name another folder with --out")
    filling, whole = (home.with_name(f".{home.name}{end}") for end in (FILLING, WHOLE))
    with ExitStack() as stack:
        try:
            filling.mkdir(exist_ok=True)
            stack.enter_context(held(filling))
        except InUse as error:
            raise InUse(str(error).replace(str(filling), str(folder), 1)) from None
        except OSError as error:
            if error.errno in DISK:
                raise CannotWrite(error.errno, error.strerror, str(folder)) from error
            raise ValueError(f"{folder} cannot be written ({error.strerror}); name another with --out") from error
        try:
            with _named(folder, filling), writing(folder):
                if whole.is_dir():
                    _swap(whole, home)
                empty(filling)
            with _named(folder, filling):
                yield filling, folder
                with writing(folder):
                    _let_go(filling)
                    os.rename(filling, whole)
                    _swap(whole, home)
        finally:
            shutil.rmtree(filling, ignore_errors=True)


@contextmanager
def _named(folder: Path, partial: Path) -> Iterator[None]:
    """Raise CannotWrite of a file in `partial`, a name that the user has never heard of, as of one in `folder`."""
    try:
        yield
    except CannotWrite as error:
        file = Path(str(error.filename))
        shown = folder / file.relative_to(partial) if file.is_relative_to(partial) else file
        raise CannotWrite(error.errno, error.strerror, str(shown)) from error


def _swap(whole: Path, home: Path) -> None:
    old = partial_path(home)
    if home.exists():
        os.rename(home, old)
    os.rename(whole, home)
    shutil.rmtree(old, ignore_errors=True)


def _claim_next(name: str, stack: ExitStack) -> Path:
    for number in itertools.count(1):
        with suppress(_Taken, InUse):
            return _claim(Path("runs") / f"{name}-{number:04d}", lambda _folder: False, stack)
    raise AssertionError("unreachable: the count has no end")


def _claim(folder: Path, goes_on: Callable[[Path], bool], stack: ExitStack) -> Path:
    taken = _Taken(f"--out {folder} already holds files; name a new folder or remove it")
    try:
        with ExitStack() as own:
            new = [path for path in (folder, *folder.parents) if not path.exists()]
            if not (new or is_free(folder) or goes_on(folder) or (folder / MOVING).is_dir()):
                raise taken  # before anything is written into it
            own.callback(_remove_empty, new)
            folder.mkdir(parents=True, exist_ok=True)
            own.enter_context(held(folder))
            _clear(folder)
            if not (is_free(folder) or goes_on(folder)):
                raise taken
            stack.push(own.pop_all())
    except OSError as error:
        if error.errno in DISK:
            raise CannotWrite(error.errno, error.strerror, str(folder)) from error
        raise ValueError(
            f"--out {folder} cannot be written ({error.strerror}); name a folder you may write to"
        ) from error
    return folder


class _Taken(ValueError):
    """The folder holds files."""


def is_free(folder: Path) -> bool:
    """Whether a folder holds nothing but what a killed process leaves."""
    return all(is_partial(path) or path.name in (LOCK, HOLDER) for path in folder.iterdir())


def empty(folder: Path) -> None:
    """Remove what is in a folder that is held, but for the lock."""
    for path in folder.iterdir():
        if path.name not in (LOCK, HOLDER):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _clear(folder: Path) -> None:
    """Remove what a killed process left in a folder that is held, or finish what it had only to move."""
    if (folder / MOVING).is_dir():
        _move_up(folder)
    remove_partial(folder)


def _replace(partial: Path, folder: Path) -> None:
    _let_go(folder)
    if os.name == "nt":  # where a folder cannot be renamed to an empty one
        folder.rmdir()
    os.rename(partial, folder)  # over an empty folder only: one in which another process writes is refused


def _fill_from(partial: Path, folder: Path) -> None:
    os.rename(partial, folder / MOVING)
    _move_up(folder)


def _move_up(folder: Path) -> None:
    for path in (folder / MOVING).iterdir():
        os.rename(path, folder / path.name)
    (folder / MOVING).rmdir()


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the innermost first, until one is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def check_folder(path: str | Path, wanted: str) -> None:
    """Refuse what is no folder, by what it is.

    Args:
        path: Links are followed.
        wanted: What to do, as "name the folder of a sweep".

    Raises:
        ValueError: One line, for what is not there, cannot be reached or is of another kind.

    Example:
        >>> check_folder("/dev/null", "name a run")
        Traceback (most recent call last):
            ...
        ValueError: /dev/null is a device, not a folder; name a run
    """
    shown = printable(os.fspath(path))
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise ValueError(f"{shown} is no folder ({error.strerror}); {wanted}") from None
    if not stat.S_ISDIR(mode):
        kind = "a file" if stat.S_ISREG(mode) else KINDS.get(stat.S_IFMT(mode), "special")
        raise ValueError(f"{shown} is {kind}, not a folder; {wanted}")
