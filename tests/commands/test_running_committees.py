"""docs/running-committees.md as it stands: keys, enrolment, coordinator, a test drive, a member and a participant."""

from __future__ import annotations

import contextlib
import itertools
import re
import shlex
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fork_server
import pytest
from asgi_server import wait_until
from documents import blocks, run_by
from pet1_served import QUICK
from programs import free_port

from pet import cli
from pet.coordinator.key_file import read_key_file
from pet.participant import CommitteeMember, ParticipantThread, spawn_participant

PAGE = "docs/running-committees.md"
SNIPPETS = run_by("tests/commands/test_running_committees.py", PAGE)
CLINICS = ("north", "south", "east")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words_of(line: str, port: int, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the arguments of a line for `pet`; what it asks a command for in it is asked for."""

    def ask(found: re.Match[str]) -> str:
        assert cli.run(shlex.split(found[1])[1:]) == 0
        return capsys.readouterr().out.splitlines()[-1]

    _, *words = shlex.split(re.sub(r"\$\(([^)]*)\)", ask, line.replace(":8081", f":{port}")))
    return words


@contextlib.contextmanager
def coordinator(folder: Path, port: int) -> Iterator[None]:
    """Run the coordinator of the page in a folder of its own, which has the enrolment."""
    (settings,) = (block.code for block in blocks(PAGE) if block.language == "toml")
    folder.mkdir(exist_ok=True)
    shutil.copy("trial.enrolment", folder / "trial.enrolment")
    (folder / "coordinator.toml").write_text(settings.replace(":8081", f":{port}"))
    with fork_server.start(fork_server.PET, "coordinator", "-c", "coordinator.toml", folder=folder) as process:
        assert any("Listening" in line for line in process.stdout)
        yield
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 0


@pytest.mark.long
def test_the_page_from_keys_to_a_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    enrol, serve, drive, member, participant = SNIPPETS
    port = free_port()
    first, *lines = enrol.code.splitlines()
    assert first == "mkdir keys"
    Path("keys").mkdir()
    for line in lines:
        assert cli.run(words_of(line, port, capsys)) == 0
    assert words_of(serve.code, port, capsys) == ["coordinator", "-c", "coordinator.toml"]
    with coordinator(folder / "first", port):
        assert cli.run([*words_of(drive.code, port, capsys), "-p", "0.1"]) == 0
        assert "1 rounds finished" in capsys.readouterr().out
    check_services(folder, words_of(member.code, port, capsys), participant.code.replace(":8081", f":{port}"), port)


def check_services(folder: Path, member_words: list[str], code: str, port: int) -> None:
    """Run the member and the participant of the page against another coordinator, with the other clinics beside them."""
    for clinic in CLINICS:
        shutil.copy(f"keys/{clinic}.key", f"{clinic}.key")
    url = f"http://127.0.0.1:{port}"
    with coordinator(folder / "second", port), others(url) as names:
        with fork_server.start(fork_server.PET, *member_words, folder=folder) as process:
            exec(compile(code, PAGE, "exec"), names)
            thread: ParticipantThread = names["thread"]
            threads = [thread]
            try:
                for clinic in CLINICS[1:]:
                    key = read_key_file(Path(f"{clinic}.key"))
                    options: dict[str, Any] = {"signing_key": key, "enrolment": "trial.enrolment", "back_off": QUICK}
                    threads.append(spawn_participant(url, names["Trainer"], **options))
                wait_until(lambda: thread.status.last_inclusion is not None, 60)
                assert "any 2 of" in str(thread.status)
                assert "in the agreed set" in str(thread.status)
            finally:
                for each in threads:
                    each.stop()
            # The participant may know of the certificate before the member, without whom the round does not end.
            lines = list(itertools.takewhile(lambda line: "sent SUM2" not in line, process.stderr))
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=60)
        assert "Stopped. Rounds answered: 1" in output
        assert "any 2 of" in "".join(lines)


@contextlib.contextmanager
def others(url: str) -> Iterator[dict[str, Any]]:
    """Run the members of the other clinics in threads."""
    made = [
        CommitteeMember(
            url,
            read_key_file(Path(f"{clinic}.key")),
            "trial.enrolment",
            state_file=f"{clinic}.state",
            new=True,
            back_off=QUICK,
            threads=1,
        )
        for clinic in CLINICS[1:]
    ]
    threads = [threading.Thread(target=member.run) for member in made]
    for thread in threads:
        thread.start()
    try:
        yield {"__name__": "page"}
    finally:
        for member in made:
            member.stop()
        for thread in threads:
            thread.join(30)
        for member in made:
            member.close()
