"""The commands of docs/federation.md and docs/tables.md as they stand there: a broker, three servers, no secret printed.

After the document's own commands come some that fail, because errors are where secrets leak.
"""

import base64
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from documents import run_by
from programs import free_port, require_program

from pet.federation.formats.invitation import open_with_password
from pet.secret import Secret

#: Four servers and a dozen commands, each a process.
pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent.parent
HERE = "tests/federation/test_federation_walkthrough.py"
PET = 'pet() { "$PYTHON" -c "from pet.cli import main; main()" "$@"; }\npython3() { "$PYTHON" "$@"; }\n'
#: The broker and the servers as on a machine that has much else to do. Who pastes all commands at once does not wait for them.
SLOW = """
nats-server() { sleep 5; command nats-server "$@"; }
pet() { case "$2" in serve) sleep 3;; esac; "$PYTHON" -c "from pet.cli import main; main()" "$@"; }
"""

#: Files that later commands of the documents read.
OTHER_FILES = """
printf %s "$PET_NATS_PASSWORD" > new.password
printf 'age;pressure;smoker\\n41,25;118,5;0\\n63,75;131,25;1\\n' > rows.csv
"""

#: One thing each that goes wrong, each with a secret that an error could repeat.
FAILURES = """
import pathlib
from pet.errors import PetError
from pet.federation import Client

alice, bob, carol = (Client.from_key_file(url, f"{name}.key") for name, url in SERVERS.items())
stranger = Client(SERVERS["alice"], "alice", "AAAAAAAAAAAAAAAAAAAAAA==")
invitation, other = (pathlib.Path(f"{name}.invitation").read_text().strip() for name in ("bob", "carol"))
password = pathlib.Path("bob.password").read_text().strip()
broker = {"nats_hosts": "nats://127.0.0.1:4222"}
for call in [
    lambda: bob.join("again", invitation, password),
    lambda: bob.join("again", other, "hush-not-the-password"),
    lambda: bob._post("createJoin", {"fed_info_encrypted": other, "passwd": "hush-not-the-password"}, query={"pid": "again"}),
    lambda: stranger.info("hospital"),
    lambda: alice.info("nowhere"),
    lambda: alice.create("other", "O", **broker, nats_sec_user="federation", nats_sec_passwd="hush-wrong-broker"),
    lambda: alice.create("other", "O", nats_hosts="nats://u:hush-in-url@127.0.0.1:4222", nats_sec_user="x"),
    lambda: alice.create("other", "O", **broker, nats_sec_nkey_seed="hush-seed"),
    lambda: bob.remove_peer("clinic", "0" * 32),
    lambda: bob.learn("clinic", {"age": [31.41592], "pressure": [1e9], "smoker": [1]}),
    lambda: alice.create("other", "O", **broker, fed_local_type="tpu"),
    lambda: bob.delete("clinic"),
]:
    try:
        call()
    except PetError as error:
        print("refused:", error)
carol.leave("practice")
"""
REFUSALS = [
    "Invalid federation token",
    "the invitation does not open",
    "the invitation does not open",
    "Invalid Signature",
    "User [alice] has no project [nowhere]",
    "Authorization Violation",
    "Invalid value for key [nats_hosts]",
    "Invalid value for key [nats_sec_nkey_seed]",
    "Not Federation Administrator",
    "row",
    "Invalid value for key [fed_local_type]: expected cpu or gpu",
    "Not Federation Administrator",
]


def script():
    """Return the documents' commands on ports that are free, all at once, and some that fail."""
    documented = [*run_by(HERE, "docs/federation.md"), *run_by(HERE, "docs/tables.md")]
    parts = [block.code if block.language == "sh" else f"python3 - <<'END'\n{block.code}END\n" for block in documented]
    parts.insert(1, OTHER_FILES)
    ports = {name: str(free_port()) for name in ("4222", "8091", "8092", "8093")}
    servers = {"alice": "http://127.0.0.1:8091", "bob": "http://127.0.0.1:8092", "carol": "http://127.0.0.1:8093"}
    parts.append(f"python3 - <<'END'\nSERVERS = {servers!r}\n{FAILURES}END\n")
    text = "\n".join(parts)
    text = text.replace("pet federation serve", "pet federation serve --log-level debug")
    for documented, free in ports.items():
        text = text.replace(f":{documented}", f":{free}")
    return SLOW + text


