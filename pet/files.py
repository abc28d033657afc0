"""Files and folders for keys and state: private, atomic, durable; and unnamed ones for what must not outlive the process.

Private: files have mode 0600 in folders of mode 0700, whatever the umask. Atomic: a file is written under another name and then
renamed, so that a reader or a crash finds the old content or the new one. Durable: the bytes are on the disk before the name
is, and the name before the call returns; so is the name of a folder that was just created. A new file never follows a symbolic
link. On Windows there are no modes, and no names to synchronise: there the folders' access lists decide who reads.

Every file of pet that holds a key or a state is written here. This module knows no format. Calls raise OSError where nothing
else is said; any thread may call, but two writers of one path have to agree by a `FileLock`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final, Self

from pet.buffers import Buffer

_FILE_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
#: Not every system has each of them.
_FLAGS: Final = sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_BINARY", "O_NOINHERIT"))
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
#: Opening a named pipe must not wait for a writer.
_READ_ONLY: Final = _FLAGS | os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
#: The ending of a file that is being written; also the released version's, for models.
_UNFINISHED: Final = ".unfinished"
#: A small file takes far less to write: one this old was left by a crash.
_LEFTOVER_SECONDS: Final = 3600.0
_COPY_BYTES: Final = 1 << 20


def shown_fault(error: OSError, path: Path, expected: str) -> str:
    """Return what was expected of a path and what came, for the text of an error.

    `expected` is in words, such as "a folder to keep models in"; an error about a file in the path names that file.
    """
    where, reason = error.filename or path, error.strerror or str(error)
    return f"{where}: {reason}" if reason.startswith("expected") else f"{where}: expected {expected}, got: {reason}"


def make_folder(folder: Path | None) -> Path:
    """Create a folder and those above it, for their owner only; one that exists stays as it is.

    Args:
        folder: None means the system's temporary folder.

    Returns:
        The folder; the names of new ones are durable.
    """
    if folder is None:
        return Path(tempfile.gettempdir())
    missing = []
    for each in (folder, *folder.parents):
        if each.exists():
            break
        missing.append(each)
    for each in reversed(missing):
        each.mkdir(mode=_FOLDER_MODE, exist_ok=True)
        each.chmod(_FOLDER_MODE)  # the umask may have taken more
        sync_folder(each.parent)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    return folder


def make_private_folder(folder: Path) -> Path:
    """Create a folder as `make_folder`; one that exists is closed to everybody but its owner.

    A shared folder, such as /tmp, is refused: closing it would take it from everybody else. A folder that belongs to another
    user is refused by the system.
    """
    make_folder(folder)
    mode = folder.stat().st_mode
    if os.name == "posix" and stat.S_IMODE(mode) != _FOLDER_MODE:
        if mode & stat.S_ISVTX:
            raise PermissionError(errno.EPERM, "expected a folder of its own, got one that users share", str(folder))
        folder.chmod(_FOLDER_MODE)
    return folder


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    if os.name == "nt":  # folders cannot be opened there, and renaming is a transaction of the file system
        return
    descriptor = os.open(folder, _READ_ONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_data(descriptor: int) -> None:
    """Make the bytes of a file durable; of what describes it, only what is needed to read them."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


def begin_writing(descriptor: int, start: int, size: int) -> None:
    """Have bytes of a file written from now on, so that `sync_data` finds little left; does nothing where the system cannot."""
    if hasattr(os, "posix_fadvise"):
        # Linux first writes what it is to drop, and does not wait for that.
        os.posix_fadvise(descriptor, start, size, os.POSIX_FADV_DONTNEED)


def open_private(path: Path, flags: int) -> int:
    """Open a regular file, never by way of a symbolic link, and close it to everybody but its owner.

    Args:
        path: the file.
        flags: of `os.open`, such as O_RDWR | O_CREAT.

    Returns:
        A descriptor.
    """
    try:
        descriptor = os.open(path, flags | _FLAGS | _NO_FOLLOW, _FILE_MODE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "expected a regular file, got a symbolic link", str(path)) from None
        raise
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "expected a regular file, got something else", str(path))
        if os.name == "posix" and stat.S_IMODE(mode) != _FILE_MODE:
            os.fchmod(descriptor, _FILE_MODE)
    except BaseException:
        os.close(descriptor)
        if flags & os.O_EXCL:
            path.unlink()
        raise
    return descriptor


