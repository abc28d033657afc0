"""`pet federation demo`: three hospitals, one regression, and nobody's numbers shown.

This file has the data and prints; the processes are in federation_demo_run.py. Everything goes through the same REST interface,
the same broker and the same rounds as any federation.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pet.commands.federation_demo_run import Broker, Site, await_sync, running_broker, running_sites
from pet.commands.orphan_keeper import keeping_orphans
from pet.commands.stop_signals import StopSignals
from pet.errors import FederationStateError, MissingExtraError
from pet.federation.runtime import Regression
from pet.federation.statistics.analysis import linear_regression
from pet.federation.statistics.feature import Feature, Kind
from pet.federation.statistics.round_integers import RoundIntegers
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics
from pet.secret import Secret

#: What is known in public of such measurements; nothing of it comes from the rows.
SCHEMA: Final = Schema(
    (
        Feature(name="age", centre=50, scale=15),
        Feature(name="male", kind=Kind.BINARY),
        Feature(name="body_mass_index", centre=26, scale=5),
        Feature(name="blood_pressure", centre=95, scale=15),
        Feature(name="cholesterol", centre=190, scale=40),
        Feature(name="ldl", centre=115, scale=32),
        Feature(name="hdl", centre=50, scale=15),
        Feature(name="cholesterol_ratio", centre=4, scale=1.5),
        Feature(name="log_triglycerides", centre=4.6, scale=0.6),
        Feature(name="glucose", centre=90, scale=12),
        Feature(name="progression", centre=150, scale=80, edges=(75.0, 125.0, 175.0, 250.0)),
    )
)
TARGET: Final = "progression"
#: In the order of the data set's columns.
_COLUMNS: Final = ("age", "male", "body_mass_index", "blood_pressure", "cholesterol", "ldl", "hdl", "cholesterol_ratio")
_MORE_COLUMNS: Final = ("log_triglycerides", "glucose", TARGET)
_SITES: Final = {"anna": 30, "bert": 112, "cleo": 300}
#: What "equal" means: the coefficients differ by less than this share.
_TOLERANCE: Final = 1e-9


def command() -> None:
    """Merge the statistics of three peers that see nothing of each other, and compare with the pooled rows.

    Needs nats-server on the PATH. Example: pet federation demo
    """
    console = Console(highlight=False)
    started = time.monotonic()
    parts = deal(load_rows())
    with (
        StopSignals() as signals,
        tempfile.TemporaryDirectory(prefix="pet-federation-") as name,
        contextlib.ExitStack() as stack,
    ):
        folder = Path(name)
        group = stack.enter_context(keeping_orphans(folder))
        broker = stack.enter_context(running_broker(folder / "broker", signals.interruptible, group))
        console.print("A nats-server runs on loopback, and three federation servers, each a process.")
        sites = stack.enter_context(running_sites(list(_SITES), folder, signals.interruptible, group))
        with signals.interruptible():
            _show(console, sites, broker, parts)
    console.print(f"Done in {time.monotonic() - started:.0f} s; nothing is left behind.")


def _show(console: Console, sites: list[Site], broker: Broker, parts: list[dict[str, NDArray[np.float64]]]) -> None:
    """Federate the sites, let them learn and merge, and print what came of it."""
    _federate(sites, broker.url, broker.token)
    for site, part in zip(sites, parts, strict=True):
        site.client.learn(site.name, part)
    rows = ", ".join(f"{name} {count}" for name, count in _SITES.items())
    console.print("anna began a federation, and invited bert and cleo.")
    console.print(f"Each confirmed the members, after comparing the code {sites[0].client.members(sites[0].name).code}.")
    console.print(f"Each learned its own rows of the diabetes study: {rows}.")
    for site in reversed(sites):
        site.client.start_pulse(site.name)
    sites[0].client.sync_now(sites[0].name)
    await_sync(sites, 1)
    for site in sites:
        console.print(f"  {site.name}: {site.client.sync_log(site.name)[-1]}", soft_wrap=True)
    _compare(console, sites, parts)
    _say_what_was_seen(console, sites)


def load_rows() -> dict[str, NDArray[np.float64]]:
    """Return the diabetes data that comes with scikit-learn: 442 patients, ten measurements and a year's progression."""
    with MissingExtraError.naming("demo"):
        from sklearn.datasets import load_diabetes
    data = load_diabetes(scaled=False)
    rows = np.column_stack([data.data, data.target]).astype(np.float64)
    rows[:, 1] -= 1  # the sexes are 1 and 2 there
    return dict(zip((*_COLUMNS, *_MORE_COLUMNS), rows.T, strict=True))


