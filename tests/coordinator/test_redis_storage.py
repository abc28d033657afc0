"""What Redis adds to the promises of a storage: owners, outages, lost data, and keys of others."""

import gc
import re

import pytest
import redis
from asgi_server import wait_until
from redis_server import redis_server
from sealed_rounds import SealedRound
from test_restarts import Life, steps

from pet.coordinator.settings import Settings
from pet.coordinator.storage.base import Transaction
from pet.coordinator.storage.redis import OWNER_KEY, STATE_KEY, RedisStorage, check_server
from pet.coordinator.surroundings import find_outer_faults
from pet.errors import StateError, StorageError


@pytest.fixture
def server(tmp_path):
    with redis_server(tmp_path) as server:
        yield server


def commit(storage, sequence=1, **parts):
    storage.commit(Transaction(sequence=sequence, state=f"{sequence}".encode(), **parts))


def test_one_coordinator_at_a_time(server):
    storage = RedisStorage(server.url)
    for is_fresh in (False, True):
        with pytest.raises(StorageError, match="another coordinator uses it"):
            RedisStorage(server.url, is_fresh=is_fresh)
    commit(storage)
    storage.close()
    RedisStorage(server.url).close()


def test_an_owner_that_is_gone_is_none(server):
    storage = RedisStorage(server.url)
    commit(storage)
    storage._client.connection_pool.disconnect()  # as the end of its process does
    following = RedisStorage(server.url)
    assert following.load().sequence == 1
    with pytest.raises(StateError, match="expected to be owned by this coordinator, got another coordinator"):
        commit(storage, 2)
    assert following.load().sequence == 1
    storage.close()  # gives back nothing that is not its own
    commit(following, 2)
    following.close()


def test_a_change_is_one_round_trip(server, monkeypatch):
    storage = RedisStorage(server.url)
    connection, sent = storage._changes._connection, []
    send = connection.send_packed_command
    monkeypatch.setattr(connection, "send_packed_command", lambda packed: (sent.append(packed), send(packed)))
    for sequence in (1, 2, 3):
        commit(storage, sequence, entries=[b"x"], blobs={f"{sequence}": [b"y", bytes(2 << 20)]}, dropped_blobs=["0"])
    assert len(sent) == 1 + 3  # what the first one rests on was read before it
    assert (storage.load().sequence, storage.load().entries) == (3, [b"x"] * 3)
    assert storage.read_blob("2") == b"y" + bytes(2 << 20)
    storage.close()


def test_a_change_is_not_made_where_somebody_else_was_quicker(server):
    storage = RedisStorage(server.url)
    commit(storage)
    storage._client.hset(STATE_KEY, "sequence", 7)
    with pytest.raises(StateError, match="expected change 1 to be the last, got 7"):
        commit(storage, 2, entries=[b"x"])
    storage._client.hset(STATE_KEY, "sequence", 1)
    commit(storage, 2, entries=[b"y"])
    assert storage.load().entries == [b"y"]
    storage.close()


def test_a_connection_that_the_server_closed_is_made_anew(server):
    storage = RedisStorage(server.url)
    commit(storage)
    storage._client.client_kill_filter(_type="normal", skipme=True)
    commit(storage, 2)
    assert storage.load().sequence == 2
    storage.close()


def test_a_connection_that_is_lost_beneath_a_change_makes_none(server):
    """One that the library makes in its place watches nothing."""
    storage = RedisStorage(server.url)
    commit(storage)
    storage._changes._is_lost = lambda: storage._changes._connection.disconnect()  # just after it was looked at
    with pytest.raises(StorageError, match="the connection was lost"):
        commit(storage, 2)
    assert storage.load().sequence == 1
    del storage._changes._is_lost
    commit(storage, 2)
    storage.close()


def test_where_clients_may_not_be_listed_the_last_one_owns(server):
    admin = redis.Redis.from_url(server.url)
    admin.acl_setuser("pet", enabled=True, passwords=["+secret"], keys=["pet:*"], commands=["+@all", "-client|list"])
    url = server.url.replace("redis://", "redis://pet:secret@")
    first, second = RedisStorage(url), RedisStorage(url)
    assert "secret" not in second.description
    commit(second)
    with pytest.raises(StateError, match="another coordinator"):
        commit(first)
    for storage in (first, second, admin):
        storage.close()


