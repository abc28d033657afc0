"""What is attacked, and by what: each kind of server with its attacks, and with honest users who go on meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
from federation_rest_server import KEY
from hostile_attacks import ATTACKS, OF_USERS, ON_FEDERATIONS, Attack, attacked
from hostile_member import MEMBER_ATTACKS, MemberAttack, attacked_by_member
from hostile_round import HttpParticipant, participants, play_round
from hostile_servers import FEDERATION_BODY_BYTES, Server, coordinator, federation_server

from pet.errors import FederationRefusedError, FederationUnavailableError
from pet.federation import Client
from pet.federation.statistics.feature import Feature
from pet.federation.statistics.schema import Schema

AnyAttack: TypeAlias = Attack | MemberAttack
_SCHEMA: Final = Schema((Feature(name="x"), Feature(name="y")))
_ROWS: Final = 20


@dataclasses.dataclass(frozen=True)
class Target:
    """A server that runs, and its honest users.

    Attributes:
        server: it.
        attacks: those that it may be under.
        play: lets honest users get something done, and checks it; returns how often they were refused.
        most_bytes: the largest body that the server takes.
    """

    server: Server
    attacks: tuple[AnyAttack, ...]
    play: Callable[[], int]
    most_bytes: int

    @contextlib.contextmanager
    def attacked(self, attacks: tuple[AnyAttack, ...], source: str, part: float = 1.0) -> Iterator[None]:
        """Carry out attacks until the end of the `with`; see `hostile_attacks.attacked`."""
        over_http = tuple(attack for attack in attacks if isinstance(attack, Attack))
        by_member = tuple(attack for attack in attacks if isinstance(attack, MemberAttack))
        with contextlib.ExitStack() as stack:
            if over_http:
                stack.enter_context(
                    attacked(self.server.address, source, over_http, self.most_bytes, self.server.context, part)
                )
            if by_member:
                stack.enter_context(attacked_by_member(self.server, by_member))
            yield

    def figures(self) -> dict[str, float]:
        """Return the metrics of the server."""
        return HttpParticipant(self.server, "127.0.2.2").figures()

    def is_at_rest(self) -> bool:
        """Return whether nothing is held of what others may need.

        Over NATS what a sender left unfinished stays for a while, as it may come back, and is the first to make way
        (docs/nats.md): there it is the next round that shows it.
        """
        found = self.figures()
        is_kept = any(isinstance(attack, MemberAttack) for attack in self.attacks)
        return is_kept or not any(found.get(name) for name in ("pet_memory_in_flight_bytes", "pet_spooled_bytes"))


#: Why an address is refused whatever it is about to do.
_ADDRESS_REASONS: Final = ("connection", "connection_rate", "rate")


def uncounted(attacks: Sequence[AnyAttack], before: dict[str, float], after: dict[str, float]) -> tuple[str, ...]:
    """Return the names of attacks of one address that the server has not counted by one of their reasons.

    Where it does several things, one may have taken its connections or requests, so that another never begins.
    """
    more = _ADDRESS_REASONS if len(attacks) > 1 else ()
    expected = {attack.name: (*attack.reasons, *more) for attack in attacks if attack.reasons}
    return tuple(name for name, reasons in expected.items() if _refusals(after, reasons) <= _refusals(before, reasons))


def _refusals(figures: dict[str, float], reasons: Sequence[str]) -> float:
    names = ("pet_refusals_total", "pet_nats_uploads_refused_total", "pet_messages_refused_total")
    return sum(figures.get(f'{name}{{reason="{reason}"}}', 0.0) for name in names for reason in reasons)


@contextlib.contextmanager
def coordinator_target(
    over_http: int, over_nats: int, length: int, *, has_tls: bool = False, **seconds: float
) -> Iterator[Target]:
    """Run a coordinator for rounds with an update of each honest participant; with some over NATS it is attacked there, too."""
    updates, has_broker = over_http + over_nats, over_nats > 0
    with (
        coordinator(updates=updates, length=length, has_tls=has_tls, has_broker=has_broker, **seconds) as server,
        participants(server, over_http, over_nats) as senders,
    ):
        attacks = (*(ATTACKS if over_http else ()), *(MEMBER_ATTACKS if over_nats else ()))
        target = Target(server, attacks, lambda: play_round(server, senders, length), 7 * length)
        target.play()  # also what every later round needs of memory
        server.limit_memory()
        yield target


@contextlib.contextmanager
def federation_target(**seconds: float) -> Iterator[Target]:
    """Run a federation server; an honest user learns rows and counts them, a user with another key may attack, too."""
    with federation_server(**seconds) as server, contextlib.ExitStack() as stack:
        client = stack.enter_context(Client("http://{}:{}".format(*server.address), "c1", KEY, timeout_seconds=60))
        assert server.broker is not None
        client.create("p", "f", nats_hosts=server.broker.url, fed_schema=_SCHEMA.to_json())
        table, learned = {name: np.linspace(-5, 5, _ROWS) for name in ("x", "y")}, 0

        def play() -> int:
            nonlocal learned
            learned += 1
            refused, request = 0, f"table-{learned:016}"
            while True:
                try:
                    client.learn("p", table, again=True, request_id=request)
                    assert client.row_counts("p")["learned"] == learned * _ROWS
                    return refused
                except (FederationRefusedError, FederationUnavailableError):
                    refused += 1
                    assert refused < 100

        target = Target(server, (*ON_FEDERATIONS, *OF_USERS), play, FEDERATION_BODY_BYTES)
        target.play()
        server.limit_memory()
        yield target
