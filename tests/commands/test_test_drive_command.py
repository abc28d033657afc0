"""`pet test-drive`: what it tells while it goes on."""

import contextlib
import io
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fork_server
import pytest
from asgi_server import serving
from nats_broker import broadcast_subjects, run, running_broker
from pet1_served import make_engine, served_rounds, write_key
from rich.console import Console
from stalling_broker import FEDERATION, announced_round
from stalling_coordinator import TLS, stalling_coordinator
from stopping import SOON, SYN_SENT, address_that_swallows, connections_to, wait_for

from pet import cli
from pet.commands.test_drive import _ProgressPrinter
from pet.coordinator.app import create_app
from pet.coordinator.settings import Settings
from pet.coordinator.surroundings import find_outer_faults
from pet.participant.fleet_progress import FleetProgress
from pet.transports.nats import NatsSettings
from pet.transports.nats.url import DEFAULT_FEDERATION_ID


def test_a_long_quiet_is_told_once_and_again_after_something_happened():
    output, now = io.StringIO(), 0.0
    printer = _ProgressPrinter(Console(file=output, width=1000), clock=lambda: now)
    progress = FleetProgress()
    for now in (1.0, 19.0, 21.0, 60.0):
        progress = replace(progress, sweeps=progress.sweeps + 1)
        printer(progress)
        assert output.getvalue().count("quiet for 20 s") == (now > 20)
    progress = replace(progress, sweeps=9, messages_delivered=1)
    printer(progress)
    now = 90.0
    printer(replace(progress, sweeps=10))
    assert output.getvalue().count("quiet for 20 s") == 2
    assert "larger --count" in output.getvalue()


def test_a_long_quiet_says_what_the_coordinator_waits_for():
    output = io.StringIO()
    now = 0.0
    console = Console(file=output, width=60)
    printer = _ProgressPrinter(console, lambda: "The coordinator says: [red] waiting for 1 sum2 message", clock=lambda: now)
    now = 21.0
    printer(FleetProgress(sweeps=1))
    assert output.getvalue() == (
        "quiet for 20 s: all have sent what they had to send. The coordinator says: [red] waiting for 1 sum2 message\n"
    )


def test_a_coordinator_that_is_away_is_no_quiet():
    output, now = io.StringIO(), 0.0
    printer = _ProgressPrinter(Console(file=output, width=1000), clock=lambda: now)
    for now in (1.0, 100.0):
        printer(FleetProgress(sweeps=int(now), last_error="nobody there"))
    assert output.getvalue() == "waiting: nobody there\n"


@pytest.mark.parametrize(("arguments", "status"), [([], 0), (["--rounds", "1"], 1)], ids=["endless", "before it was done"])
def test_ctrl_c_ends_it_with_a_summary(arguments, status):
    words = ["test-drive", "-u", "http://127.0.0.1:1", "-n", "4", "-p", "0.05", "--threads", "2", *arguments]
    with fork_server.start(fork_server.PET, *words) as process:
        for line in process.stdout:
            if line.startswith("waiting: "):
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=30)
    assert process.returncode == status
    assert "0 rounds finished, 0 given up" in out
    assert err == ""


def test_a_coordinator_without_a_status_is_not_asked_for_one():
    output = io.StringIO()
    now = 0.0
    printer = _ProgressPrinter(Console(file=output, width=400), clock=lambda: now)
    printer(FleetProgress(sweeps=1))
    now = 30.0
    printer(FleetProgress(sweeps=2))
    assert "look into the coordinator's log" in output.getvalue()
    assert "/status" not in output.getvalue()


def test_an_identity_without_its_key_is_named(tmp_path, capsys):
    path = tmp_path / "identity.pem"
    path.write_text((Path(__file__).parent.parent / "vectors" / "tls" / "authority.pem").read_text())  # a certificate alone
    assert cli.run(["test-drive", "-u", "https://127.0.0.1:1", "-i", str(path), "-n", "1", "--rounds", "1"]) == 1
    error = capsys.readouterr().err
    assert (
        f"expected the private key (PEM) of {path} in the same file, below the certificate, got a file without a key" in error
    )


