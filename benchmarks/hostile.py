"""Honest users of a server while one address, one key or one member attacks it: each attack, then combinations of three.

    python benchmarks/hostile.py --seconds 20 --triples 20
    python benchmarks/hostile.py --server NATS --triples -1     # all of them
    python benchmarks/hostile.py --server TLS --only "flood + no HTTP + silence" --only flood

Servers: a coordinator over HTTP, one over TLS, one over NATS with a user for each participant, one of pet/1 over HTTP, and a
federation server; each under a memory limit. Honest are twenty participants with an address or a user each (pet/1: six with
one address), who play rounds, or a user who learns rows.

Prints, for each: what honest users got done, how many of their requests were refused, /healthz (99 of 100, and the slowest),
memory beyond the idle service's, whether the server counted the attacker by a reason, and how long after the attack something
is still held. Ends with status 1 where a bar is missed: /healthz within 1 s, 150 MB, counted, 10 s; an honest user that gets
nowhere, or another result than the right one, ends it at once. The attacks are those of tests/hostile.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "hostile")]

from hostile_pet1 import pet1_target  # noqa: E402
from hostile_targets import AnyAttack, Target, coordinator_target, federation_target, uncounted  # noqa: E402

MAX_HEALTH_SECONDS: Final = 1.0
MAX_MORE_MEGABYTES: Final = 150
MAX_REST_SECONDS: Final = 10.0
#: Updates of 1.75 MB: they go through the spool.
_LENGTH: Final = 250_000
_HONEST: Final = 20
#: As many as are enrolled there.
_HONEST_PET1: Final = 6
TARGETS: Final[dict[str, Callable[[], AbstractContextManager[Target]]]] = {
    "HTTP": lambda: coordinator_target(_HONEST, 0, _LENGTH),
    "TLS": lambda: coordinator_target(_HONEST, 0, _LENGTH, has_tls=True),
    "NATS": lambda: coordinator_target(0, _HONEST, _LENGTH),
    "pet/1": lambda: pet1_target(_HONEST_PET1, _LENGTH),
    "federation": federation_target,
}


@dataclass
class Found:
    """What was measured under some attacks."""

    health_seconds: list[float]
    most_megabytes: float
    plays: int = 0
    refused: int = 0
    rest_seconds: float = 0.0
    uncounted: tuple[str, ...] = ()

    @property
    def typical_seconds(self) -> float:
        """What 99 of 100 answers to /healthz took at most."""
        return sorted(self.health_seconds)[int(0.99 * (len(self.health_seconds) - 1))]

    def misses(self, idle_megabytes: float) -> bool:
        """Return whether a bar is missed."""
        return (
            self.typical_seconds >= MAX_HEALTH_SECONDS
            or self.most_megabytes - idle_megabytes >= MAX_MORE_MEGABYTES
            or self.rest_seconds >= MAX_REST_SECONDS
            or bool(self.uncounted)
        )


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each attack, at least one round")
    parser.add_argument(
        "--triples", type=int, default=10, help="combinations of three for each server, drawn; -1 for all of them"
    )
    parser.add_argument("--seed", type=int, default=None, help="what they are drawn from")
    parser.add_argument("--server", choices=TARGETS, action="append", help="which; repeatable, all if not given")
    parser.add_argument("--only", action="append", help="an attack, or attacks together as they are printed; repeatable")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}; {arguments.seconds:g} s each")
    count = missed = 0
    for name in arguments.server or TARGETS:
        with TARGETS[name]() as target:
            print(f"{name}: idle with {target.server.megabytes():.0f} MB", flush=True)
            for attacks in _kinds(target, arguments.triples, seed, arguments.only):
                count += 1
                missed += _withstands(name, target, attacks, arguments.seconds)
    if not count:
        parser.error(f"expected names of attacks of these servers, got {arguments.only}")
    print(f"{count} attacks and combinations, bars missed by {missed}")
    return 1 if missed else 0


def _kinds(target: Target, triples: int, seed: int, only: list[str] | None) -> list[tuple[AnyAttack, ...]]:
    if only is not None:
        by_name = {attack.name: attack for attack in target.attacks}
        chosen = [[name.strip() for name in each.split("+")] for each in only]
        return [tuple(by_name[name] for name in names) for names in chosen if by_name.keys() >= set(names)]
    combined = list(itertools.combinations(target.attacks, 3))
    if triples >= 0:
        combined = random.Random(seed).sample(combined, min(triples, len(combined)))
    return [*((attack,) for attack in target.attacks), *combined]


def _withstands(name: str, target: Target, attacks: tuple[AnyAttack, ...], seconds: float) -> bool:
    """Attack for a while, and print what came of it; returns whether a bar is missed."""
    idle_megabytes, before, found = target.server.megabytes(), target.figures(), Found([], 0.0)
    with target.attacked(attacks, "127.0.0.66"), _watched(target, found):
        end = time.monotonic() + seconds
        while time.monotonic() < end or not found.plays:
            found.refused += target.play()
            found.plays += 1
    after = target.figures()
    found.uncounted = uncounted(attacks, before, after)
    found.rest_seconds = _rest_seconds(target)
    is_missed = found.misses(idle_megabytes)
    health = (
        f"{found.typical_seconds * 1000:.0f} ms, at most {max(found.health_seconds) * 1000:.0f} of {len(found.health_seconds)}"
    )
    print(
        f"{'MISS' if is_missed else 'ok  '} {name}: {' + '.join(attack.name for attack in attacks)}: {found.plays} rounds, "
        f"{found.refused} refused, /healthz {health}, {found.most_megabytes - idle_megabytes:+.0f} MB, "
        f"at rest after {found.rest_seconds:.1f} s" + "".join(f", not counted: {each}" for each in found.uncounted),
        flush=True,
    )
    return is_missed


@contextlib.contextmanager
def _watched(target: Target, found: Found) -> Iterator[None]:
    """Look at /healthz and the memory until the end of the `with`, from another process (tests/hostile/hostile_watch.py)."""
    server = target.server
    command = [sys.executable, str(TESTS / "hostile" / "hostile_watch.py"), *map(str, server.address), str(server.process.pid)]
    if server.context is not None:
        command.append(str(TESTS / "vectors" / "tls" / "authority.pem"))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watcher:
        try:
            yield
        finally:
            printed, errors = watcher.communicate()
    if watcher.returncode != 0:
        raise SystemExit(errors)
    result = json.loads(printed)
    found.health_seconds, found.most_megabytes = result["seconds"], result["most_megabytes"]


def _rest_seconds(target: Target) -> float:
    began = time.monotonic()
    while not target.is_at_rest():
        time.sleep(0.1)
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
