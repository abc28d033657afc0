"""A federation server of the released version, gone on with by today's: peers, statistics, contract, and open invitations."""

import dataclasses
import shutil

import numpy as np
import pytest
from federation_rest_server import KEY, OTHER_KEY, Clock, federation_server
from test_rest_over_nats import rows, rows_merged, wait_for
from vector_files import VECTORS, load_vectors

from pet.federation import Client
from pet.federation.formats.users import UserDirectory, read_key_file
from pet.federation.peer.nats_runtime import NatsFederationRuntime
from pet.federation.server.store import FederationStore

EXPECTED = load_vectors("released_state/federation.json")
#: New rows of two peers: the change of one alone would be its own statistics, and is not shared.
NEW_PARTS = {"one": (4, 20), "late": (5, 25)}


@pytest.fixture
def clock():
    return Clock(EXPECTED["now_seconds"] + 3600)


@pytest.fixture
def state(tmp_path, broker, clock):
    """The stored state; its broker, whose port nobody could reserve, has moved."""
    folder = tmp_path / "state"
    shutil.copytree(VECTORS / "released_state" / "federation", folder)
    for path in [folder, *folder.iterdir()]:
        path.chmod(0o700 if path.is_dir() else 0o600)
    store = FederationStore(folder, clock)
    for record, storage in store.peers():
        storage.save_record(dataclasses.replace(record, nats=dataclasses.replace(record.nats, hosts=(broker.url,))))
    store.close()
    return folder


def same_figures(found, expected):
    """Return whether figures are those that the released version gave, up to the order of additions; NaN is null there."""
    return found == {
        name: pytest.approx(np.nan if value is None else value, rel=1e-12, nan_ok=True) for name, value in expected.items()
    }


def test_the_federation_goes_on_with_its_statistics_and_takes_who_was_invited(state, broker, clock):
    with (
        federation_server(state, runtime=NatsFederationRuntime(), clock=clock) as url,
        Client(url, "c1", KEY, clock=clock) as admin,
        Client(url, "c2", OTHER_KEY, clock=clock) as peer,
    ):
        clients = {"admin": admin, "one": peer, "two": peer}
        assert (admin.projects(), sorted(peer.projects())) == (["admin"], ["one", "two"])
        for project, client in clients.items():
            info = client.info(project)
            assert sorted(info["peersInfo"]) == EXPECTED["peers"]
            assert (info["contract"], info["is_pulsing"]) == (EXPECTED["contract"], True)
            assert same_figures(client.univariate(project, "x"), EXPECTED["univariate"])
            assert client.correlation(project, "x", "y") == pytest.approx(EXPECTED["correlation"], rel=1e-12)

            found = client.members(project)
            assert [member.is_confirmed for member in found.members if not member.is_this] == [False, False], "nobody was asked"
            assert found.code == admin.members("admin").code

        peer.join("late", EXPECTED["invitation"], EXPECTED["password"], nats_hosts=broker.url)
        clients["late"] = peer
        peer.start_pulse("late")
        for project, client in clients.items():
            client.confirm_list(project, admin.members("admin").code)
        for project, part in NEW_PARTS.items():
            peer.learn(project, rows(*part))
        admin.sync_now("admin")
        parts = [rows(*part) for part in [*EXPECTED["parts"].values(), *NEW_PARTS.values()]]
        x, y = (np.concatenate([part[name] for part in parts]) for name in ("x", "y"))
        wait_for(lambda: all(rows_merged(client, project) == len(x) for project, client in clients.items()), 60)
        for project, client in clients.items():
            assert client.univariate(project, "x")["mean"] == pytest.approx(x.mean(), rel=1e-9)
            assert client.correlation(project, "x", "y") == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-9)


def test_the_files_of_users_are_read(tmp_path):
    for name in ("users.json", "alice.key"):
        (tmp_path / name).write_bytes((VECTORS / "released_state" / name).read_bytes())
        (tmp_path / name).chmod(0o600)
    name, key = read_key_file(tmp_path / "alice.key")
    directory = UserDirectory(tmp_path / "users.json", {})
    assert (name, directory.names()) == ("alice", ["alice"])
    assert key == directory.secret_key("alice")
