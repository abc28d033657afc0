"""`pet enrol`: from an empty file to bytes that peers accept."""

from __future__ import annotations

import shlex
import stat
import sys
from pathlib import Path

import pytest
from documents import run_by

from pet import cli
from pet.crypto import SigningKeyPair
from pet.pet1.enrolment import EnrolmentPolicy

KEYS = [SigningKeyPair.from_seed(bytes([number]) * 32).public_key.hex() for number in range(1, 6)]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*words: str) -> None:
    assert cli.run(["enrol", *words]) == 0


def make_three() -> None:
    run("new", "trial.toml", "--members", "3", "--threshold", "2", "--quorum", "3")
    text = Path("trial.toml").read_text()
    Path("trial.toml").write_text(f"# our trial\n{text}")  # people may edit it
    for number, key in enumerate(KEYS[:3]):
        run("add", "trial.toml", key, "--name", f'Clinic "{number}"', "--member", "--participant")
    run("add", "trial.toml", KEYS[3], "--participant")


def test_an_enrolment_that_peers_accept(capsys: pytest.CaptureFixture[str]) -> None:
    make_three()
    assert "version 5: 4 participants; 0 members are missing" in capsys.readouterr().out
    assert Path("trial.toml").read_text().startswith("# our trial\nversion = 5\n")
    assert cli.run(["key", "new", "authority.key"]) == 0
    public_key = capsys.readouterr().out.strip()
    run("sign", "trial.toml", "-k", "authority.key", "-o", "trial.enrolment")
    run("show", "trial.enrolment", "--authority", public_key)
    shown = capsys.readouterr().out
    policy = EnrolmentPolicy(authority=bytes.fromhex(public_key))
    enrolment = policy.accept(Path("trial.enrolment").read_bytes(), now=0)
    assert (enrolment.version, enrolment.min_updates, len(enrolment.participants)) == (5, 4, 4)
    assert [key.hex() for key in enrolment.members] == KEYS[:3]
    assert f"digest {enrolment.digest.hex()}" in shown
    assert "any 2 of" in shown
    assert "signed by this authority" in shown
    run("show", "trial.toml")
    assert 'any 2 of Clinic "0", Clinic "1", Clinic "2", together with the coordinator' in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="modes of files are Unix's")
def test_files_are_for_their_owner_alone() -> None:
    make_three()
    assert stat.S_IMODE(Path("trial.toml").stat().st_mode) == 0o600
    Path("trial.toml").chmod(0o644)
    assert cli.run(["enrol", "show", "trial.toml"]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["new", "trial.toml"], "trial.toml: "),
        (["new", "other.toml", "--quorum", "2"], "quorum"),
        (["new", "other.toml", "--least-updates", "2"], "least_updates: expected 3 or more, got 2"),
        (["add", "trial.toml", KEYS[0], "--participant"], "key: expected one that is not in the file"),
        (["add", "trial.toml", KEYS[4], "--member"], "members: expected 3 of them, got one more"),
        (["add", "absent.toml", KEYS[4], "--participant"], "absent.toml: expected an enrolment"),
        (["sign", "trial.toml", "-k", "absent.key", "-o", "out"], "absent.key: "),
        (["show", "trial.toml", "--authority", KEYS[0]], "expected the signature of this authority"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    make_three()
    before = Path("trial.toml").read_bytes()
    capsys.readouterr()
    assert cli.run(["enrol", *words]) == 1
    assert message in capsys.readouterr().err
    assert Path("trial.toml").read_bytes() == before
    assert not Path("other.toml").exists()


@pytest.mark.parametrize(
    ("words", "message"), [(["zz", "--member"], "32 bytes"), ([KEYS[4]], "got neither")], ids=["key", "role"]
)
def test_options_that_cannot_be(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    make_three()
    assert cli.run(["enrol", "add", "trial.toml", *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_commands_of_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = run_by("tests/commands/test_enrol_command.py", "docs/committees.md")
    for line in snippet.code.splitlines():
        _, *words = shlex.split(line, comments=True)
        assert cli.run([word.replace("$NORTH", KEYS[0]) for word in words]) == 0
        if words[1] == "add":  # "and so on"
            for key in KEYS[1:3]:
                run("add", "trial.toml", key, "--member", "--participant")
    assert "any 2 of" in capsys.readouterr().out
