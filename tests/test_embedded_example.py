"""The example with pet inside another web application checks itself; here it runs."""

from pathlib import Path

import fork_server

EXAMPLE = Path(__file__).parent.parent / "examples" / "embedded_asgi.py"


def test_it_runs():
    result = fork_server.run(fork_server.PROGRAM, EXAMPLE, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "models are in the mean" in result.stdout
