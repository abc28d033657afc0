"""The session helps who runs it: one line about skips, a time limit for every test, and the Debian package of every tool."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import forked_workers
import pytest
import session
from programs import DEBIAN_PACKAGES, require_program

REPOSITORY = Path(__file__).parents[1]


def run_tests(folder, code, *options):
    """Run a file of tests in a process of its own, with the hooks of this session."""
    (folder / "conftest.py").write_text(
        "from session import pytest_collection_modifyitems, pytest_configure\n"
        "from session import pytest_pycollect_makeitem, pytest_terminal_summary\n"
    )
    (folder / "test_it.py").write_text("import time\nimport pytest\n" + code)
    (folder / "pytest.ini").write_text(
        f"[pytest]\npythonpath = {REPOSITORY / 'tests'}\nmarkers =\n  long: x\n  very_long: x\n"
        f"addopts = -m '{session.PLAIN}'\ntestpaths = .\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "xdist.plugin", "-p", "pytest_timeout", *options]
    environ = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # others take longer to import than the tests run
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "workers"])
def test_skips_are_one_line_that_counts_them_by_reason(tmp_path, workers):
    code = (
        "@pytest.mark.parametrize('number', range(70))\n"
        "def test_broker(number): pytest.skip('without nats-server (Debian: nats-server)')\n"
        "@pytest.mark.skipif(True, reason='no wheel')\n"
        "def test_wheel(): pass\n"
        "@pytest.mark.long\n"
        "def test_hours(): pass\n"
    )
    lines = run_tests(tmp_path, code, *workers).stdout.splitlines()
    assert "skipped 71: 70 without nats-server (Debian: nats-server); 1 no wheel" in lines
    assert sum("skipped" in line.lower() for line in lines) == 2, lines  # and the last line of pytest
    assert "left out: tests marked long or very_long (pytest -m long, pytest -m very_long)" in lines


def test_a_long_test_that_is_named_is_deselected(tmp_path):
    """Where a folder is named, it is not made at all."""
    code = "@pytest.mark.long\ndef test_hours(): pass\n"
    assert "1 deselected" in run_tests(tmp_path, code, "test_it.py::test_hours").stdout
    assert "no tests ran" in (everything := run_tests(tmp_path, code, ".").stdout)
    assert "deselected" not in everything


@pytest.mark.long
@pytest.mark.skipif(not forked_workers.can_copy(), reason="without copies of processes, which Linux has")
def test_all_workers_but_one_are_copies_of_a_process_that_imported_the_tests(tmp_path):
    code = (
        "import os\nfrom pathlib import Path\nIMPORTED_IN = os.getpid()\n"
        "@pytest.mark.parametrize('number', range(30))\n"
        "def test_where(number): Path(f'{os.getpid()}.worker').write_text(str(IMPORTED_IN))\n"
    )
    done = run_tests(tmp_path, code, "-n", "3")
    assert "30 passed" in done.stdout, done.stdout + done.stderr
    imported_in = {path.stem: path.read_text() for path in tmp_path.glob("*.worker")}
    assert sorted(Counter(imported_in.values()).values()) == [1, 2]
    assert len(imported_in.keys() & set(imported_in.values())) == 1


def test_a_test_that_hangs_fails_and_shows_where(tmp_path):
    code = (
        "import threading\n"
        "def wait_for_nobody(): time.sleep(60)\n"
        "def test_hangs():\n"
        "    threading.Thread(target=wait_for_nobody, daemon=True).start()\n"
        "    threading.Event().wait()\n"
        "def test_next(): pass\n"
    )
    done = run_tests(tmp_path, code, "-o", "timeout=1", "-o", "timeout_method=signal")
    assert "1 failed, 1 passed" in done.stdout
    assert "wait_for_nobody" in done.stdout + done.stderr
    assert "threading.Event().wait()" in done.stdout


@pytest.mark.parametrize("name", ["pytest_collection_modifyitems", "pytest_terminal_summary"])
def test_this_session_has_the_hooks(request, name):
    used = [implementation.function for implementation in getattr(request.config.hook, name).get_hookimpls()]
    assert getattr(session, name) in used


def test_every_test_has_a_limit_and_long_ones_a_larger_one(request):
    limit = float(request.config.getini("timeout"))
    assert 0 < limit <= 300
    for item in request.session.items:
        marker = item.get_closest_marker("timeout")
        assert not (item.get_closest_marker("long") and item.get_closest_marker("very_long")), item.nodeid
        if session.is_long(item):
            assert marker is not None, item.nodeid
            assert marker.args[0] >= limit, item.nodeid
    assert float(request.config.getini("faulthandler_timeout")) > 900


def test_a_missing_program_skips_and_in_ci_fails(monkeypatch):
    monkeypatch.setitem(DEBIAN_PACKAGES, "no-such-program", "its-package")
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match=r"^without no-such-program \(Debian: its-package\)$"):
        require_program("no-such-program")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="without no-such-program"):
        require_program("no-such-program")


@pytest.mark.parametrize("document", [".ci/run", "CONTRIBUTING.md"])
def test_every_package_is_installed_by_ci_and_named_for_developers(document):
    text = (REPOSITORY / document).read_text()
    for program, packages in DEBIAN_PACKAGES.items():
        for package in packages.split():
            assert package in text, f"{package} has {program}"