def check_ctrl_c(wait_until_caught: Callable[[fork_server.Fork], object], *arguments: str, code: str = fork_server.PET) -> None:
    """Start a test drive, press Ctrl-C where it is caught, and expect its summary within a second."""
    with fork_server.start(code, "test-drive", *arguments) as process:
        assert wait_until_caught(process)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        assert time.monotonic() - started < SOON + 1  # and the end of an interpreter
    assert process.returncode == 0
    assert "0 rounds finished" in output
    assert errors == ""


@pytest.mark.parametrize("scheme", ["http", "nats"])
def test_ctrl_c_ends_it_within_a_second_while_the_coordinator_hangs(scheme):
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as connections:
        url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}" + ("/abcdefghijklmnop" if scheme == "nats" else "")
        check_ctrl_c(lambda _: connections.enter_context(listener.accept()[0]), "-u", url, "-n", "4")


def test_ctrl_c_ends_it_within_a_second_while_nobody_answers_its_connecting():
    with address_that_swallows() as port:
        is_connecting = lambda process: wait_for(lambda: connections_to(port, SYN_SENT, process.pid))  # noqa: E731
        check_ctrl_c(is_connecting, "-u", f"http://127.0.0.1:{port}", "-n", "4")


#: `pet` where the system hangs when it looks up a name, and says so.
HANGING_NAMES = """
import socket, sys, time
from pet import cli
look_up = socket.getaddrinfo
def hang(host, *arguments, **options):
    if host == "name.test" and not options.get("flags"):
        print("looking up", flush=True)
        time.sleep(120)
    return look_up(host, *arguments, **options)
socket.getaddrinfo = hang
sys.exit(cli.run(sys.argv[1:]))
"""


@pytest.mark.parametrize("scheme", ["https", "tls"], ids=["HTTP", "NATS"])
def test_ctrl_c_ends_it_within_a_second_while_a_name_is_looked_up(scheme):
    def wait(process: fork_server.Fork) -> bool:
        return any("looking up" in line for line in process.stdout)

    check_ctrl_c(wait, "-u", f"{scheme}://name.test", "-n", "1", code=HANGING_NAMES)


def test_ctrl_c_ends_it_within_a_second_in_the_middle_of_an_upload_over_tls():
    with stalling_coordinator(is_tls=True) as coordinator:
        arguments = ["-u", coordinator.url, "-c", str(TLS / "authority.pem"), "-n", "1"]
        check_ctrl_c(lambda _: coordinator.uploading.wait(60), *arguments)
        assert coordinator.read_on()


#: `pet` that sends by way of the broker's storage; the command has no option for it.
STREAMING = """
import functools, sys
from pet import cli
from pet.transports.nats import url
url.NatsSettings = functools.partial(url.NatsSettings, mode="stream")
sys.exit(cli.run(sys.argv[1:]))
"""


@pytest.mark.parametrize(("mode", "code"), [("direct", fork_server.PET), ("stream", STREAMING)], ids=["direct", "stream"])
def test_ctrl_c_ends_it_within_a_second_in_the_middle_of_an_upload_over_nats(tmp_path, mode, code):
    """In mode `stream` the broker hangs, too, with chunks on their way."""
    with running_broker(tmp_path / "broker") as broker:

        def wait(_: object) -> bool:
            is_begun = begun.wait(60)
            if mode == "stream":
                broker.process.send_signal(signal.SIGSTOP)
            return is_begun

        with announced_round(NatsSettings(hosts=(broker.url,), mode=mode)) as begun:
            check_ctrl_c(wait, "-u", f"{broker.url}/{FEDERATION}", "-n", "1", code=code)
            broker.process.send_signal(signal.SIGCONT)


