"""Files for keys and state: private whatever the umask, whole or as before, and on the disk when the call returns."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import fork_server
import pytest
from pet_modules import module_names

from pet import files
from pet.coordinator.model_store import FolderModelStore
from pet.coordinator.storage.sqlite import DATABASE_NAME, SqliteStorage
from pet.errors import StateError, StorageError
from pet.federation.server.store import FederationStore
from pet.files import FileLock

OLD, NEW = b"the old content", b"the new content"


class Killed(BaseException):
    """What ends a process without a chance to clean up."""


@pytest.fixture(params=[0, 0o077, 0o777], ids=["umask 000", "umask 077", "umask 777"])
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.fixture
def synced(monkeypatch):
    """The paths whose bytes or names were made durable, in order, by the real call."""
    paths, real = [], os.fsync

    def record(descriptor):
        paths.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr("pet.files.os.fsync", record)
    return paths


def mode_of(path):
    return stat.S_IMODE(path.lstat().st_mode)


def open_files():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


WRITERS = {
    "write_private": lambda path: files.write_private(path, NEW.decode()),
    "replace_file": lambda path: files.replace_file(path, [NEW[:3], memoryview(NEW)[3:]]),
    "write_new": lambda path: files.write_new(path, [NEW]),
    "touch_private": files.touch_private,
    "create_private": lambda path: files.create_private(path).close(),
    "FileLock": lambda path: FileLock(path).close(),
    "copy_new": lambda path: copy_this_file(path),
    "name_file": lambda path: name_unnamed(path),
}


def copy_this_file(path):
    with Path(__file__).open("rb") as source:
        files.copy_new(source, path)


def name_unnamed(path):
    with files.open_unnamed(path.parent) as file:
        file.write(NEW)
        files.sync_data(file.fileno())
        files.name_file(file, path)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_files_are_private_whatever_the_umask(tmp_path, umask, write):
    folder = files.make_private_folder(tmp_path / "a" / "b")
    write(folder / "key")
    assert mode_of(folder / "key") == 0o600
    assert mode_of(folder) == mode_of(folder.parent) == 0o700


@pytest.mark.parametrize("write", [files.touch_private, lambda path: FileLock(path).close(), WRITERS["write_private"]])
def test_a_file_that_others_can_read_is_closed_to_them_before_it_is_used(tmp_path, write):
    path = tmp_path / "key"
    path.write_bytes(OLD)
    path.chmod(0o666)
    write(path)
    assert mode_of(path) == 0o600


def test_an_existing_folder_is_closed_to_others_and_a_shared_one_refused(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(0o755)
    assert files.make_folder(folder) == folder
    assert files.make_folder(None) == Path(tempfile.gettempdir())
    assert mode_of(folder) == 0o755
    files.make_private_folder(folder)
    assert mode_of(folder) == 0o700
    folder.chmod(0o1777)
    with pytest.raises(PermissionError, match="expected a folder of its own, got one that users share"):
        files.make_private_folder(folder)
    assert mode_of(folder) == 0o1777


SHARED = {
    "coordinator": (lambda folder: SqliteStorage(folder), StorageError),
    "models": (lambda folder: FolderModelStore(folder, history=1), StorageError),
    "federations": (lambda folder: FederationStore(folder), StateError),
}


@pytest.mark.parametrize(("start", "kind"), SHARED.values(), ids=SHARED.keys())
def test_a_store_says_why_it_cannot_use_a_folder(tmp_path, start, kind):
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    with pytest.raises(kind, match=rf"^{folder}: expected a folder of its own, got one that users share$"):
        start(folder)
    (tmp_path / "file").touch()
    with pytest.raises(kind, match=rf"^{tmp_path}/file/state: expected a folder to keep \w+ in, got: Not a directory$"):
        start(tmp_path / "file" / "state")


@pytest.mark.parametrize(
    ("start", "name", "kind"),
    [(SqliteStorage, DATABASE_NAME, StorageError), (FederationStore, "federations.sqlite3", StateError)],
)
def test_a_database_is_not_opened_through_a_symbolic_link(tmp_path, start, name, kind):
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(kind, match=rf"^{folder}/{name}: expected a regular file, got a symbolic link$"):
        start(folder)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("make", [files.make_folder, files.make_private_folder])
def test_what_is_no_folder_is_refused(tmp_path, make):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    for name in ("file", "file/folder", "nowhere"):
        with pytest.raises((NotADirectoryError, FileExistsError)):
            make(tmp_path / name)
    assert not (tmp_path / "absent").exists()


def test_the_name_of_each_new_folder_is_durable(tmp_path, synced):
    """A loss of power must not take the folder from under files that were synchronised."""
    files.make_private_folder(tmp_path / "a" / "b" / "c")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    synced.clear()
    files.make_private_folder(tmp_path / "a" / "b" / "c")
    assert synced == []


def test_bytes_are_durable_before_the_name_and_the_name_before_the_call_returns(tmp_path, synced, monkeypatch):
    names, real = [], Path.replace

    def rename(self, target):
        names.append((self, list(synced)))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", rename)
    files.replace_file(tmp_path / "state", [NEW])
    ((unfinished, before),) = names
    assert before == [unfinished]
    assert synced == [unfinished, tmp_path]


def test_a_new_empty_file_has_a_durable_name(tmp_path, synced):
    files.touch_private(tmp_path / "database")
    assert synced == [tmp_path]


def fail_on(monkeypatch, name, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(name, fail)


@pytest.mark.parametrize("call", ["pet.files.os.fsync", "pet.files.Path.replace", "pet.files.os.fstat"])
def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "state"
    files.replace_file(path, [OLD])
    with monkeypatch.context() as patch:
        fail_on(patch, call, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(OSError, match="No space left"):
            files.write_private(path, "new")
    assert path.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [path]


def test_a_source_that_fails_half_way_leaves_the_old_content(tmp_path):
    def parts():
        yield NEW
        raise ValueError("the model cannot be encoded")

    path = tmp_path / "state"
    files.replace_file(path, [OLD])
    with pytest.raises(ValueError, match="cannot be encoded"):
        files.replace_file(path, parts())
    with pytest.raises(ValueError, match="cannot be encoded"):
        files.write_new(tmp_path / "new", parts())
    assert [each.name for each in tmp_path.iterdir()] == ["state"]
    assert path.read_bytes() == OLD


def crash_before_renaming(path, monkeypatch):
    with monkeypatch.context() as patch:
        fail_on(patch, "pet.files.Path.replace", Killed())
        fail_on(patch, "pet.files.Path.unlink", Killed())
        with pytest.raises(Killed):
            files.replace_file(path, [NEW])


def test_a_crash_before_the_rename_leaves_the_old_file_and_a_leftover_that_goes(tmp_path, monkeypatch):
    path, other = tmp_path / "state", tmp_path / "state2"
    for each in (path, other):
        files.replace_file(each, [OLD])
        crash_before_renaming(each, monkeypatch)
        assert each.read_bytes() == OLD
    assert len(list(tmp_path.iterdir())) == 4
    files.remove_unfinished(path)
    assert len(list(tmp_path.iterdir())) == 3
    files.remove_unfinished(tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == {"state", "state2"}


_WRITE = """
import sys, pathlib
from pet.files import replace_file
path = pathlib.Path(sys.argv[1])
for number in range(10**9):
    replace_file(path, [bytes([number % 256]) * 2**16] * 4)
    if number == 0:
        print("written", flush=True)