def deal(rows: dict[str, NDArray[np.float64]]) -> list[dict[str, NDArray[np.float64]]]:
    """Deal the rows out by age, so that the parts differ in more than their size."""
    order = np.argsort(rows["age"], kind="stable")
    borders = np.cumsum([0, *_SITES.values()])
    return [{name: column[order[start:stop]] for name, column in rows.items()} for start, stop in itertools.pairwise(borders)]


def _federate(sites: list[Site], url: str, token: Secret) -> None:
    """Let the first site create a federation, and the others join it by invitation."""
    admin, *others = sites
    admin.client.create(
        admin.name, "diabetes", nats_hosts=url, schedule="h1", nats_sec_token=token, fed_schema=SCHEMA.to_json()
    )
    for site in others:
        text, password = admin.client.invite(admin.name)
        site.client.join(site.name, text, password)
    for site in sites:
        # Each user compares the code with the two others, by telephone for example; here one program is all three.
        site.client.confirm_list(site.name, admin.client.members(admin.name).code)


def _compare(console: Console, sites: list[Site], parts: list[dict[str, NDArray[np.float64]]]) -> None:
    """Print the federated regression beside the pooled one, and those of each part alone.

    Raises:
        FederationStateError: they are not equal.
    """
    features = [name for name in SCHEMA.names if name != TARGET]
    federated = [site.client.linear_regression(site.name, TARGET, features) for site in sites]
    alone = [site.client.linear_regression(site.name, TARGET, features, local=True) for site in sites]
    pooled = linear_regression(Statistics.of(parts, SCHEMA), TARGET, features)
    table = Table(title=f"Coefficients for {TARGET}, by least squares", box=None)
    table.add_column("rows", no_wrap=True)
    for name, count in [*_SITES.items(), ("federated", federated[0].row_count), ("pooled", pooled.rows)]:
        table.add_column(f"{name}\n{count}", justify="right", no_wrap=True)
    for place, name in enumerate(features):
        numbers = [one.coefficients[name] for one in (*alone, federated[0])]
        table.add_row(
            name, *(f"{number:.3f}" for number in numbers[:-1]), f"{numbers[-1]:.7f}", f"{pooled.coefficients[place]:.7f}"
        )
    intercepts = [f"{one.intercept:.3f}" for one in alone]
    table.add_row("intercept", *intercepts, f"{federated[0].intercept:.7f}", f"{pooled.intercept:.7f}")
    console.print(table)
    difference = max(_difference(one, pooled.coefficients, features) for one in federated)
    console.print(f"Federated and pooled differ by {difference:.1e} at most, at all three peers.")
    if not difference < _TOLERANCE:
        raise FederationStateError(f"regression: expected a difference below {_TOLERANCE:g}, got {difference:.1e}")


def _difference(one: Regression, expected: NDArray[np.float64], features: list[str]) -> float:
    coefficients = np.array([one.coefficients[name] for name in features])
    return float(np.max(np.abs(coefficients - expected) / np.abs(expected)))


def _say_what_was_seen(console: Console, sites: list[Site]) -> None:
    """Say what each peer could see of the others in the round."""
    limit, length, others = SCHEMA.least_rows, RoundIntegers(SCHEMA, len(sites)).length, len(sites) - 1
    console.print("What each peer could see of the others, beside the sum of all:")
    for site in sites:
        seen = f"{others} of the {len(sites)} parts of each mask"
        if site is sites[0]:
            role = "leads the round"
            seen += f"; masked vectors of {length} numbers, any value as likely as any other without the last part"
        else:
            role = "is in the committee as well"
            seen += ", and none of the vectors under them"
        console.print(f"  {site.name} ({role}): {seen}; who took part; row counts up to {limit}.", soft_wrap=True)
    console.print(
        "From the sum and its own rows a peer knows the sum of the two others, so two that collude know the third's. Of more "
        "peers all but one have to collude for that: docs/statistics.md says what is protected, and from whom.",
        soft_wrap=True,
    )
