"""The table of commands: help, versions, exit statuses, errors in one line, and nothing imported before it is needed."""

import io
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress

import fork_server
import pytest

import pet
from pet import cli
from pet._extras import install_command
from pet.commands.entries import COMMANDS as TABLE
from pet.commands.entries import GroupEntry, missing_extra


def typed(entries, *, groups):
    """Yield every command, or every group, as it is typed."""
    for name, entry in entries.items():
        is_group = isinstance(entry, GroupEntry)
        if is_group == groups:
            yield [name]
        if is_group:
            yield from ([name, *words] for words in typed(entry.commands, groups=groups))


COMMANDS = list(typed(TABLE, groups=False))
GROUPS = [[], *typed(TABLE, groups=True)]
HEAVY = {"matplotlib", "sklearn", "uvicorn", "starlette", "httpx", "pydantic", "numba"}
RUN = "import sys; from pet.cli import main; main(sys.argv[1:])"


def text_of(capsys):
    """What was printed, without the colours and frames of a terminal."""
    return tuple(map(plain, capsys.readouterr()))


def plain(text):
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", text).split())


def test_version_needs_no_extra(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "typer", None)
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"pet {pet.__version__}\n"


def test_help_lists_every_command(capsys):
    assert cli.run(["--help"]) == 0
    out, _ = text_of(capsys)
    for name, entry in TABLE.items():
        assert name in out
        assert entry.summary.split()[0] in out


def test_every_command_has_help_with_an_example_that_fits_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for arguments in [*COMMANDS, *GROUPS]:
        assert cli.run([*arguments, "--help"]) == 0
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= 80, arguments
        assert not re.search(r"…|[a-z]\.\.\.$", shown, re.MULTILINE), arguments
        assert "<bool>" not in shown, "a flag takes no value"
        text = plain(shown)
        assert arguments not in COMMANDS or f"Example: pet {' '.join(arguments)}" in text
        for option in ("--version", "--log-level", "--help"):
            assert option in text, arguments


@pytest.mark.parametrize("arguments", [["--help"], ["federation", "create", "--help"]], ids=" ".join)
def test_a_reader_that_has_read_enough_is_no_error(arguments):
    """As `head` is: the pipe is closed before anything is written, however fast the writer is."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-c", RUN, *arguments], stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_cannot_be_taken_back_asks_first(capsys, monkeypatch):
    """No server is there: the answer comes before anything is sent."""
    for name in ("leave", "delete"):
        arguments = ["federation", name, "mine", "-k", "no.key", "-u", "http://127.0.0.1:1"]
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
        assert cli.run(arguments) == 1
        assert "error: expected --yes, or a terminal to ask on" in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "expected"), [(b"n\n", "nothing was changed"), (b"y\n", "error: no.key: ")])
def test_the_answer_on_a_terminal_counts(tmp_path, answer, expected):
    own, other = os.openpty()
    words = ["federation", "leave", "mine", "-k", "no.key"]
    with fork_server.start(fork_server.PET, *words, stdin=other, folder=tmp_path) as process:
        os.close(other)
        os.write(own, answer)
        _, errors = process.communicate(timeout=60)
        os.close(own)
    assert process.returncode == 1
    assert "can only come back with a new invitation" in errors
    assert expected in errors


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_every_command_tells_the_version(capsys, arguments):
    assert cli.run([*arguments, "--version"]) == 0
    assert capsys.readouterr().out == f"pet {pet.__version__}\n"


@pytest.mark.parametrize("arguments", GROUPS, ids=" ".join)
def test_a_group_without_a_command_shows_its_help(capsys, arguments):
    assert cli.run(arguments) == 2
    out, err = text_of(capsys)
    assert f"Example: {' '.join(['pet', *arguments])} " in out
    assert "error" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command 'nonsense' (see 'pet --help')"),
        (["model", "get"], "Missing option '--output' / '-o' (see 'pet model get --help')"),
        (["demo", "--rounds", "x"], "(see 'pet demo --help')"),
        (["config", "check"], "Missing argument 'FILE' (see 'pet config check --help')"),
        (["--log-level", "loud"], "'loud' is not one of 'debug', 'info', 'warning', 'error' (see 'pet --help')"),
    ],
)
def test_a_usage_error_is_one_line(capsys, arguments, message):
    assert cli.run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.endswith(f"{message}\n")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize("arguments", [*COMMANDS, *GROUPS], ids=" ".join)
def test_an_unknown_option_is_a_usage_error(capsys, arguments):
    assert cli.run([*arguments, "--no-such-option"]) == 2
    assert "--no-such-option" in text_of(capsys)[1]


def test_an_unknown_command_is_a_usage_error(capsys):
    assert cli.run(["demmo"]) == 2
    assert "demmo" in text_of(capsys)[1]


def test_an_error_is_one_line(capsys):
    assert cli.run(["config", "advise", "--bound", "1e400", "--models", "3"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: bound: expected at most ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_file_that_cannot_be_written_is_one_line(capsys, tmp_path):
    nowhere = tmp_path / "missing" / "bench.json"
    arguments = ["bench", "--sizes", "10", "--backends", "portable", "--json", str(nowhere)]
    assert cli.run(arguments) == 1
    assert capsys.readouterr().err == f"error: {nowhere}: expected a folder that exists, got {nowhere.parent}\n"


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("typer", ["demo"], "demo"),
        ("typer", ["config", "check", "config.toml"], "cli"),
        ("typer", [], "cli"),
        ("uvicorn", ["coordinator"], "cli"),
        ("sklearn", ["demo"], "demo"),
        ("matplotlib", ["bench", "--sizes", "10", "--plot", "bench.png"], "bench"),
    ],
)
def test_a_missing_extra_is_named(tmp_path, module, arguments, extra):
    code = f"import sys; sys.modules[{module!r}] = None; {fork_server.PET}"
    answer = fork_server.run(code, *arguments, imports=fork_server.WITHOUT_EXTRAS, folder=tmp_path)
    assert answer.returncode == 1
    assert answer.stderr.startswith(f"error: expected the extra '{extra}' ({install_command(extra)}), got no module ")
    assert answer.stderr.count("\n") == 1


def test_a_missing_module_of_pet_is_not_blamed_on_an_extra():
    error = ModuleNotFoundError("no module", name="pet.nowhere")
    with pytest.raises(ModuleNotFoundError) as raised:
        missing_extra("demo", error)
    assert raised.value is error


def test_help_imports_nothing_heavy():
    code = "import sys; from pet.cli import run; run(['--help']); print(*{name.split('.')[0] for name in sys.modules})"
    answer = fork_server.run(code, imports=fork_server.WITHOUT_EXTRAS)
    assert answer.returncode == 0, answer.stderr
    assert not HEAVY & set(answer.stdout.splitlines()[-1].split())


#: Says when a command is being imported, and gives the test time to interrupt it there.
IMPORTING = """
import sys, time
class Finder:
    def find_spec(name, path, target=None):
        if name == "typer":
            print("up", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Finder)
"""


@pytest.mark.parametrize(("begins", "seconds"), [(IMPORTING, 0), ("print('up', flush=True); ", 1)], ids=["imports", "works"])
def test_ctrl_c_ends_in_one_line(begins, seconds):
    words = ["bench", "--sizes", "1e5", "--backends", "reference"]
    with fork_server.start(begins + fork_server.PET, *words, imports=fork_server.WITHOUT_EXTRAS) as process:
        process.stdout.readline()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=seconds)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "interrupted\n"