"""


def test_a_killed_process_leaves_a_whole_file(tmp_path):
    path = tmp_path / "state"
    for number in range(5):
        with fork_server.start(_WRITE, path, imports=fork_server.WITHOUT_EXTRAS) as writer:
            assert writer.stdout.readline() == "written\n"
            time.sleep(0.003 * number)
            writer.kill()
        content = path.read_bytes()
        assert (len(content), len(set(content))) == (2**18, 1)
    files.remove_unfinished(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_leftover_is_removed_by_the_next_write_once_it_cannot_be_in_use(tmp_path, monkeypatch):
    path = tmp_path / "[users].json"
    crash_before_renaming(path, monkeypatch)
    (leftover,) = tmp_path.iterdir()
    files.write_private(path, "1")
    assert leftover.exists()
    os.utime(leftover, (1, 1))
    files.write_private(path, "2")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_nothing_is_written_through_a_symbolic_link(tmp_path, write):
    victim, path = tmp_path / "victim", tmp_path / "key"
    victim.write_bytes(OLD)
    victim.chmod(0o644)
    path.symlink_to(victim)
    if write in (WRITERS["write_private"], WRITERS["replace_file"]):
        write(path)  # the link itself is replaced
        assert mode_of(path) == 0o600
    else:
        with pytest.raises(OSError, match=r"got a symbolic link|File exists"):
            write(path)
    assert (victim.read_bytes(), mode_of(victim)) == (OLD, 0o644)


def test_only_private_files_are_read(tmp_path):
    path, link = tmp_path / "key", tmp_path / "link"
    files.write_private(path, "sesame")
    link.symlink_to(path)
    assert files.read_private(path) == files.read_private(link, 6) == b"sesame"
    with pytest.raises(OSError, match="expected at most 5 bytes, got more"):
        files.read_private(path, 5)
    with pytest.raises(FileNotFoundError):
        files.read_private(tmp_path / "absent")
    with pytest.raises(IsADirectoryError):
        files.read_private(tmp_path)
    for mode in (0o640, 0o604, 0o620, 0o601):
        path.chmod(mode)
        for each in (path, link):
            with pytest.raises(PermissionError, match=f"got mode {mode:o}"):
                files.read_private(each)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    before = open_files()
    for open_it in (files.touch_private, FileLock):
        with pytest.raises(OSError, match="expected a regular file"):
            open_it(tmp_path / "pipe")
    assert files.read_private(tmp_path / "pipe") == b""
    assert open_files() == before


def test_a_new_file_takes_no_name_that_is_there(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(OLD)
    for write in ("write_new", "copy_new", "create_private", "name_file"):
        with pytest.raises(FileExistsError):
            WRITERS[write](path)
    with pytest.raises(FileExistsError):
        files.link_or_copy(Path(__file__), path)
    assert path.read_bytes() == OLD


@pytest.mark.parametrize("can_link", [True, False], ids=["link", "copy"])
def test_a_file_without_a_name_gets_one(tmp_path, monkeypatch, synced, can_link):
    if not can_link:
        fail_on(monkeypatch, "pet.files.os.link", OSError(errno.EXDEV, "Invalid cross-device link"))
    name_unnamed(tmp_path / "body")
    assert (tmp_path / "body").read_bytes() == NEW
    assert synced == ([] if can_link else [tmp_path / "body"])
    files.link_or_copy(tmp_path / "body", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == NEW
    assert ((tmp_path / "again").stat().st_nlink == 2) == can_link


def test_unnamed_files_leave_nothing(tmp_path, monkeypatch):
    real = os.open

    def refuse(path, flags, *options, **names):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(path, flags, *options, **names)

    for has_them in (True, False):
        if not has_them:
            monkeypatch.setattr("pet.files.os.open", refuse)
        with files.open_unnamed(tmp_path) as file:
            file.write(NEW)
            assert list(tmp_path.iterdir()) == []
    name_unnamed(tmp_path / "body")
    assert (tmp_path / "body").read_bytes() == NEW


# ---- Locks ------------------------------------------------------------------------------------------------------------

_HOLD = """
import sys, pathlib, time
from pet.files import FileLock
FileLock(pathlib.Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_a_lock_is_held_by_one_process_and_ends_with_it(tmp_path):
    path = tmp_path / "lock"
    holder = fork_server.start(_HOLD, path, imports=fork_server.WITHOUT_EXTRAS)
    try:
        assert holder.stdout.readline() == "held\n"
        before = open_files()
        with pytest.raises(BlockingIOError):
            FileLock(path)
        assert open_files() == before
    finally:
        holder.kill()
        holder.communicate()
    with FileLock(path) as lock, pytest.raises(BlockingIOError):
        FileLock(path)
    lock.close()
    FileLock(path).close()


def test_a_lock_can_be_waited_for(tmp_path):
    first, entered = FileLock(tmp_path / "lock"), threading.Event()

    def enter():
        with FileLock(tmp_path / "lock", waits=True):
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    assert not entered.wait(0.1)
    first.close()
    assert entered.wait(30)
    thread.join()


def test_locks_of_windows_are_held_by_one_too(tmp_path, monkeypatch):
    """There msvcrt locks a byte; here a module of that name does with what this system has."""

    class Msvcrt:
        LK_LOCK, LK_NBLCK = 1, 2

        @staticmethod
        def locking(descriptor, mode, count):
            assert count == 1
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if mode == Msvcrt.LK_NBLCK else 0))
            except BlockingIOError:
                raise PermissionError(errno.EACCES, "Permission denied") from None

    monkeypatch.setitem(sys.modules, "msvcrt", Msvcrt)
    monkeypatch.setattr(sys, "platform", "win32")
    with FileLock(tmp_path / "lock"), pytest.raises(BlockingIOError):
        FileLock(tmp_path / "lock")
    FileLock(tmp_path / "lock", waits=True).close()