def test_a_second_ctrl_c_ends_it_at_once_and_without_a_traceback():
    """An interpreter of its own, which has to end as well."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "pet", "test-drive", "-u", f"http://127.0.0.1:{listener.getsockname()[1]}", "-n", "4"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            connection, _ = listener.accept()
            with connection:
                while process.poll() is None:
                    process.send_signal(signal.SIGINT)
                    time.sleep(0.1)
                _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
            process.communicate()
    assert process.returncode == -signal.SIGINT
    assert errors == ""


def test_a_coordinator_of_pet1_is_served_over_a_broker_too(tmp_path, capsys):
    _, parties = make_engine(tmp_path)
    write_keys(tmp_path / "keys", parties)
    pet = {"profile": {"name": "pet/1", "enrolment": tmp_path / "trial.enrolment", "max_updates": 3}}
    with running_broker(tmp_path / "broker") as broker:
        settings = Settings(pet=pet, model={"length": 20_000}, nats={"hosts": broker.url})
        with serving(create_app(settings)):
            words = ["-u", broker.url, "-e", str(tmp_path / "trial.enrolment"), "-k", str(tmp_path / "keys"), "-p", "0.1"]
            assert cli.run(["test-drive", *words, "--rounds", "2"]) == 0
            assert "2 rounds finished, 0 given up" in capsys.readouterr().out
            assert cli.run(["model", "get", "-u", broker.url, "-o", str(tmp_path / "model.npy")]) == 0
            assert "20000 weights of float32" in capsys.readouterr().out
        # The file is all that is stored of a model: participants of pet/1 take its weights.
        subjects = run(broadcast_subjects(broker, DEFAULT_FEDERATION_ID))
        assert [name for name in subjects if "pet1-headers" in name]
        assert not [name for name in subjects if "pet1-model" in name]


def test_a_broker_whose_messages_are_too_small_is_a_fault_of_the_settings(tmp_path):
    make_engine(tmp_path)
    pet = {"profile": {"name": "pet/1", "enrolment": tmp_path / "trial.enrolment", "max_updates": 3}}
    with running_broker(tmp_path / "broker", "max_payload: 262144\n") as broker:
        found = find_outer_faults(Settings(pet=pet, nats={"hosts": broker.url}))
        assert found["nats.hosts"].sentence.startswith(
            "broker: expected a max_payload of 528420 bytes or more for pet/1, got 262144;"
        )
        assert find_outer_faults(Settings(nats={"hosts": broker.url})) == {}


def write_keys(folder, parties):
    """Write the keys of members and participants."""
    folder.mkdir()
    for number, key in enumerate([*parties.member_keys, *parties.participant_keys]):
        write_key(folder / f"{number}.key", key)


def test_enrolled_dummies_play_whole_rounds_of_pet1(tmp_path, capsys):
    """Participants and members whose keys lie in one folder; the states of members stay there."""
    with served_rounds(tmp_path) as rounds:
        keys = tmp_path / "keys"
        write_keys(keys, rounds.parties)
        words = ["test-drive", "-u", rounds.url, "-e", str(rounds.enrolment), "-k", str(keys), "-p", "0.1"]
        assert cli.run([*words, "--rounds", "1"]) == 0
        shown = capsys.readouterr().out
        assert "5 of 5 members are here, 3 participants" in shown
        assert "any 3 of" in shown
        assert "1 rounds finished, 0 given up" in shown
        assert len(list(keys.glob("*.state"))) == 5
        assert cli.run([*words, "--rounds", "1"]) == 0  # members go on with their states
    for wrong, expected in (
        (["-e", str(rounds.enrolment)], "expected both"),
        (["-e", rounds.parties.enrolment.digest.hex(), "-k", str(keys)], "expected a file"),
        (["-e", str(rounds.enrolment), "-k", str(tmp_path)], "expected key files of enrolled participants"),
    ):
        assert cli.run(["test-drive", "-u", rounds.url, "--rounds", "1", *wrong]) == 1
        assert expected in capsys.readouterr().err
