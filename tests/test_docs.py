"""Every snippet of README.md and docs/*.md runs as it stands there, or says why it does not (tests/documents.py).

Python runs in one namespace for each page, in surroundings that give its names a meaning; shell runs in bash, in an empty
folder. Only ports are other ones: somebody may use the documented ones on this machine.
"""

import ast
import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from documents import PAGES, ROOT, blocks, snippets
from programs import free_port, require_program

import pet
from pet.cli import run
from pet.commands.entries import COMMANDS, GroupEntry
from pet.errors import TransportError
from pet.protocol import Phase, PhaseWindow, RoundSettings

#: Why snippets are not run, by page. Nothing else may stand in a document.
NOT_RUN = {
    "README.md": ["it installs; the demo alone is run by tests/commands/test_federation_demo.py"],
    "docs/install.md": ["it needs the archive that tools/build_wheels makes"],
    "docs/operations.md": ["it installs"],
    "docs/reliability.md": ["it takes hours; tests/coordinator/test_kills.py kills a few times"],
    "docs/statistics.md": ["it needs torch, which .ci/run has in an environment of its own"],
}
COMMAND = re.compile(r"^(?:\$ |(?:\S+/)?(?:pet|python3?|pip|pytest|curl|docker|kubectl|systemctl) )", re.MULTILINE)
#: Phases for tests. A round that chance gives too few participants ends soon.
SHORT_PHASES = {
    f"PET__PET__{phase}__TIME__{name}": seconds
    for phase in ("SUM", "UPDATE", "SUM2")
    for name, seconds in (("MIN", "0.3"), ("MAX", "5"))
}
PRELUDE = 'set -euo pipefail\npet() { "$PYTHON" -m pet "$@"; }\npython3() { "$PYTHON" "$@"; }\n'