# ---- Everywhere -------------------------------------------------------------------------------------------------------

_WITHOUT_POSIX = """
import asyncio, importlib, importlib.abc, os, signal, socket, ssl, subprocess, sys  # of the library: what we look at is ours
absent = {"fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "syslog"}
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
for name in absent:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Refuse())
for name in ("O_TMPFILE", "O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "O_DIRECTORY", "fchmod", "fchown", "fdatasync", "geteuid",
             "getuid", "getegid", "getgid", "fork", "pread", "pwrite", "sysconf", "sched_getaffinity", "posix_fallocate"):
    if hasattr(os, name):
        delattr(os, name)
os.process_cpu_count = os.cpu_count  # as Python itself defines it, from 3.13 on, where sched_getaffinity is missing
for name in ("SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGALRM", "SIGPIPE", "pthread_sigmask"):
    delattr(signal, name)
for name in sys.argv[1:]:
    importlib.import_module(name)
assert not absent & set(sys.modules)
"""


MODULES = list(module_names())


def test_modules_are_imported_where_posix_modules_are_missing():
    """As on Windows, where participants run too; a module is loaded by the call that needs it, if there is no other way.

    Other libraries have been imported before: what is looked at is ours.
    """
    code = "import sys\nfor name in [name for name in sys.modules if name.split('.')[0] == 'pet']: del sys.modules[name]"
    done = fork_server.run(code + _WITHOUT_POSIX, *MODULES)
    assert done.returncode == 0, done.stderr


