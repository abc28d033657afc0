"""Projects with `fed_local_type` gpu, on a GPU or else on the CPU: they learn and forget, go on after a restart, take part."""

from collections import Counter

import numpy as np
import pytest
from nats_broker import run
from peer_driver import SCHEMA, federation, pooled, pulse, some_rows, synchronise, until

from pet.federation.peer.local_project import LocalProject
from pet.federation.records import LocalType
from pet.federation.statistics.devices import NUMPY, NumpyDevice, TorchDevice, device_of
from pet.federation.statistics.statistics import Statistics

torch = pytest.importorskip("torch", reason="without torch (.ci/run runs these tests in an environment that has it)")


@pytest.fixture(autouse=True)
def forced_where_there_is_no_gpu(monkeypatch):
    if not torch.cuda.is_available():
        monkeypatch.setenv("PET_FORCE_DEVICE", "cpu")


@pytest.fixture
def blocks(monkeypatch):
    """Count the blocks that every device computes."""
    counts = Counter()
    for kind in (TorchDevice, NumpyDevice):
        computing = kind.computing

        def counted(device, computing=computing):
            counts[type(device)] += 1
            return computing(device)

        monkeypatch.setattr(kind, "computing", counted)
    return counts


def test_a_project_learns_and_forgets_on_its_device_and_goes_on_after_a_restart(blocks, storage):
    kept, gone = some_rows(300, 1), some_rows(9000, 2)
    project = LocalProject(storage, None, lambda _: SCHEMA, device=device_of(LocalType.GPU))
    project.learn(kept)
    before = project.snapshot()
    project.learn(gone)
    again = LocalProject(storage, SCHEMA, device=device_of(LocalType.GPU))
    assert again.forget(gone) == 9000
    assert again.snapshot() == before
    assert blocks == {TorchDevice: 1 + 3 + 3}
    np.testing.assert_allclose(before.values, Statistics.of(kept, SCHEMA, device=NUMPY).values, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("uses_smpc", [True, False])
def test_peers_on_different_devices_merge(broker, tmp_path, blocks, uses_smpc):
    async def work():
        async with federation(broker.url, tmp_path, 2, uses_smpc=uses_smpc) as started:
            node = await started.join(local_type=LocalType.GPU)
            parts = [some_rows(200 + 10 * i, i) for i in range(3)]
            for peer, part in zip((*started.nodes[:2], node), parts, strict=True):
                peer.peer.local_project.learn(part)
            assert blocks == {TorchDevice: 1, NumpyDevice: 2}
            await pulse(started)
            if uses_smpc:  # else each has shown the others what it has as they began to pulse
                await synchronise(started)
            everything = Statistics.of(pooled(*parts), SCHEMA, device=NUMPY)
            await until(lambda: all(peer.peer.federated_project.row_count == everything.rows for peer in started.nodes))
            for peer in started.nodes:
                merged = peer.peer.federated_project.snapshot()
                np.testing.assert_allclose(merged.values, everything.values, rtol=1e-11, atol=1e-8)
            node = await started.restart(node)
            node.peer.local_project.forget(parts[2])
            assert blocks[TorchDevice] == 2
            assert node.peer.local_project.row_count == 0

    run(work())
