"""One address, one key or one member attacks a server in every way it can; others with addresses of their own go on meanwhile.

Each attack once, shortened, and three at the same time that are drawn from a seed: `PET_HOSTILE_SEED=...` repeats them. The
servers run under a memory limit. The long run, with figures and all combinations of three, is benchmarks/hostile.py.
"""

import dataclasses
import functools
import os
import random
import threading
import time

import pytest
from asgi_server import wait_until
from hostile_attacks import ATTACKS
from hostile_member import MEMBER_ATTACKS
from hostile_pet1 import pet1_target
from hostile_round import HttpParticipant
from hostile_targets import coordinator_target, federation_target, uncounted
from pet1_world import LEAF_ELEMENTS

#: What a server may need beyond what it has when nobody attacks it.
MAX_MORE_MEGABYTES = 150
#: Updates of 1.1 MB: they go through the spool.
LENGTH = 160_000
#: How long an attack goes on that nothing is refused to; others until it is counted.
LEAST_SECONDS = 0.3
#: Of the servers' settings: how long an attack takes until it is sent away.
QUICK = {"header_seconds": 0.5, "stall_seconds": 1.0}

pytestmark = pytest.mark.long


class Watch:
    """Asks for /healthz, looks at the memory, and has honest users play again and again, until the end of the `with`."""

    def __init__(self, target):
        self._target, self._is_over = target, threading.Event()
        self.most_megabytes, self.plays, self._errors = 0.0, 0, []
        self._threads = [threading.Thread(target=self._guarded, args=(work,)) for work in (self._look, self._play)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        assert not self._errors, self._errors

    @property
    def has_failed(self):
        return bool(self._errors)

    def _guarded(self, work):
        try:
            while not self._is_over.wait(0.1):
                work()
        except BaseException as error:
            self._errors.append(error)

    def _look(self):
        self.most_megabytes = max(self.most_megabytes, self._target.server.megabytes())
        HttpParticipant(self._target.server, "127.0.3.1").get("/healthz")

    def _play(self):
        self._target.play()
        self.plays += 1


def withstand(target, groups, part=1.0):
    """Carry out attacks, one group after the other, while honest users go on; each must be counted by its reason."""
    idle_megabytes = target.server.megabytes()
    with Watch(target) as watch:
        for number, attacks in enumerate(groups):
            before = target.figures()
            # Each from an address of its own, so that nothing is left of an attack before.
            with target.attacked(attacks, f"127.0.{10 + number}.1", part):
                time.sleep(LEAST_SECONDS)
                wait_until(functools.partial(are_counted, target, attacks, before), 60)
        plays = watch.plays
        wait_until(lambda: watch.plays > plays or watch.has_failed, 120)
    assert watch.most_megabytes - idle_megabytes < MAX_MORE_MEGABYTES
    wait_until(target.is_at_rest, 60)


def are_counted(target, attacks, before):
    time.sleep(0.1)  # asking costs the server, too
    return not uncounted(attacks, before, target.figures())


def drawn(attacks):
    """Return three attacks."""
    seed = os.environ.get("PET_HOSTILE_SEED") or str(random.SystemRandom().randrange(2**32))
    found = tuple(random.Random(seed).sample(attacks, 3))
    print(f"PET_HOSTILE_SEED={seed}: {', '.join(attack.name for attack in found)}")
    return found


def test_rounds_go_on_under_each_attack_and_three():
    with coordinator_target(over_http=3, over_nats=3, length=LENGTH, **QUICK) as target:
        over_http = dataclasses.replace(target, attacks=ATTACKS)
        withstand(over_http, [(attack,) for attack in ATTACKS], 0.3)
        withstand(target, [(attack,) for attack in MEMBER_ATTACKS])
        withstand(target, [drawn(target.attacks)])
        target.play()


def test_rounds_of_pet1_go_on_under_attacks():
    with pet1_target(updates=3, length=LEAF_ELEMENTS, **QUICK) as target:
        named = {attack.name: attack for attack in target.attacks}
        groups = [
            ("slow leaves",),
            ("slow updates", "models not read"),
            ("wrong leaves",),
            ("junk openings", "headers not read"),
        ]
        withstand(target, [tuple(named[name] for name in group) for group in groups], 0.3)


def test_a_federation_server_answers_under_each_attack_and_three():
    with federation_target(**QUICK) as target:
        withstand(target, [(attack,) for attack in target.attacks], 0.5)
        withstand(target, [drawn(target.attacks)])
