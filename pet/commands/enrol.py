"""`pet enrol`: who may send updates in rounds of pet/1, and who is a member of the committee; in a file, signed, and shown.

The file is the one of docs/spec/profile.md 6.6: people may edit it, and `add` keeps what they wrote. An authority signs the
bytes of 6.1, which a coordinator serves.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Final

import typer

from pet.coordinator.key_file import read_key_file
from pet.crypto import decode_public_key
from pet.errors import ConfigError
from pet.files import read_private, replace_file, shown_fault, sync_folder, write_new
from pet.pet1.enrolment import MIN_UPDATES, NAME, Enrolment, split_signed
from pet.pet1.enrolment_file import add_entry, new_draft, parse_enrolment
from pet.pet1.hashes import is_signed_text, magic

#: 255 members and 10^6 participants with names, as text.
_MAX_BYTES: Final = 1 << 28

File = Annotated[Path, typer.Argument(metavar="FILE", help="The enrolment; only its owner can read it.")]


def new(
    file: File,
    members: Annotated[int, typer.Option("--members", help="Members of each group.")] = 5,
    threshold: Annotated[int, typer.Option("--threshold", help="How many of a group recover the sum of masks.")] = 3,
    quorum: Annotated[int, typer.Option("--quorum", help="How many of all members must sign the list of updates.")] = 4,
    groups: Annotated[int, typer.Option("--groups", help="Groups of members.")] = 1,
    least_updates: Annotated[
        int | None, typer.Option("--least-updates", help="The least number of updates in a sum; all of them if not given.")
    ] = None,
) -> None:
    """Begin an enrolment with a plan; members and participants are added then.

    Example: pet enrol new trial.toml --members 5 --threshold 3 --quorum 4
    """
    if least_updates is not None and least_updates < MIN_UPDATES:
        raise ConfigError(f"least_updates: expected {MIN_UPDATES} or more, got {least_updates}")
    text = new_draft(groups=groups, members=members, threshold=threshold, quorum=quorum, least_updates=least_updates)
    _write(file, text.encode(), is_new=True)
    typer.echo(f"{file}: {groups * members} members are to be added, and the update participants: pet enrol add {file}")


def add(
    file: File,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its public key, in hexadecimal or base64.")],
    name: Annotated[str, typer.Option("--name", help="For people.")] = "",
    is_member: Annotated[bool, typer.Option("--member", help="It is a member, in the next slot.")] = False,
    does_participate: Annotated[bool, typer.Option("--participant", help="It sends updates.")] = False,
) -> None:
    """Add a member, an update participant, or one that is both. The version goes up, so that an older file counts no longer.

    Compare the key with its owner, by another way than it came: who adds an invented one can read what others send.

    Example: pet enrol add trial.toml 91aa... --name "North clinic" --member --participant
    """
    if not (is_member or does_participate):
        raise typer.BadParameter("expected --member, --participant or both, got neither", param_hint="KEY")
    public_key = decode_public_key(key)
    if public_key is None:
        raise typer.BadParameter("expected a public key of 32 bytes in hexadecimal or base64", param_hint="KEY")
    text = add_entry(_read(file).decode(), public_key, name, is_member=is_member, does_participate=does_participate)
    table = parse_enrolment(text)
    _write(file, text.encode())
    missing = table["plan"].member_count - len(table["members"])
    typer.echo(f"version {table['version']}: {len(table['participants'])} participants; {missing} members are missing")


def sign(
    file: File,
    key: Annotated[Path, typer.Option("--key", "-k", metavar="FILE", help="The authority's key file: pet key new.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="A new file for the signed bytes.")],
) -> None:
    """Sign an enrolment as its authority, whose public key peers have in their settings.

    Example: pet enrol sign trial.toml -k authority.key -o trial.enrolment
    """
    enrolment = Enrolment.from_toml(file)
    _write(output, enrolment.sign(read_key_file(key)), is_new=True)
    typer.echo(f"{output}: version {enrolment.version}, digest {enrolment.digest.hex()}")


def show(
    file: File,
    authority: Annotated[
        str | None, typer.Option("--authority", metavar="KEY", help="A public key: is the enrolment signed with it?")
    ] = None,
) -> None:
    """Say who must collude to read a single update, and what to pin: the digest of the enrolment.

    Example: pet enrol show trial.enrolment
    """
    data = _read(file)
    if data.startswith(magic(NAME)):
        enrolment, signature = split_signed(data)
    else:
        enrolment, signature = Enrolment.from_toml(file), b""
    typer.echo(enrolment.describe())
    is_over = 0 < enrolment.expires < time.time()
    until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(enrolment.expires)) if enrolment.expires else "never"
    typer.echo(f"version {enrolment.version}, expires {until}{', which is over' if is_over else ''}")
    typer.echo(f"digest {enrolment.digest.hex()}")
    if authority is not None:
        public_key = decode_public_key(authority)
        if public_key is None or not is_signed_text(public_key, NAME, enrolment.to_bytes(), signature):
            raise ConfigError(f"{file}: expected the signature of this authority, got another one or none")
        typer.echo("signed by this authority")


def _read(path: Path) -> bytes:
    try:
        return read_private(path, _MAX_BYTES)
    except OSError as error:
        raise ConfigError(shown_fault(error, path, "an enrolment")) from None


def _write(path: Path, data: bytes, *, is_new: bool = False) -> None:
    try:
        (write_new if is_new else replace_file)(path, [data])
        sync_folder(path.parent)
    except OSError as error:
        raise ConfigError(shown_fault(error, path, "a file for the enrolment")) from None
