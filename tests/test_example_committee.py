"""examples/committee_without_a_server.py checks itself; here it is run as somebody would."""

import runpy
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent / "examples" / "committee_without_a_server.py"


def test_the_example_checks_out(capsys):
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    shown = capsys.readouterr().out
    assert "any 3 of North, South, East, West, Harbour, together with the coordinator; the same if it cheats" in shown
    assert "largest error of the mean" in shown
