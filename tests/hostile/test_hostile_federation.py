"""One address attacks a federation server; a user with another one is answered meanwhile, and its memory is bounded."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from federation_rest_server import KEY
from hostile_attacks import ATTACKS, Attack, attacked

from pet.federation import Client
from pet.files import write_private

MAX_MORE_MEGABYTES = 150
_OF_HTTP = ("silence", "slow headers", "large headers", "no HTTP", "pipelining")


def _post(size, sent, more=""):
    head = f"POST /symetry/rest/c1/fedml/p/learn HTTP/1.1\r\nHost: x\r\n{more}Content-Length: {size}\r\n\r\n"
    return head.encode() + bytes(sent)


UNSIGNED = f"Authorization: PET1-HMAC-SHA256 keyid=c1,ts=1,nonce={'n' * 22},sig={'s' * 43}\r\n"
OF_BODIES = (
    Attack("small bodies", 100, lambda _: _post(60_000, 50_000, UNSIGNED), b"x"),
    Attack(
        "announced bodies", 50, lambda most: _post(most, 1, f"{UNSIGNED}pet-content-sha256: {'0' * 64}\r\n"), bytes(2**16), 0.0
    ),
    Attack("unannounced bodies", 50, lambda most: _post(most, 1, UNSIGNED), bytes(2**16), 0.0),
)

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    write_private(folder / "users.json", f'{{"users": {{"c1": "{KEY}"}}}}')
    command = [sys.executable, "-c", "from pet.cli import main; main()", "federation", "serve", "--bind", "127.0.0.1:0"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        for line in process.stdout:
            if found := re.search(r"Listening on (http://[\d.]+:(\d+)) ", line):
                yield process, found[1], int(found[2])
                break
        else:
            raise AssertionError((folder / "log").read_text())
    finally:
        process.kill()
        process.communicate()


def megabytes(process):
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    return int(found[1]) / 1000


@pytest.mark.parametrize(
    "attack", [*(one for one in ATTACKS if one.name in _OF_HTTP), *OF_BODIES], ids=lambda attack: attack.name
)
def test_a_user_is_answered_under(server, attack):
    process, url, port = server
    with Client(url, "c1", KEY, timeout_seconds=60) as client:
        assert client.projects() == []
        before, most = megabytes(process), 0.0
        attacker = f"127.0.0.{100 + len(attack.name)}"
        with attacked(("127.0.0.1", port), attacker, (attack,), 60_000_000):
            end = time.monotonic() + 2
            while time.monotonic() < end:
                assert client.projects() == []
                most = max(most, megabytes(process))
                time.sleep(0.05)  # a fast machine would come to the limit of requests of one address
    assert most - before < MAX_MORE_MEGABYTES
