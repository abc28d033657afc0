"""One broker for all tests of a file that asks for it, and where all tests compute the sums of rows."""

import pytest
from nats_broker import running_broker

from pet.federation.server.request_maps import MapContext, created_record
from pet.federation.server.store import FederationStore
from pet.federation.statistics.devices import TorchDevice
from pet.federation.statistics.statistics import Statistics


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with running_broker(tmp_path_factory.mktemp("broker")) as started:
        yield started


@pytest.fixture(scope="session", autouse=True)
def local_type(request):
    """With `--local-type gpu` the statistics of every test use that device, unless they name one; it has to be there."""
    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption("--local-type") == "gpu":
            device = TorchDevice()
            device.open()
            patch.setattr(Statistics, "device", device)
        yield


@pytest.fixture
def storage():
    """One peer's part of a store in memory."""
    store = FederationStore(None)
    entries = {"fed_name": "f", "sync_sched": "m1", "nats_hosts": "nats://127.0.0.1:1"}
    yield store.add(created_record(entries, MapContext(customer_id="c", project_id="p")), persist=True)
    store.close()
