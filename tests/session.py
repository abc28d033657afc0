"""What a test session does for those who run it: a time limit for every test, and one line about what was skipped.

The functions are hooks of pytest; conftest.py imports them.
"""

import contextlib
import gc
import importlib
import os
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import fork_server
import forked_workers
import pytest
from collected import note_collected

#: Seconds for a test that is marked `long` or `very_long`; pyproject.toml has the limit of all others.
LONG_TEST_SECONDS = 900
#: What a plain run is, in pyproject.toml.
PLAIN = "not long and not very_long"


def is_long(item: pytest.Item) -> bool:
    """Return whether a test is left out of a plain run."""
    return bool(item.get_closest_marker("long") or item.get_closest_marker("very_long"))


@pytest.hookimpl(tryfirst=True)  # before any test is left out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give long tests their own limit, unless they have one, and note what was collected.

    Tests of kernels through numba are long: it compiles for 15 seconds of CPU before they compute anything. A plain run has one
    sum through it (tests/kernels/test_kernel_totals.py).
    """
    note_collected(config, items)
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if "numba" in (parameters.get("backend"), parameters.get("measured_backend")) and not is_long(item):
            item.add_marker(pytest.mark.long)
        if is_long(item) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LONG_TEST_SECONDS))


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Import a share of the test files first, where several processes are going to collect all of them.

    In a fresh clone nothing has been compiled to bytecode, neither tests nor libraries, and processes that import the same in
    the same order all compile everything: twelve seconds of CPU for each. So they begin at different ends.
    """
    gc.disable()  # what is imported and collected stays; looking at it again and again takes a fifth of the time
    share = share_of(session.config)
    if share is None:
        return
    places = [Path(argument.partition("::")[0]) for argument in session.config.args]
    files = sorted({path for place in places for path in (place.rglob("test_*.py") if place.is_dir() else [place])})
    for path in files[share]:
        # An error appears once more, and is reported, when pytest imports the file.
        with contextlib.suppress(Exception, pytest.skip.Exception):
            sys.path.insert(0, str(path.parent))
            importlib.import_module(path.stem)


def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, name: str, obj: object) -> list[pytest.Item] | None:
    """Make no tests of what a plain run of whole folders leaves out.

    It is more than half of all tests, and every worker would make each of them to drop it.
    """
    config = collector.config
    if config.option.markexpr != PLAIN or not name.startswith("test") or not all(Path(path).is_dir() for path in config.args):
        return None
    marks = [mark for marked in (obj, collector.obj) for mark in _marks_of(marked)]
    return [] if any(mark.name in ("long", "very_long") for mark in marks) else None


def _marks_of(marked: object) -> list[pytest.Mark]:
    """Return the marks of a function, a class or a module."""
    marks = getattr(marked, "pytestmark", [])
    return [mark if isinstance(mark, pytest.Mark) else mark.mark for mark in (marks if isinstance(marks, list) else [marks])]


def share_of(config: pytest.Config) -> slice | None:
    """Return which of the files a process imports first, if it is one of several that import all of them."""
    worker = getattr(config, "workerinput", None)
    if worker is None:
        return slice(1, None, 2) if forked_workers.is_copied(config) else None
    if forked_workers.HALVES not in os.environ:
        return slice(int(worker["workerid"].removeprefix("gw")), None, worker["workercount"])
    return slice(0, None, 2) if worker["workerid"] == "gw0" else None


def pytest_configure(config: pytest.Config) -> None:
    """Prepare what the workers of a session share, if it has any."""
    if workers := getattr(config.option, "tx", None) or []:
        share_programs(config)
        copy_workers(config, workers)


def share_programs(config: pytest.Config) -> None:
    """Name a folder in which workers find each other's servers of programs: each imports a second of CPU."""
    folder = tempfile.TemporaryDirectory(prefix="pet-programs-", ignore_cleanup_errors=True)
    os.environ[fork_server.FOLDER] = folder.name

    def end() -> None:
        os.environ.pop(fork_server.FOLDER, None)
        folder.cleanup()

    config.add_cleanup(end)


def copy_workers(config: pytest.Config, workers: list[str]) -> None:
    """Start all workers but the first as copies of a process that imports the tests, where processes can be copied.

    Not under coverage, which measures what imports run.
    """
    is_usual = len(workers) > 2 and set(workers) == {"popen"} and not getattr(config.option, "cov_source", None)
    if not is_usual or not forked_workers.can_copy() or config.option.collectonly:
        return
    folder = tempfile.TemporaryDirectory(prefix="pet-tests-", ignore_cleanup_errors=True)
    place, invocation = Path(folder.name, "workers"), config.invocation_params
    server = forked_workers.start_server(place, invocation.dir, [str(argument) for argument in invocation.args])
    os.environ[forked_workers.HALVES] = "1"
    python = shlex.join(forked_workers.command_of(place))
    config.option.tx = ["popen", *(f"popen//python={python}" for _ in workers[1:])]

    def end() -> None:
        os.environ.pop(forked_workers.HALVES, None)
        server.communicate(timeout=60)
        folder.cleanup()

    config.add_cleanup(end)


def pytest_collection_finish() -> None:
    """Keep the garbage collector away from thousands of collected tests: they live as long as the session.

    A full collection walks through all of them, a third of a second; it took a tenth of the CPU time of the whole session.
    """
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which not every environment has
def pytest_xdist_auto_num_workers() -> int | None:
    """Take three workers more than there are cores: many tests wait for a broker, a browser or a clock.

    On two cores four workers left a fifth of the time unused. Another one costs no more than that it collects the tests.
    """
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1) + 3


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print in one line how many tests were skipped, by reason, and how the tests are run that the session left out."""
    skipped, config = terminalreporter.stats.get("skipped", []), terminalreporter.config
    if skipped:
        terminalreporter.write_line(skip_line(reason_of(report) for report in skipped))
    if config.option.markexpr == PLAIN and config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        terminalreporter.write_line("left out: tests marked long or very_long (pytest -m long, pytest -m very_long)")


def skip_line(reasons: Iterable[str]) -> str:
    """Return one line that counts skipped tests by reason, the most frequent first."""
    counts = Counter(reasons)
    parts = [f"{count} {reason}" for reason, count in counts.most_common()]
    return f"skipped {counts.total()}: {'; '.join(parts)}"


def reason_of(report: pytest.TestReport) -> str:
    """Return why a test was skipped, without the place and the word that pytest adds."""
    longrepr = report.longrepr
    reason = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return " ".join(reason.removeprefix("Skipped: ").split())
