"""Folders for results: locked by one process at a time, and replaced whole or left as they were."""

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
# A folder of complete results that are being moved into the folder around it; the next process finishes the move.
MOVING = ".moving"
# Ends of the hidden names beside a folder of what will replace it: while it is being filled, and once it is complete.
FILLING, WHOLE = ".filling", ".whole"
# Errors of a full or broken disk, as opposed to those of a wrong name.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


class InUse(ValueError):
    """Another process holds the folder."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes within the block; the lock ends with the process, even by a kill.

    Args:
        folder: It must exist.

    Raises:
        InUse: Where another process holds it; the message says which.
        OSError: Where the lock file cannot be written.
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
        with suppress(OSError):  # only a hint for the process that is refused
            holder.write_text(f"process {os.getpid()} on {platform.node()}, since {strftime('%Y-%m-%d %H:%M:%S')}\n")
        yield
    finally:
        _let_go(folder)
        lock.release()


def _let_go(folder: Path) -> None:
    """Remove the files of `held` while the lock is still held; a process that waits for it notices and starts over."""
    for name in (HOLDER, LOCK):
        with suppress(OSError):  # Windows keeps open files; the next process can lock the one that stays
            (folder / name).unlink(missing_ok=True)


@contextmanager
def claimed_folder(
    out: Path | None, name: str, goes_on: Callable[[Path], bool] = lambda _folder: False
) -> Iterator[Path]:
    """Lock a run folder within the block; unfinished files of a killed process are removed from it.

    A folder in which nothing was saved is removed at the end, together with the parents that were made for it.

    Args:
        out: The folder, new or empty; None for the next free runs/NAME-NNNN.
        name: NAME.
        goes_on: Called with a locked folder that holds files: True where the command continues what a killed one
            began there.

    Yields:
        The folder.

    Raises:
        ValueError: Where the folder is in use, holds files or cannot be written.
        CannotWrite: Where the disk is full.
    """
    with ExitStack() as stack:
        yield _claim_next(name, stack) if out is None else _claim(out, goes_on, stack)


@contextmanager
def whole_folder(out: Path | None, name: str) -> Iterator[tuple[Path, Path]]:
    """Lock a run folder, as `claimed_folder` does, and fill it all at once at the end of the block.

    Whenever the process is killed, the run folder holds all of the results or none of them.

    Args:
        out: As for `claimed_folder`.
        name: As for `claimed_folder`.

    Yields:
        A temporary folder to fill, and the run folder that it replaces.

    Raises:
        ValueError: As `claimed_folder`.
        CannotWrite: As `claimed_folder`.
    """
    with claimed_folder(out, name) as folder:
        home = folder.resolve()
        beside = home.with_name(f".{home.name}{PARTIAL}")
        # A mount point and the current folder cannot be replaced: they are filled from a folder inside them.
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
    """Replace a folder and all that it holds at the end of the block by one that the block fills.

    Whenever the process is killed, the folder holds all of the earlier results or all of the new ones. The one
    exception is a kill between two renames: the folder is then missing, and the next process puts the new results
    there. Where the block fails, the earlier results stay.

    Args:
        folder: It need not exist, but its parent must.

    Yields:
        A temporary folder to fill, and `folder`.

    Raises:
        InUse: Where another process is replacing it.
        ValueError: Where it cannot be written, or is a file.
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
    """Let CannotWrite name the file's place in `folder`, not in `partial`, which the user has never seen."""
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
                raise taken  # before anything is written
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
    """The folder holds files of its user."""


def is_free(folder: Path) -> bool:
    """Whether a folder holds nothing but what a killed process may leave."""
    return all(is_partial(path) or path.name in (LOCK, HOLDER) for path in folder.iterdir())


def empty(folder: Path) -> None:
    """Remove all but the lock from a locked folder."""
    for path in folder.iterdir():
        if path.name not in (LOCK, HOLDER):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _clear(folder: Path) -> None:
    """Remove a killed process's unfinished files from a locked folder, or finish moving its complete ones."""
    if (folder / MOVING).is_dir():
        _move_up(folder)
    remove_partial(folder)


def _replace(partial: Path, folder: Path) -> None:
    _let_go(folder)
    if os.name == "nt":  # Windows renames to no existing folder, not even an empty one
        folder.rmdir()
    os.rename(partial, folder)  # works on an empty folder only, so that no other process's files are lost


def _fill_from(partial: Path, folder: Path) -> None:
    os.rename(partial, folder / MOVING)
    _move_up(folder)


def _move_up(folder: Path) -> None:
    for path in (folder / MOVING).iterdir():
        os.rename(path, folder / path.name)
    (folder / MOVING).rmdir()


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove empty folders, innermost first, up to the first that is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def check_folder(path: str | Path, wanted: str) -> None:
    """Refuse a path that is no folder, in a message that says what it is.

    Args:
        path: Links are followed.
        wanted: The advice at the end of the message, as "name the folder of a sweep".

    Raises:
        ValueError: For a path that does not exist, cannot be reached or is no folder.

    Examples:
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
