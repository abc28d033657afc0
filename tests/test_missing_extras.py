"""Without an extra's packages, the error names the extra; nothing fails before they are needed."""

import subprocess
import sys

import fork_server
import pytest

from pet._extras import install_command

BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""


@pytest.mark.parametrize(
    ("blocked", "code", "extra"),
    [
        ("starlette", "import pet.transports.asgi", "http"),
        ("starlette", "import pet.coordinator.app", "http"),
        ("pydantic", "import pet.coordinator.app", "http"),
        ("pydantic", "import pet.coordinator.settings", "http"),
        ("starlette", "import pet.federation.server.rest", "federation"),
        ("cryptography", "from pet.federation.formats.secure import derive_key; derive_key(bytes(16), 'x')", "federation"),
        (
            "cryptography",
            "from pet.federation.formats.compat import encrypt_invitation; encrypt_invitation(b'x', 'x')",
            "federation",
        ),
        (
            "httpx",
            "from pet.federation import Client; Client('http://127.0.0.1:1', 'c', 'VLmAm+WkpnA5zp2wXiSYkw==')",
            "federation",
        ),
        ("httpx", "from pet.transports.http import HttpTransport; HttpTransport('http://127.0.0.1:1')", "http"),
        (
            "safetensors",
            "import numpy; from pet.model_formats import encode_safetensors; encode_safetensors(numpy.zeros(1))",
            "http",
        ),
        ("nats", "import pet.transports.nats", "nats"),
        ("redis", "import pet.coordinator.storage.redis", "redis"),
        ("obstore", "import pet.coordinator.s3_model_store", "s3"),
    ],
)
def test_the_error_names_the_extra(blocked, code, extra):
    error = fork_server.run(BLOCK.format(blocked=[blocked]) + code, imports=fork_server.WITHOUT_EXTRAS).stderr
    assert f"MissingExtraError: {blocked}" in error
    assert install_command(extra) in error


def test_everything_without_io_needs_no_extra():
    code = (
        "import pet.messages, pet.protocol, pet.participant, pet.transports.in_process, pet.coordinator.engine; print('fine')"
    )
    block = BLOCK.format(
        blocked=[
            "starlette",
            "pydantic",
            "httpx",
            "uvicorn",
            "typer",
            "rich",
            "numba",
            "matplotlib",
            "safetensors",
            "nats",
            "nkeys",
        ]
    )
    done = subprocess.run([sys.executable, "-c", block + code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "fine", done.stderr


def test_large_messages_are_signed_without_cryptography():
    code = (
        "from pet.crypto import SigningKeyPair, sign_in_place, verify_signed; key = SigningKeyPair.from_seed(bytes(32));"
        "signed = bytearray(2**20); sign_in_place(signed, key);"
        "import sys; print(verify_signed(signed, key.public_key), 'cryptography' in sys.modules)"
    )
    done = fork_server.run(BLOCK.format(blocked=["cryptography"]) + code, imports=fork_server.WITHOUT_EXTRAS)
    assert done.stdout.strip() == "True False"
