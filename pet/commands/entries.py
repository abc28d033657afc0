"""The table of commands: where each one is, and which extra it needs. Nothing is imported for it.

What a command does stands in a file of its own beside this one; this file must never know it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pet._extras import install_command
from pet.errors import MissingExtraError


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """One line of the table.

    Attributes:
        module: where the function is.
        summary: the line that `pet --help` shows.
        extra: what has to be installed for it: `pet._extras.install_command`.
        function: its name.
    """

    module: str
    summary: str
    extra: str
    function: str = "command"


@dataclass(frozen=True, slots=True)
class GroupEntry:
    """Commands under a common word."""

    summary: str
    commands: Mapping[str, CommandEntry | GroupEntry]


def _federation(name: str, summary: str) -> CommandEntry:
    return CommandEntry(f"pet.commands.federation_{name}", summary, "federation")


def _change(name: str, summary: str) -> CommandEntry:
    return CommandEntry("pet.commands.federation_changes", summary, "federation", name)


def _rows(name: str, summary: str) -> CommandEntry:
    return CommandEntry("pet.commands.federation_learn", summary, "federation", name)


COMMANDS: Final[Mapping[str, CommandEntry | GroupEntry]] = {
    "coordinator": CommandEntry("pet.commands.coordinator", "Run a coordinator.", "cli"),
    "member": CommandEntry("pet.commands.member", "Run a member of committees, for rounds of pet/1.", "cli"),
    "demo": CommandEntry("pet.commands.demo", "Train on real data with 20 participants, in about a minute.", "demo"),
    "test-drive": CommandEntry("pet.commands.test_drive", "Run dummy participants against any PET coordinator.", "cli"),
    "model": GroupEntry(
        "The global model of a coordinator.",
        {"get": CommandEntry("pet.commands.model_get", "Download the global model.", "cli")},
    ),
    "key": GroupEntry(
        "The key that a coordinator signs its answers with.",
        {
            "new": CommandEntry("pet.commands.key", "Make a key, and show its public key.", "cli", "new"),
            "show": CommandEntry("pet.commands.key", "Show the public key of a key file.", "cli", "show"),
        },
    ),
    "enrol": GroupEntry(
        "Enrolments of profile pet/1: participants, and members of a committee.",
        {
            "new": CommandEntry("pet.commands.enrol", "Begin an enrolment with a plan.", "cli", "new"),
            "add": CommandEntry("pet.commands.enrol", "Add a member or an update participant.", "cli", "add"),
            "sign": CommandEntry("pet.commands.enrol", "Sign an enrolment as its authority.", "cli", "sign"),
            "show": CommandEntry("pet.commands.enrol", "Say who must collude, and what to pin.", "cli", "show"),
        },
    ),
    "config": GroupEntry(
        "Settings files and mask configs.",
        {
            "check": CommandEntry(
                "pet.commands.config_check", "Say what a settings file means and what is wrong with it.", "cli"
            ),
            "advise": CommandEntry("pet.commands.config_advise", "Find the cheapest mask config for a task.", "cli"),
        },
    ),
    "federation": GroupEntry(
        "Federations: peers that merge the statistics of their rows.",
        {
            "serve": _federation("serve", "Run a federation server."),
            "create": _federation("create", "Begin a federation, as its admin."),
            "invite": _federation("invite", "Make an invitation for one future peer."),
            "join": _federation("join", "Become a peer with an invitation."),
            "learn": _rows("learn", "Let the local project learn the rows of a file."),
            "forget": _rows("forget", "Take the rows of a file out again."),
            "start": _change("start", "Let a peer pulse."),
            "stop": _change("stop", "Let a peer stop pulsing."),
            "sync": _federation("sync", "Synchronise now."),
            "status": _federation("status", "Show a federated project, or list all."),
            "page": _federation("page", "Show a federated project in a browser on this machine."),
            "log": _federation("log", "Print what happened, and what went wrong."),
            "accept-contract": _federation("accept_contract", "Let a changed contract count at this peer."),
            "members": _federation("members", "Show the members and the code of their list."),
            "confirm": _federation("confirm", "Confirm members whose keys you compared."),
            "credentials": _federation("credentials", "Change a peer's credential of the broker."),
            "leave": _change("leave", "Leave a federation."),
            "remove": _federation("remove", "Remove another peer, as the admin."),
            "delete": _change("delete", "End a federation, as its admin."),
            "demo": CommandEntry(
                "pet.commands.federation_demo", "Merge the statistics of three peers, in some seconds.", "demo"
            ),
            "user": GroupEntry(
                "Users of a federation server.", {"add": _federation("user_add", "Add a user, and make the key to sign with.")}
            ),
        },
    ),
    "bench": CommandEntry("pet.commands.bench", "Measure the kernels on this machine.", "bench"),
}


def extra_of(entries: Mapping[str, CommandEntry | GroupEntry], arguments: Sequence[str]) -> str:
    """Return the extra of the command that a command line names; "cli" is enough for one that names none."""
    found = entries
    for argument in arguments:
        entry = found.get(argument)
        if isinstance(entry, CommandEntry):
            return entry.extra
        if entry is not None:
            found = entry.commands
    return "cli"


def missing_extra(extra: str, error: ModuleNotFoundError) -> MissingExtraError:
    """Return the error that names an extra; for a module of pet itself the extra is no help, so it is raised as it is."""
    if error.name is None or error.name.split(".")[0] == "pet":
        raise error
    return MissingExtraError(f"expected the extra '{extra}' ({install_command(extra)}), got no module named {error.name!r}")
