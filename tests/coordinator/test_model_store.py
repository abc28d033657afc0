"""Model stores: what is kept is the model to the last bit, whole or not at all, and the last ones only."""

import itertools
import json
import os
import zlib

import httpx
import numpy as np
import pytest

from pet.aggregation import Aggregation
from pet.coordinator.model_file import decode_model, encode_model
from pet.coordinator.model_store import FolderModelStore, MemoryModelStore
from pet.coordinator.round_model import RoundModel
from pet.coordinator.s3_model_store import S3ModelStore
from pet.errors import StateError, StorageError
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.masking import mask_model

CONFIGS = ["prime-f32-b0-m3", "power2-f64-b2-m6", "integer-i32-b4-m3", "prime-f64-bmax-m3"]


def round_model(config="prime-f32-b0-m3", length=50_000, round_id=3):
    """A model over more than one piece, of two participants."""
    pair = MaskConfigPair.of(MaskConfig.parse(config))
    dtype = pair.vect.data_type.dtype
    weights = np.linspace(-1, 1, length).astype(dtype)
    total, seeds = Aggregation(pair, length), []
    for scalar in (1, 0.5):
        seed, masked_model = mask_model(weights, pair, scalar)
        total.add(masked_model)
        seeds.append(seed)
    mask = seeds[0].derive_mask(pair, length)
    masks = Aggregation(pair, length)
    for seed in seeds:
        masks.add(type(masked_model)(pair, seed.derive_mask(pair, length).vect, seed.derive_mask(pair, length).unit))
    summed = masks.to_masked_model()
    return RoundModel(round_id, bytes([round_id]) * 32, total.unmask(type(mask)(pair, summed.vect, summed.unit)))


def bincode(model):
    return b"".join(model.bincode_chunks())


@pytest.mark.parametrize("config", CONFIGS)
def test_a_model_is_what_it_was(config):
    model = round_model(config, 300 if "bmax" in config else 40_000)
    again = decode_model(b"".join(map(bytes, encode_model(model))))
    assert (again.round_id, again.round_seed, again.etag) == (model.round_id, model.round_seed, model.etag)
    assert (again.length, again.dtype) == (model.length, model.dtype)
    assert (again.model.model_count, again.model.scalar_sum) == (2, model.model.scalar_sum)
    np.testing.assert_array_equal(again.to_array(), model.to_array())
    assert bincode(again) == bincode(model)


def test_its_file_is_as_large_as_an_update():
    model = round_model(length=50_000)
    assert sum(len(memoryview(piece).cast("B")) for piece in encode_model(model)) < 50_000 * 6 + 400


def test_damage_is_noticed():
    data = bytearray(b"".join(map(bytes, encode_model(round_model(length=20)))))
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1
        with pytest.raises(StateError, match="stored model"):
            decode_model(damaged)
    for cut in range(len(data)):
        with pytest.raises(StateError, match="stored model"):
            decode_model(data[:cut])


@pytest.mark.parametrize("field", ["length", "vect", "scalar_sum", "seed", "round"])
def test_contradictions_are_noticed(field, monkeypatch):
    pieces = list(map(bytes, encode_model(round_model(length=20))))
    header = json.loads(pieces[0][16:])
    header[field] = {"length": 19, "vect": "prime-f64-b0-m3", "scalar_sum": "1/0", "seed": "xx", "round": "first"}[field]
    text = json.dumps(header).encode()
    data = pieces[0][:12] + len(text).to_bytes(4, "little") + text + pieces[1]
    with pytest.raises(StateError, match="stored model"):
        decode_model(data + zlib.crc32(data).to_bytes(4, "little"))


