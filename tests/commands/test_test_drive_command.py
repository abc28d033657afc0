"""`pet test-drive`: what it tells while it goes on."""

import io
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from stalling_coordinator import TLS, stalling_coordinator

from pet import cli
from pet.commands.test_drive import _ProgressPrinter
from pet.participant.test_drive import FleetProgress


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
    command = [
        sys.executable,
        "-m",
        "pet",
        "test-drive",
        "-u",
        "http://127.0.0.1:1",
        "-n",
        "4",
        "-p",
        "0.05",
        "--threads",
        "2",
        *arguments,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
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


@pytest.mark.parametrize("scheme", ["http", "nats"])
def test_ctrl_c_ends_it_within_a_second_while_the_coordinator_hangs(scheme):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}" + ("/abcdefghijklmnop" if scheme == "nats" else "")
        command = [sys.executable, "-m", "pet", "test-drive", "-u", url, "-n", "4"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            connection, _ = listener.accept()
            with connection:
                time.sleep(0.3)
                started = time.monotonic()
                process.send_signal(signal.SIGINT)
                output, _ = process.communicate(timeout=30)
                assert time.monotonic() - started < 3  # one second, and the end of an interpreter on a machine that is busy
        finally:
            process.kill()
            process.communicate()
    assert "0 rounds finished" in output


def test_ctrl_c_ends_it_within_a_second_in_the_middle_of_an_upload_over_tls():
    with stalling_coordinator(is_tls=True) as coordinator:
        command = [
            sys.executable,
            "-m",
            "pet",
            "test-drive",
            "-u",
            coordinator.url,
            "-c",
            str(TLS / "authority.pem"),
            "-n",
            "1",
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert coordinator.uploading.wait(60)
            started = time.monotonic()
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=30)
            assert time.monotonic() - started < 3  # one second, and the end of an interpreter on a machine that is busy
        finally:
            process.kill()
            process.communicate()
        assert coordinator.read_on()
    assert process.returncode == 0
    assert "0 rounds finished" in output
    assert errors == ""


def test_a_second_ctrl_c_ends_it_at_once_and_without_a_traceback():
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