_PARTICIPANT = """
import types
msvcrt = types.ModuleType("msvcrt")
msvcrt.LK_LOCK, msvcrt.LK_NBLCK, msvcrt.locking = 1, 2, lambda *_: None
sys.modules["msvcrt"] = msvcrt
import numpy as np
import pet
from pet.participant import Participant, spawn_participant
class Idle(Participant):
    def train_round(self, training_input):
        raise AssertionError
import httpx
httpx.Client().close()  # loads what chooses by the platform, of which only ours shall be deceived
sys.platform = "win32"
thread = spawn_participant("http://127.0.0.1:9", Idle, state_file="participant.state")
state = thread.stop()
again = spawn_participant("http://127.0.0.1:9", Idle, state_file="participant.state")
assert again.stop() == state
config = pet.MaskConfig.parse("prime-f32-b0-m3")
total, model = pet.Aggregation(config, length=5), np.full(5, 0.5, np.float32)
seed, masked_model = pet.mask_model(model, config)
total.add(masked_model)
assert np.allclose(total.unmask(pet.sum_masks([seed], config, length=5)).to_array(), model)
"""


def test_a_participant_works_where_posix_calls_are_missing(tmp_path):
    """Its state file, its lock and a round of the library; the module that locks on Windows is a stand-in here."""
    code = _WITHOUT_POSIX.replace("assert not absent & set(sys.modules)\n", "") + _PARTICIPANT
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert (tmp_path / "participant.state").exists()


#: Who may open descriptors and create folders by hand: what is temporary, or no file at all.
BY_HAND = {"pet/files.py"}


def test_keys_and_state_are_written_in_one_place():
    """Calls that create files, folders or names durably stand in pet/files.py alone."""
    root = Path(files.__file__).parent
    calls = ("os.open(", ".mkdir(", "os.makedirs(", ".chmod(", "os.fchmod(", "O_TMPFILE", "flock(", "os.fdatasync(", ".touch(")
    found = [
        f"pet/{path.relative_to(root)}: {call}"
        for path in root.rglob("*.py")
        if f"pet/{path.relative_to(root)}" not in BY_HAND
        for call in calls
        if call in path.read_text()
    ]
    assert found == []