def walk(folder, commands):
    """Run commands in a folder; return everything that was printed, and the logs of the servers."""
    require_program("nats-server")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PET_")}
    environ |= {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    commands = f'set -euo pipefail\n{PET}{commands}\nprintf %s "$PET_NATS_PASSWORD" > broker.password\n'
    process = subprocess.Popen(
        ["bash", "-c", commands],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # its servers stay behind, and end as its group
    )
    try:
        out, err = process.communicate(timeout=240)
        logs = {path.name: path.read_text() for path in folder.glob("*.log")}
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    shown = "\n".join([out, err, *logs.values()])
    assert process.returncode == 0, shown[-6000:]
    return out, err, logs


def test_pasted_whole_it_works_says_what_goes_wrong_and_prints_nothing_secret(tmp_path):
    """One test, because one walk takes ten seconds of CPU.

    Those who paste all of it wait for nothing; each command waits for its server, and the server for its broker.
    """
    out, err, logs = walk(tmp_path, script())
    check_the_regression(tmp_path, out)
    check_refusals(out, err, logs)
    check_that_nothing_secret_was_printed(tmp_path, out, err, logs)


def check_the_regression(folder, out):
    """It is that of the pooled table."""
    rows = np.vstack([np.loadtxt(folder / f"{name}.csv", delimiter=",", skiprows=1) for name in ("alice", "bob", "carol")])
    design = np.column_stack([np.ones(len(rows)), rows[:, 0], rows[:, 2]])
    intercept, age, smoker = np.linalg.lstsq(design, rows[:, 1], rcond=None)[0]
    found = re.search(r"295 rows: (\S+) \{'age': (\S+), 'smoker': (\S+)\}", out)
    assert found is not None, out
    assert [float(number) for number in found.groups()] == pytest.approx([intercept, age, smoker], rel=1e-9)
    assert "Sync completed" in out, "which nobody takes part in whom the others have not confirmed"


def check_refusals(out, err, logs):
    refused = [line for line in out.splitlines() if line.startswith("refused: ")]
    for line, text in zip(refused, REFUSALS, strict=True):
        assert text in line
    assert err == ""
    assert "Traceback" not in "".join(logs.values())


def secrets_of(folder):
    """Yield every secret of the run, in each form that it might be written in."""
    yield (folder / "broker.password").read_text()
    yield from ["hush-wrong-broker", "hush-in-url", "hush-not-the-password", "hush-seed", "31.41592"]
    for name in ("bob", "carol"):
        password, text = (folder / f"{name}.password").read_text().strip(), (folder / f"{name}.invitation").read_text().strip()
        contents = open_with_password(text, Secret(password))[1]
        yield from [password, text, contents["fed_req_token"], contents["fed_secret_key"]]
    for path in folder.glob("*.key"):
        yield from json.loads(path.read_text())["users"].values()
    for path in folder.glob("*-state/*.sqlite3"):
        connection = sqlite3.connect(path)
        for (record,) in connection.execute("SELECT record FROM project"):
            found = json.loads(record)
            yield found["terms"]["secret_key"]
            for name in ("signing_secret", "encryption_secret"):
                secret = base64.urlsafe_b64decode(found["keys"][name] + "==")
                yield from [
                    found["keys"][name],
                    secret.hex(),
                    secret[:32].hex(),
                    base64.b64encode(secret).decode(),
                    repr(secret),
                ]
        connection.close()
    for path in folder.glob("*.csv"):
        yield from path.read_text().splitlines()[1:]


def check_that_nothing_secret_was_printed(folder, out, err, logs):
    assert set(logs) == {"nats.log", "alice.log", "bob.log", "carol.log"}
    assert all("pet.federation" in text for name, text in logs.items() if name != "nats.log")
    printed = "\n".join([out, err, *logs.values()])
    secrets = set(secrets_of(folder))
    assert len(secrets) > 300
    assert not [secret for secret in secrets if secret in printed]
