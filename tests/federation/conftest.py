"""One broker for all tests of a file that asks for it."""

import pytest
from nats_broker import running_broker


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with running_broker(tmp_path_factory.mktemp("broker")) as started:
        yield started