def test_keys_of_others_are_left_alone(server):
    others = redis.Redis.from_url(server.url)
    others.set("coordinator_state", b"of xaynet")
    storage = RedisStorage(server.url)
    commit(storage, blobs={"a": [b"x"]})
    storage.close()
    storage = RedisStorage(server.url, is_fresh=True)
    assert storage.load() is None
    storage.close()
    assert others.keys() == [b"coordinator_state"]
    others.close()


@pytest.mark.parametrize("change", [{"version": "2"}, {"version": ""}])
def test_other_versions_are_left_alone(server, change):
    storage = RedisStorage(server.url)
    commit(storage)
    storage._client.hset(STATE_KEY, mapping=change)
    with pytest.raises(StateError, match="of version 1"):
        storage.load()
    storage.close()


def test_other_things_under_our_names_are_noticed(server):
    storage = RedisStorage(server.url)
    storage._client.set(STATE_KEY, "a string")
    with pytest.raises(StateError, match="got others under their names"):
        storage.load()
    storage.close()


def test_no_server_is_told(server):
    storage = RedisStorage(server.url)
    server.kill()
    with pytest.raises(StorageError, match=r"Redis at 127\.0\.0\.1"):
        commit(storage)
    storage.close()
    with pytest.raises(StorageError, match=r"Redis at 127\.0\.0\.1"):
        RedisStorage(server.url)
    with pytest.raises(StorageError, match=r"redis\.url: expected redis://.*, got localhost:6379"):
        RedisStorage("localhost:6379")


def test_a_server_that_is_full_is_told(tmp_path):
    with redis_server(tmp_path, options=["--maxmemory-policy", "noeviction"]) as server:
        storage = RedisStorage(server.url)
        commit(storage, blobs={"a": [bytes(4 << 20)]})
        storage._client.config_set("maxmemory", "3mb")
        with pytest.raises(StorageError, match="maxmemory"):
            commit(storage, 2, entries=[b"x"], dropped_blobs=["a"])
        assert (storage.load().sequence, storage.load().entries, storage.load().blob_names) == (1, [], {"a"})
        storage._client.config_set("maxmemory", "100mb")
        commit(storage, 2, dropped_blobs=["a"])
        assert storage.load().sequence == 2
        storage.close()


def test_an_outage_in_a_round_loses_nothing_acknowledged(server, caplog):
    storage = RedisStorage(server.url)
    life = Life(storage)
    outages = 0
    run, send, wait = steps(life), life.send, life.wait

    def through_an_outage(call):
        def attempt(*arguments):
            nonlocal outages
            outages += 1
            if outages % 3 == 0:
                server.kill()
                with pytest.raises(StorageError):
                    call(*arguments)
                server.start()
                if call is send:
                    send(*arguments)  # the participant tries again, and is known already
                else:
                    life.engine.tick()
            else:
                call(*arguments)

        return attempt

    life.send, life.wait = through_an_outage(send), through_an_outage(wait)
    for _ in run:
        pass
    assert outages > 15
    assert life.engine.model().model.model_count == 5
    assert life.engine.status()["rounds_completed"] == 1
    life.start()
    assert life.engine.status()["round"] == 2
    storage.close()


def test_a_server_that_forgot_everything_is_not_written_to(tmp_path):
    with redis_server(tmp_path, is_durable=False) as server:
        storage = RedisStorage(server.url)
        life = Life(storage)
        server.kill()
        server.start()
        round_ = SealedRound(life.engine.parameters())
        with pytest.raises(StorageError):
            life.send(round_.sum(*round_.keys("sum", 1)))
        with pytest.raises(StateError, match="it has lost its data"):
            life.engine.tick()
        assert storage._client.keys() == []
        storage.close()


def test_closing_gives_the_storage_back(server):
    storage = RedisStorage(server.url)
    with redis.Redis.from_url(server.url) as client:
        assert client.get(OWNER_KEY) is not None
        storage.close()
        assert client.get(OWNER_KEY) is None


