"""Progress on a terminal, with rate and time left; nothing of it where nobody looks."""

import contextlib
import os
import re
import threading
import time

import numpy as np
import pytest
from quick_benches import make_quick

from pet import cli
from pet.commands import federation_learn, terminal_progress
from pet.commands.terminal_progress import shown_progress


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(terminal_progress, "_QUIET_SECONDS", 0.0)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")


@contextlib.contextmanager
def terminal():
    """Make standard error a terminal of 80 columns; yields what returns all that was written to it so far."""
    controller, own = os.openpty()
    written = bytearray()

    def collect():
        # All the time: what is not read fills a terminal, and then who writes to it waits.
        with contextlib.suppress(OSError):  # of Linux, once the other end is closed
            while block := os.read(controller, 1 << 16):
                written.extend(block)

    reader = threading.Thread(target=collect, daemon=True)
    reader.start()
    # Not in a fixture: pytest puts its own stream there between the set-up and the test.
    with os.fdopen(own, "w") as stream, contextlib.redirect_stderr(stream):
        yield lambda: re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.decode(errors="replace"))
    reader.join()
    os.close(controller)


def wait_for(read, pattern):
    deadline = time.monotonic() + 30
    while not re.search(pattern, read()):
        assert time.monotonic() < deadline, read()
        time.sleep(0.02)


def test_it_shows_amount_rate_and_time_left(quick, capsys):
    with terminal() as read:
        with shown_progress("[learn]", 48_000, "rows") as progress:
            for done in (100, 12_000, 24_000):
                time.sleep(0.05)  # a rate needs time
                progress.update(done)
            wait_for(read, r"\[learn\] .*24,000 of 48,000 rows, [\d,]+ rows/s 0:00:0\d")
            progress.update(50_000)  # more than was estimated
            wait_for(read, "50,000 of 50,000 rows")
            print("a line of output")
        assert "rows/s" in read()
        assert max(len(line) for line in re.split(r"[\r\n]+", read())) <= 80
    assert capsys.readouterr().out == "a line of output\n"
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_bytes_are_shortened_and_what_is_waited_for_has_a_clock(quick):
    with terminal() as read:
        with shown_progress("model", unit="B") as progress:
            progress.update(1_500_000, 6_000_000)
            wait_for(read, r"1\.5 MB of 6\.0 MB")
        with shown_progress("waiting"):
            wait_for(read, r"waiting 0:00:0\d")


def test_nothing_where_nobody_looks(quick, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # which makes rich believe in a terminal
    with shown_progress("learn", 10, "rows") as progress:
        progress.update(5)
        progress.describe("more")
    assert capsys.readouterr() == ("", "")


def test_what_is_short_shows_nothing():
    with terminal() as read, shown_progress("learn", 10, "rows") as progress:
        progress.update(10)
        assert read() == ""


def test_rows_are_estimated_only_for_those_who_look(tmp_path, capsys):
    path = tmp_path / "rows.csv"
    path.write_text("x\n" + "1\n" * 1000)
    assert federation_learn._about_rows(path) is None
    pq = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    pq.write_table(pa.table({"x": np.arange(70.0)}), tmp_path / "rows.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with terminal():
        assert federation_learn._about_rows(path) == 1001
        assert federation_learn._about_rows(tmp_path / "none.csv") is None
        assert federation_learn._about_rows(tmp_path / "rows.parquet") == 70
        assert federation_learn._about_rows(tmp_path / "bad.parquet") is None


def test_a_bench_shows_its_parts(quick, capsys, monkeypatch):
    make_quick(monkeypatch)
    with terminal() as read:
        assert cli.run(["bench", "--sizes", "10", "--backends", "portable", "--configs", "prime-f32-b0-m3"]) == 0
        wait_for(read, r"portable.* \d of 3 parts")
