"""`pet member`: a member of committees of pet/1, until Ctrl-C.

What it signs, and when, is in pet/participant/committee_member.py; this file parses, says who must collude, and ends cleanly.
"""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pet.commands._coordinator_url import AllowInsecureOption, CoordinatorKeyOption, open_coordinator
from pet.commands.stop_signals import call_on_stop
from pet.coordinator.key_file import read_key_file
from pet.log_lines import log_to_standard_error
from pet.participant.back_off import BackOff
from pet.participant.committee_member import CommitteeMember, end_requests_later
from pet.transports.base import Transport
from pet.urls import shown_url


def command(
    key: Annotated[Path, typer.Option("--key", "-k", metavar="FILE", help="The member's key file: pet key new.")],
    enrolment: Annotated[
        str,
        typer.Option(
            "--enrolment",
            "-e",
            metavar="FILE",
            help="The enrolment, or its digest, or the public key of the authority that signs it.",
        ),
    ],
    state: Annotated[
        Path,
        typer.Option("--state", "-s", metavar="FILE", help="What the member signed. Do not restore it from a backup."),
    ],
    url: Annotated[
        str, typer.Option("--url", "-u", help="Where the coordinator is: http(s)://..., or nats://host:port[/federation].")
    ] = "http://127.0.0.1:8081",
    new: Annotated[bool, typer.Option("--new", help="Begin a state file; without it, there has to be one.")] = False,
    least_passive: Annotated[
        int,
        typer.Option(
            "--least-passive", min=0, help="Members that must not suffice with a coordinator that follows the protocol."
        ),
    ] = 1,
    least_active: Annotated[
        int, typer.Option("--least-active", min=0, help="Members that must not suffice with a coordinator that does anything.")
    ] = 1,
    least_updates: Annotated[int, typer.Option("--least-updates", min=3, help="The smallest sum to take part in.")] = 3,
    max_message_size: Annotated[
        int | None, typer.Option("--max-message-size", min=194, help="Send larger answers in chunks of this size, in bytes.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Go on after errors that do not go away by themselves, such as 404 or a certificate.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="How many threads may sum masks; all cores if not given.")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", "-c", metavar="FILE", help="The only authority to trust over https (PEM).")
    ] = None,
    identity: Annotated[
        Path | None, typer.Option("--identity", "-i", metavar="FILE", help="Certificate and key to appear with (PEM).")
    ] = None,
    coordinator_key: CoordinatorKeyOption = None,
    allow_insecure: AllowInsecureOption = False,
) -> None:
    """Run a member of committees until Ctrl-C: it holds shares of masks, and never sees an update.

    Example: pet member -u https://aggregate.example -k north.key -e trial.enrolment -s north.state --new
    """
    console = Console(highlight=False, markup=False)
    _set_up_logging()
    signing_key = read_key_file(key)
    with (
        closing(open_coordinator(url, certificate, identity, coordinator_key, allow_insecure=allow_insecure)) as transport,
        CommitteeMember(
            transport,
            signing_key,
            enrolment,
            state_file=state,
            new=new,
            least_passive=least_passive,
            least_active=least_active,
            least_updates=least_updates,
            back_off=BackOff(waits_for_repair=wait),
            max_message_size=max_message_size,
            threads=threads,
            coordinator_key=coordinator_key,
        ) as member,
    ):
        public_key = signing_key.public_key.hex()
        console.print(f"member {public_key} of {shown_url(url)}, state in {state} (Ctrl-C ends)", soft_wrap=True)
        with call_on_stop(lambda: _stop(member, transport)):
            member.run()
        console.print(f"Stopped. Rounds answered: {member.status.answered}.")


def _stop(member: CommitteeMember, transport: Transport) -> None:
    """Have a member end; a request that takes longer than half a second is given up."""
    member.stop()
    end_requests_later(transport)


def _set_up_logging() -> None:
    """Log what pet says from "info" on; --log-level, where it was given, wins."""
    log_to_standard_error()
    logger = logging.getLogger("pet")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
