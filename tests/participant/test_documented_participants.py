"""The documented participants, as they stand in README and docstrings, against a real `pet coordinator`."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import fork_server
import httpx
import pytest
from participant_driver import wait_until

from pet.participant import AsyncParticipant

README = (Path(__file__).parent.parent.parent / "README.md").read_text()
URL = "http://127.0.0.1:8081"
SETTINGS = """
[api]
bind_address = "127.0.0.1:0"
[pet.sum]
prob = 0.4
count = { min = 1, max = 100 }
time = { min = 0.5, max = 5 }
[pet.update]
prob = 0.9
count = { min = 3, max = 100 }
time = { min = 0.5, max = 5 }
[pet.sum2]
count = { min = 1, max = 100 }
time = { min = 0.5, max = 5 }
[model]
length = 4
"""
#: Runs a piece of code in as many threads as there are participants.
DRIVER = """
import sys, threading
code = compile(sys.argv[1], "documentation", "exec")
threads = [threading.Thread(target=exec, args=(code, {})) for _ in range(7)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.fixture
def coordinator(tmp_path) -> Iterator[str]:
    """A new coordinator with short phases, as a process of its own."""
    (tmp_path / "settings.toml").write_text(SETTINGS)
    with fork_server.start(fork_server.PET, "coordinator", "-c", "settings.toml", folder=tmp_path) as process:
        for line in process.stdout:
            if found := re.search(r"Listening on (\S+) ", line):
                yield found[1]
                break
        else:
            raise AssertionError("the coordinator did not start")
        process.terminate()
        process.communicate(timeout=30)


def rounds_completed(url: str) -> int:
    return httpx.get(f"{url}/status").json()["rounds_completed"]


def run_participants(code: str, url: str) -> None:
    """Let seven participants run a piece of code until two rounds are finished: the first without a global model."""
    assert URL in code
    with fork_server.start(DRIVER, code.replace(URL, url)) as process:
        wait_until(lambda: rounds_completed(url) >= 2, 60)
        process.kill()
        _, errors = process.communicate(timeout=30)
    assert "Traceback" not in errors


def readme_block(word: str) -> str:
    return next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if word in block)


@pytest.mark.long
def test_the_asyncio_participant_of_the_readme(coordinator):
    run_participants(readme_block("AsyncParticipant("), coordinator)


@pytest.mark.long
def test_the_asyncio_participant_of_its_docstring(coordinator):
    example = re.search(r"\n\n( {4}async with .*?)\n\n", inspect.getdoc(AsyncParticipant), re.DOTALL)
    code = "\n".join(
        [
            "import asyncio, numpy as np",
            "from pet.participant import AsyncParticipant",
            "train = lambda global_model: np.full(4, 0.5, np.float32)",
            "async def main():",
            textwrap.indent(textwrap.dedent(example[1]), "    "),
            "asyncio.run(main())",
        ]
    )
    run_participants(code, coordinator)


@pytest.mark.long
def test_the_participant_in_a_thread_of_the_readme(coordinator):
    run_participants(readme_block("spawn_participant("), coordinator)
