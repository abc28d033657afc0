"""The Python in the documents runs as it stands there, in surroundings that give its names a meaning."""

import re
from pathlib import Path

import pet
from pet.errors import TransportError
from pet.protocol import Phase, PhaseWindow, RoundSettings

ROOT = Path(__file__).parent.parent


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def run(code, page, **names):
    namespace = dict(names)
    exec(compile(code, page, "exec"), namespace)
    return namespace


def test_the_coordinator_without_io():
    window = PhaseWindow(min_count=3, max_count=10, min_seconds=1, max_seconds=10)
    settings = RoundSettings.of(
        pet.MaskConfig.parse("prime-f32-b0-m3"),
        4,
        sum_probability=0.5,
        update_probability=0.9,
        sum=window,
        update=window,
        sum2=window,
    )
    code, _ = blocks("docs/protocol.md")
    coordinator = run(code, "docs/protocol.md", settings=settings, body=bytearray(200))["coordinator"]
    assert coordinator.phase is Phase.SUM
    assert coordinator.status(0).rejected == {"decryption": 1}


def test_the_participant_without_io():
    def carry_out(request):
        raise TransportError("nobody there")

    _, code = blocks("docs/protocol.md")
    machine = run(code, "docs/protocol.md", carry_out=carry_out)["machine"]
    assert machine.parameters is None


def test_the_participant_in_a_thread():
    _, code, _ = blocks("README.md")  # the last one goes on for ever: tests/participant/test_documented_participants.py runs it
    names = run(code.replace("http://127.0.0.1:8081", "http://127.0.0.1:1"), "README.md")
    assert names["thread"].error is None
    assert isinstance(names["state"], bytes)