def create_private(path: Path) -> BinaryIO:
    """Create a private file that was not there before, and return it open for writing."""
    return os.fdopen(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb")


def touch_private(path: Path) -> None:
    """Make sure that there is a private file, empty if it is new; its name is durable."""
    os.close(open_private(path, os.O_RDWR | os.O_CREAT))
    sync_folder(path.parent)


def read_private(path: Path, max_bytes: int | None = None) -> bytes:
    """Read a file that only its owner can read; a symbolic link to such a file is followed.

    Raises:
        PermissionError: others can read it too; `strerror` says so.
        OSError: it cannot be read, or has more than `max_bytes` bytes.
    """
    with open(path, "rb", opener=lambda name, _: os.open(name, _READ_ONLY)) as file:
        mode = os.fstat(file.fileno()).st_mode
        if os.name == "posix" and mode & _OTHERS:
            reason = f"expected a file that only its owner can read (chmod 600), got mode {stat.S_IMODE(mode):o}"
            raise PermissionError(errno.EPERM, reason, str(path))
        data = file.read() if max_bytes is None else file.read(max_bytes + 1)
    if max_bytes is not None and len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"expected at most {max_bytes} bytes, got more", str(path))
    return data


def write_new(path: Path, parts: Iterable[Buffer]) -> int:
    """Create a private file and make its bytes durable; its name is after `sync_folder`. Returns the size in bytes.

    If that fails, the file is removed.
    """
    file = create_private(path)
    try:
        with file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
            return file.tell()
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def copy_new(source: BinaryIO | io.FileIO, path: Path) -> None:
    """Copy an open file, from its beginning, as `write_new` does."""
    source.seek(0)
    write_new(path, iter(lambda: source.read(_COPY_BYTES), b""))


def replace_file(path: Path, parts: Iterable[Buffer]) -> int:
    """Write a file privately, atomically and durably. Returns the size in bytes.

    If that fails, the old content is still there. A crash can leave an unfinished file beside it: see `remove_unfinished`.
    """
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}{_UNFINISHED}")
    size_bytes = write_new(unfinished, parts)
    try:
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return size_bytes


def write_private(path: Path, text: str) -> None:
    """Write a small file of text as `replace_file` does, and remove what a crash left of an earlier attempt."""
    remove_unfinished(path, min_age_seconds=_LEFTOVER_SECONDS)
    replace_file(path, [text.encode()])


def remove_unfinished(path: Path, *, min_age_seconds: float = 0.0) -> None:
    """Remove what crashes left of attempts to write a file, or any file of a folder.

    Args:
        path: the file, or a folder. Unless an age is given, nobody may be writing there.
        min_age_seconds: how old a leftover has to be.
    """
    folder, start = (path, "") if path.is_dir() else (path.parent, f"{path.name}.")
    latest = time.time() - min_age_seconds
    for each in folder.iterdir():
        if each.name.startswith(start) and each.name.endswith(_UNFINISHED):
            with contextlib.suppress(OSError):  # another process may have been faster
                if min_age_seconds == 0 or each.lstat().st_mtime <= latest:
                    each.unlink()


def open_unnamed(folder: Path) -> io.FileIO:
    """Create a file without a name in a folder; the system frees it with the process, also if that is killed."""
    try:
        # Not by tempfile, whose files can never be given a name (O_EXCL).
        file = io.FileIO(os.open(folder, os.O_TMPFILE | os.O_RDWR | _FLAGS, _FILE_MODE), "r+")
    except (AttributeError, OSError):  # not Linux, or a file system without such files
        return tempfile.TemporaryFile(buffering=0, dir=folder)
    os.fchmod(file.fileno(), _FILE_MODE)  # the umask may have taken more
    return file


def name_file(file: io.FileIO, path: Path) -> None:
    """Give a file of `open_unnamed` its name, durable after `sync_folder`; copy it where that cannot be done.

    The bytes are durable if the caller has called `sync_data`.
    """
    if not hasattr(os, "O_TMPFILE"):
        copy_new(file, path)
        return
    folder = os.open(path.parent, _READ_ONLY)
    try:
        # With a folder given Python calls linkat, which follows the link in /proc to the file itself.
        os.link(f"/proc/self/fd/{file.fileno()}", path.name, dst_dir_fd=folder)
    except FileExistsError:
        raise
    except OSError:
        copy_new(file, path)
    finally:
        os.close(folder)


def link_or_copy(source: Path, path: Path) -> None:
    """Give a file, whose bytes are durable, another name too, durable after `sync_folder`; between file systems, copy it."""
    try:
        os.link(source, path)
    except FileExistsError:
        raise
    except OSError:
        with source.open("rb") as file:
            copy_new(file, path)


class FileLock:
    """An exclusive lock, held until it is closed or the process ends. The file stays: removing it would let two in.

    Args:
        path: the file, created if it is missing.
        waits: wait for the holder (on Windows for ten seconds at most).

    Raises:
        BlockingIOError: another process holds it.
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, *, waits: bool = False) -> None:
        self._descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
        try:
            _lock(self._descriptor, waits=waits)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the lock; calling it twice does no harm."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lock(descriptor: int, *, waits: bool) -> None:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_LOCK if waits else msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(error.errno, error.strerror) from None
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
