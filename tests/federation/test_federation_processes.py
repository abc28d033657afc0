"""Federations whose peers are servers in processes of their own, three and five, or ten; one is killed and returns."""

import contextlib
import signal
import time

import numpy as np
import pytest
from peer_driver import SCHEMA, pooled, some_rows
from programs import require_program

from pet.commands.federation_demo_run import running_broker, running_sites
from pet.errors import FederationRefusedError
from pet.federation.statistics.analysis import correlation, linear_regression
from pet.federation.statistics.statistics import Statistics


def require_pooled(sites, parts, seconds=60.0):
    """Wait until every site has an aggregate of this many rows, and require that its results are the pooled ones.

    The number of aggregates that a site took says less: one that returns asks for a round itself, which may or may not be
    the one that is asked for next.
    """
    expected = Statistics.of(pooled(*parts), SCHEMA)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(aggregated_rows(site) != expected.rows for site in sites):
        time.sleep(0.1)
    fit = linear_regression(expected, "weight", ["age", "ill"])
    for site in sites:
        found = site.client.linear_regression(site.name, "weight", ["age", "ill"])
        assert found.row_count == expected.rows
        np.testing.assert_allclose([found.coefficients["age"], found.coefficients["ill"]], fit.coefficients, rtol=1e-9)
        assert found.intercept == pytest.approx(fit.intercept, rel=1e-9)
    together = correlation(expected, ["age", "weight"])[0, 1]
    assert sites[-1].client.correlation(sites[-1].name, "age", "weight") == pytest.approx(together, rel=1e-9)


def aggregated_rows(site):
    try:
        return site.client.linear_regression(site.name, "weight", ["age", "ill"]).row_count
    except FederationRefusedError:
        return 0  # nothing was merged yet


def wait_until_connected(site, seconds=60.0):
    deadline = time.monotonic() + seconds
    while site.client.info(site.name)["nats_state"] != "connected":
        assert time.monotonic() < deadline, site.client.info(site.name)["nats_state"]
        time.sleep(0.1)


@pytest.mark.parametrize(
    "counts", [pytest.param((3, 5), marks=pytest.mark.long), pytest.param((3, 5, 10), marks=pytest.mark.very_long)]
)
def test_servers_federate_and_one_is_killed_and_returns(tmp_path, counts):
    """One federation that grows, so that servers are started once; each peer asks for one round, as it may once a minute."""
    require_program("nats-server")
    names = [f"peer{number}" for number in range(counts[-1])]
    parts = [some_rows(count, count) for count in (30, 200, 12, 40, 8, 100, 9, 25, 60, 15)[: counts[-1]]]
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(running_broker(tmp_path / "broker"))
        sites = stack.enter_context(running_sites(names, tmp_path))
        admin = sites[0]
        admin.client.create("peer0", "ten", nats_hosts=broker.url, nats_sec_token=broker.token, fed_schema=SCHEMA.to_json())
        for site, part in zip(sites, parts, strict=True):
            if site is not admin:
                site.client.join(site.name, *admin.client.invite("peer0"))
            site.client.learn(site.name, part)
        for site in sites:
            site.client.confirm_list(site.name, admin.client.members("peer0").code)
        for count, asking in zip(counts, sites, strict=False):
            for site in sites[:count]:
                site.client.start_pulse(site.name)
            asking.client.sync_now(asking.name)
            require_pooled(sites[:count], parts[:count])
            # Of five members and more three change together: two that come, and one that has learned.
            extra = some_rows(20, 300 + count)
            admin.client.learn("peer0", extra)
            parts[0] = pooled(parts[0], extra)

        killed = sites[4]
        killed.process.send_signal(signal.SIGKILL)
        killed.process.wait()
        more = [some_rows(20, seed) for seed in (77, 78, 79)]
        sites[1].client.learn("peer1", more[0])
        sites[3].client.sync_now("peer3")
        require_pooled(sites[:4], [*parts[:4], *parts[5:], more[0]])

        (back,) = stack.enter_context(running_sites([killed.name], tmp_path))
        wait_until_connected(back)
        for site, rows in zip(sites[1:3], more[1:], strict=True):
            site.client.learn(site.name, rows)
        asking = sites[2 if len(counts) < 3 else 5]
        asking.client.sync_now(asking.name)
        require_pooled([admin, back], [*parts, *more])