@pytest.fixture(scope="module")
def s3_endpoint():
    """A real server of the S3 protocol. Every process of a session collects this file, and it takes two seconds to import."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


BUCKETS = itertools.count(1)


@pytest.fixture
def bucket(s3_endpoint):
    name = f"models-{next(BUCKETS)}"
    assert httpx.put(f"{s3_endpoint}/{name}").status_code == 200
    return name


def open_s3(endpoint, bucket, history=2, **arguments):
    keys = {"access_key": "key", "secret_access_key": "a secret", **arguments}
    return S3ModelStore(bucket, ("us-east-1", endpoint), history=history, **keys)


@pytest.fixture(params=["memory", "folder", pytest.param("s3", marks=pytest.mark.long)])
def model_store(request, tmp_path):
    if request.param == "memory":
        return MemoryModelStore()
    if request.param == "folder":
        return FolderModelStore(tmp_path / "models", history=2)
    return open_s3(request.getfixturevalue("s3_endpoint"), request.getfixturevalue("bucket"))


def test_the_last_model_is_loaded_by_its_record(model_store):
    first, second = round_model(length=9), round_model(length=9, round_id=4)
    first_record = model_store.save(first)
    assert bincode(model_store.load(first_record)) == bincode(first)
    record = model_store.save(second)
    assert model_store.save(second) == record
    assert bincode(model_store.load(record)) == bincode(second)
    assert model_store.description


def test_another_model_is_no_substitute(model_store):
    record = model_store.save(round_model(length=9))
    with pytest.raises(StateError, match="expected"):
        model_store.load({**record, "name": "9_00.pet"})


def test_a_model_of_another_size_or_name_is_refused(tmp_path):
    store = FolderModelStore(tmp_path, history=9)
    record, other = store.save(round_model(length=9)), store.save(round_model(length=10, round_id=4))
    other_path = tmp_path / other["name"]
    (tmp_path / record["name"]).write_bytes(other_path.read_bytes())
    with pytest.raises(StateError, match="expected a model of"):
        store.load(record)
    with pytest.raises(StateError, match=f"expected model {record['name']}"):
        store.load({**record, "bytes": other["bytes"]})
    other_path.write_bytes(bytes(other["bytes"]))
    with pytest.raises(StateError, match=str(other_path)):
        store.load(other)


def test_the_history_is_bounded_and_unfinished_files_go(tmp_path):
    store = FolderModelStore(tmp_path, history=2)
    (tmp_path / "1_ff.pet.unfinished").write_bytes(b"half a model")
    (tmp_path / "notes.txt").write_text("not a model")
    names = []
    for round_id in range(1, 5):
        names.append(store.save(round_model(length=5, round_id=round_id))["name"])
        os.utime(tmp_path / names[-1], (round_id, round_id))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names[2:], "notes.txt"])
    assert oct((tmp_path / names[-1]).stat().st_mode & 0o777) == "0o600"


class Killed(BaseException):
    """Ends everything at once."""


def test_a_crash_while_writing_leaves_no_model_under_its_name(tmp_path, monkeypatch):
    store = FolderModelStore(tmp_path, history=2)
    model = round_model(length=5)

    def die(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        # A killed process removes nothing.
        patch.setattr("pathlib.Path.replace", die)
        patch.setattr("pathlib.Path.unlink", die)
        with pytest.raises(Killed):
            store.save(model)
    assert [path.suffix for path in tmp_path.iterdir()] == [".unfinished"]
    assert bincode(store.load(store.save(model))) == bincode(model)


def test_what_the_system_refuses_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="expected a folder to keep models in"):
        FolderModelStore(tmp_path / "file", history=1)
    store = FolderModelStore(tmp_path / "models", history=1)

    def no_space(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pet.coordinator.model_store.replace_file", no_space)
        with pytest.raises(StorageError, match="No space left on device"):
            store.save(round_model(length=5))


# ---- S3 ---------------------------------------------------------------------------------------------------------------


def names_in(endpoint, bucket):
    text = httpx.get(f"{endpoint}/{bucket}").text
    return sorted(part.split("</Key>")[0] for part in text.split("<Key>")[1:])


@pytest.mark.long
def test_a_bucket_keeps_the_last_models_and_nothing_else_is_touched(s3_endpoint, bucket):
    store = open_s3(s3_endpoint, bucket)
    httpx.put(f"{s3_endpoint}/{bucket}/notes.txt", content=b"not a model")
    names = [store.save(round_model(length=5, round_id=round_id))["name"] for round_id in range(1, 4)]
    assert names_in(s3_endpoint, bucket) == sorted([*names[1:], "notes.txt"])


@pytest.mark.long
def test_models_of_several_parts_arrive_whole(s3_endpoint, bucket):
    store = open_s3(s3_endpoint, bucket)
    model = round_model(length=2_000_000)
    record = store.save(model)
    assert record["bytes"] > 10_000_000
    np.testing.assert_array_equal(open_s3(s3_endpoint, bucket).load(record).to_array(), model.to_array())


@pytest.mark.long
def test_what_is_wrong_with_s3_is_told_without_secrets(s3_endpoint, bucket):
    with pytest.raises(StorageError, match="expected a bucket that exists"):
        open_s3(s3_endpoint, "no-such-bucket")
    store = open_s3(s3_endpoint, bucket)
    record = store.save(round_model(length=5))
    httpx.delete(f"{s3_endpoint}/{bucket}/{record['name']}")
    with pytest.raises(StateError, match="expected the last global model, got no object"):
        store.load(record)
    with pytest.raises(StorageError) as caught:
        open_s3("http://127.0.0.1:9", bucket)
    assert "a secret" not in str(caught.value)
    assert str(caught.value).startswith(f"bucket {bucket} at http://127.0.0.1:9: ")
