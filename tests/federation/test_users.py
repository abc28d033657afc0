"""Users' files: made, read, read again, refused."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pet.errors import SettingsError
from pet.federation.formats.encoding import decode_base64
from pet.federation.formats.users import UserDirectory, add_user, read_key_file, read_users, write_key_file

KEY, OTHER_KEY = "VLmAm+WkpnA5zp2wXiSYkw==", "EYpWjGPaoMoFUb/jfW95PQ=="


def test_users_are_added_and_found_without_a_restart(tmp_path):
    path = tmp_path / "users.json"
    directory = UserDirectory(path, {})
    assert directory.names() == []
    alice = add_user(path, "alice")
    assert len(decode_base64(alice.reveal())) == 16
    assert directory.secret_key("alice") == alice
    bob = add_user(path, "bob")
    assert directory.names() == ["alice", "bob"]
    assert directory.secret_key("bob") == bob != alice
    assert directory.secret_key("carol") is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    assert directory.secret_key("alice") is None


def test_a_file_that_breaks_while_the_server_runs_lets_nobody_in(tmp_path, caplog):
    path = tmp_path / "users.json"
    directory = UserDirectory(path, {"PET_FEDERATION_USERS": f"c1={KEY}"})
    key = add_user(path, "alice")
    assert directory.secret_key("alice") == key
    path.chmod(0o644)
    assert directory.secret_key("alice") is None
    assert directory.names() == ["c1"]
    assert caplog.text.count("nobody of the users' file can call") == 1
    assert key.reveal() not in caplog.text
    path.chmod(0o600)
    assert directory.secret_key("alice") == key


def test_a_name_is_added_once(tmp_path):
    path = tmp_path / "users.json"
    key = add_user(path, "alice")
    with pytest.raises(SettingsError, match="expected a new name, got alice"):
        add_user(path, "alice")
    with pytest.raises(SettingsError, match="expected names of 1 to 64 letters"):
        add_user(path, "a/b")
    assert read_users(path) == {"alice": key}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["users.json", "users.json.lock"]


def test_users_that_are_added_at_the_same_time_are_all_kept(tmp_path):
    path, names = tmp_path / "users.json", [f"user{number}" for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda name: add_user(path, name), names))
    assert read_users(path) == dict(zip(names, keys, strict=True))


def test_keys_are_on_the_disk_when_they_are_given_out(tmp_path, monkeypatch):
    synced, real = [], os.fsync

    def record(descriptor):
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    key = add_user(tmp_path / "users.json", "alice")
    write_key_file(tmp_path / "alice.key", "alice", key)
    assert [path.parent if path.suffix else path for path in synced] == [tmp_path] * 4
    assert [path.name.split(".")[0] for path in synced if path.suffix] == ["users", "alice"]


@pytest.mark.parametrize("start", [read_users, UserDirectory])
def test_a_file_that_cannot_be_read_is_named(tmp_path, start):
    (tmp_path / "users.json").mkdir()
    with pytest.raises(SettingsError, match="Is a directory"):
        start(tmp_path / "users.json")


def test_the_environment_wins(tmp_path):
    path = tmp_path / "users.json"
    add_user(path, "c1")
    directory = UserDirectory(path, {"PET_FEDERATION_USERS": f"c1={KEY}, c2={OTHER_KEY}"})
    assert directory.names() == ["c1", "c2"]
    assert directory.secret_key("c1").reveal() == KEY


@pytest.mark.parametrize("text", ["c1", "c1=", "c1=abc", f"c 1={KEY}", "c1=AAAA", f"={KEY}"])
def test_a_bad_environment_is_refused_without_showing_a_key(text):
    with pytest.raises(SettingsError, match="PET_FEDERATION_USERS: expected") as raised:
        UserDirectory(None, {"PET_FEDERATION_USERS": text})
    assert KEY not in str(raised.value)


@pytest.mark.parametrize("text", ["", "[]", '{"users": []}', '{"users": {"a": 1}}', '{"users": {"a": "short"}}'])
def test_bad_files_are_refused(tmp_path, text):
    path = tmp_path / "users.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(SettingsError, match=r"users\.json: expected"):
        UserDirectory(path, {})


def test_a_file_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "users.json"
    add_user(path, "alice")
    path.chmod(0o640)
    with pytest.raises(SettingsError, match="got mode 640"):
        read_users(path)


def test_a_key_file_holds_one_user(tmp_path):
    path, users = tmp_path / "alice.key", tmp_path / "users.json"
    key = add_user(users, "alice")
    write_key_file(path, "alice", key)
    assert read_key_file(path) == ("alice", key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    add_user(users, "bob")
    with pytest.raises(SettingsError, match="expected the key of one user, got 2"):
        read_key_file(users)


def test_a_draft_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        add_user(tmp_path / "users.json", "alice")
    assert [path.name for path in tmp_path.iterdir()] == ["users.json.lock"]