def test_no_connection_is_left_open(server):
    """A process that tries again and again would hold one more each time, until the collector comes."""
    gc.disable()
    try:
        with redis.Redis.from_url(server.url) as client:
            owner = RedisStorage(server.url)
            check_server(server.url, 30)
            with pytest.raises(StorageError, match="another coordinator"):
                RedisStorage(server.url)
            owner.close()
            wait_until(lambda: not [each for each in client.client_list() if each["name"].startswith("pet-")])
    finally:
        gc.enable()


def content_of(client):
    """Every byte that lies in the database."""
    parts = []
    for key in client.scan_iter():
        kind = client.type(key)
        parts += {
            b"string": lambda key: [client.get(key)],
            b"list": lambda key: client.lrange(key, 0, -1),
            b"set": lambda key: list(client.smembers(key)),
            b"hash": lambda key: list(client.hgetall(key).values()),
        }[kind](key)
    return b"\n".join(parts)


def test_keys_and_seeds_of_a_finished_round_are_nowhere(server):
    storage, client = RedisStorage(server.url), redis.Redis.from_url(server.url)
    life = Life(storage)
    secrets = []
    for _ in steps(life):
        if life.engine.status()["round"] == 1:
            current = life.state.round
            seeds = [seed for seeds in current.seed_dictionary.values() for seed in seeds.values()]
            secrets = [current.keys.secret_key.hex().encode(), *seeds]
            assert all(secret in content_of(client) for secret in secrets)
    assert (len(secrets), life.engine.status()["round"]) == (26, 2)
    assert not [secret for secret in secrets if secret in content_of(client)]
    client.close()
    storage.close()


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://127.0.0.1/", "127.0.0.1:6379/0"),
        ("redis://me:hidden@host:7000/3", "host:7000/3"),
        ("redis://", "localhost:6379/0"),
        ("unix:///run/redis.sock?db=2", "/run/redis.sock, database 2"),
    ],
)
def test_where_a_server_is_has_the_port_that_a_url_leaves_out(url, place):
    from pet.coordinator.storage import redis

    assert redis._describe(redis._pool(url, "test")) == f"Redis at {place}"


WEAK = {
    "neither": ((), "got appendonly no and appendfsync everysec", "with the server's process; set appendonly yes and"),
    "not always": (("--appendonly", "yes"), "got appendonly yes and appendfsync everysec", "machine; set appendfsync always"),
    "not appended": (("--appendfsync", "always"), "got appendonly no and appendfsync always", "set appendonly yes in"),
    "not asked": (("--rename-command", "CONFIG", ""), "does not let us ask", "allow [+]config|get"),
}


@pytest.mark.parametrize(("options", "got", "remedy"), WEAK.values(), ids=WEAK)
def test_a_server_that_can_lose_messages_is_warned_about_or_refused(tmp_path, caplog, options, got, remedy):
    with redis_server(tmp_path, is_durable=False, options=options) as weak:
        RedisStorage(weak.url).close()
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert re.search(f"expected appendonly yes and appendfsync always, {got}.*{remedy}", record.getMessage())
        for refused in (
            lambda: RedisStorage(weak.url, must_be_durable=True),
            lambda: check_server(weak.url, 30, must_be_durable=True),
        ):
            with pytest.raises(StorageError, match=got):
                refused()
        check_server(weak.url, 30)


def test_who_may_not_ask_is_told_and_refused(server, caplog):
    with redis.Redis.from_url(server.url) as admin:
        admin.acl_setuser("pet", enabled=True, passwords=["+secret"], keys=["pet:*"], commands=["+@all", "-config"])
    url = server.url.replace("redis://", "redis://pet:secret@")
    RedisStorage(url).close()
    assert "does not let us ask" in caplog.text
    with pytest.raises(StorageError, match="does not let us ask"):
        RedisStorage(url, must_be_durable=True)


def test_a_durable_server_is_taken_without_a_word(server, caplog):
    RedisStorage(server.url, must_be_durable=True).close()
    check_server(server.url, 30, must_be_durable=True)
    assert not caplog.records


def test_the_setting_refuses_before_anything_is_opened(tmp_path):
    with redis_server(tmp_path, is_durable=False) as weak:
        for is_required in (False, True):
            settings = Settings(redis={"url": weak.url, "require_durable": is_required})
            faults = find_outer_faults(settings)
            assert set(faults) == ({"redis.url"} if is_required else set())
        assert "; set appendonly yes and appendfsync always in redis.conf" in faults["redis.url"].sentence