class Runner:
    """Runs the snippets of one page in its folder."""

    def __init__(self, folder):
        self.folder, self.names, self.servers = folder, {"__name__": "__main__"}, []
        self.ports = {name: str(free_port()) for name in ("8081", "8443")}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PET_")}
        self.environ = clean | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)} | SHORT_PHASES

    def run(self, block):
        code = block.code
        for documented, free in self.ports.items():
            code = code.replace(f":{documented}", f":{free}")
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + code, block.page, "exec"), self.names)
        elif (text := block.notes.get("goes on")) is not None:
            self.start(code, text)
        else:
            done = subprocess.run(
                self.bash(code), cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=240
            )
            assert done.returncode == 0, f"{block.page}:{block.line}\n{done.stdout}\n{done.stderr}"

    def bash(self, code):
        return ["bash", "-c", PRELUDE + code]

    def start(self, code, text):
        log = self.folder / f"{len(self.servers)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                self.bash(code), cwd=self.folder, env=self.environ, stdout=file, stderr=file, start_new_session=True
            )
        self.servers.append(process)
        deadline = time.monotonic() + 60
        while text not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)

    def stop(self):
        for process in self.servers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def runner(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = Runner(tmp_path)
    yield runner
    runner.stop()


def run_page(page, runner):
    """Run what is left to this file; return how many snippets that were."""
    todo = [block for block in snippets(page) if not {"not run", "run by"} & set(block.notes)]
    for block in todo:
        runner.run(block)
    return len(todo)


def round_settings():
    window = PhaseWindow(min_count=3, max_count=10, min_seconds=1, max_seconds=10)
    config = pet.MaskConfig.parse("prime-f32-b0-m3")
    return RoundSettings.of(config, 4, sum_probability=0.5, update_probability=0.9, sum=window, update=window, sum2=window)


def test_the_machines_without_io(runner):
    def carry_out(request):
        raise TransportError("nobody there")

    runner.names |= {"settings": round_settings(), "body": bytearray(200), "carry_out": carry_out}
    assert run_page("docs/protocol.md", runner) == 2
    coordinator = runner.names["coordinator"]
    assert coordinator.phase is Phase.SUM
    assert coordinator.status(0).rejected == {"decryption": 1}
    assert runner.names["machine"].parameters is None


def test_an_engine_with_stores(runner):
    runner.names["settings"] = round_settings()
    assert run_page("docs/reliability.md", runner) == 1
    runner.names["storage"].close()
    assert (runner.folder / "pet-state" / "coordinator.sqlite").exists()


def test_statistics_without_a_federation(runner):
    assert run_page("docs/statistics.md", runner) == 1


def test_models_of_several_dtypes(runner, capsys):
    assert run_page("docs/packing.md", runner) == 3
    assert "120 True\n0.125\n" in capsys.readouterr().out


def test_models_of_frameworks(runner, capsys):
    assert run_page("docs/adapters.md", runner) == 2
    assert "4 float64\n" in capsys.readouterr().out
    assert runner.names["fit"].is_finished


@pytest.mark.long
def test_the_readme(runner, capsys):
    require_program("curl")
    runner.environ["PET__API__BIND_ADDRESS"] = f"127.0.0.1:{runner.ports['8081']}"
    assert run_page("README.md", runner) == 3
    assert "[0.15 0.2  0.25]" in capsys.readouterr().out
    assert (runner.folder / "model.npy").exists()


@pytest.mark.long
def test_a_pinned_coordinator_key(runner):
    runner.environ["PET__API__BIND_ADDRESS"] = f"127.0.0.1:{runner.ports['8081']}"
    assert run_page("docs/security.md", runner) == 2
    assert (runner.folder / "model.npy").exists()


@pytest.mark.long
def test_a_coordinator_with_tls_and_metrics(runner):
    for name in ("curl", "openssl"):
        require_program(name)
    runner.environ["PET__API__BIND_ADDRESS"] = f"127.0.0.1:{runner.ports['8443']}"
    (runner.folder / "examples").symlink_to(ROOT / "examples")
    command = runner.folder / "venv" / "bin" / "pet"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m pet "$@"\n')
    command.chmod(0o755)
    assert run_page("docs/operations.md", runner) == 2


def test_what_is_not_run_says_why():
    reasons = {page: [block.notes["not run"] for block in snippets(page) if "not run" in block.notes] for page in PAGES}
    assert {page: found for page, found in reasons.items() if found} == NOT_RUN


def test_what_others_run_is_run_there():
    named = [(block, block.notes["run by"]) for page in PAGES for block in snippets(page) if "run by" in block.notes]
    assert len(named) > 10
    for block, path in named:
        assert block.page.removeprefix("docs/") in (ROOT / path).read_text(), (block.page, block.line, path)


def test_no_snippet_is_forgotten():
    """Every page with a snippet for this file is run above; and commands stand in fences that are known as such."""
    left = {page for page in PAGES for block in snippets(page) if not {"not run", "run by"} & set(block.notes)}
    calls = [node for node in ast.walk(ast.parse((ROOT / "tests/test_docs.py").read_text())) if isinstance(node, ast.Call)]
    run = {call.args[0].value for call in calls if getattr(call.func, "id", "") == "run_page"}
    assert run == left
    others = [block for page in PAGES for block in blocks(page) if block.language in ("", "text", "bash", "shell", "console")]
    assert [(block.page, block.line) for block in others if COMMAND.search(block.code)] == []


def command_of(words):
    """Return the words that name a command: groups first."""
    found, entry = [], GroupEntry("", COMMANDS)
    for word in words:
        if isinstance(entry, GroupEntry) and word in entry.commands:
            found.append(word)
            entry = entry.commands[word]
    return tuple(found), entry


def test_commands_in_a_sentence_exist(capsys):
    """With their options. Those that do not run are commands as well."""
    wanted = {}
    for page in PAGES:
        for text in re.findall(r"`pet ((?!coordinator answer )[a-z-][^`]*)`", (ROOT / page).read_text()):
            command, entry = command_of(text.split())
            assert command, (page, text)
            options = re.findall(r"(?<=\s)--?[a-z][a-z-]*", text)
            if isinstance(entry, GroupEntry):
                assert text.split() in ([*command], [*command, "--help"]), (page, text)
            else:
                wanted.setdefault(command, set()).update(options)
    assert len(wanted) > 10
    for command, options in wanted.items():
        if options:
            run([*command, "--help"])
            shown = capsys.readouterr().out
            assert {option for option in options if option not in shown} == set(), command
