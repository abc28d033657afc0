"""A coordinator of pet/1 over NATS: what `NatsServer` does besides where the endpoint behind it speaks that profile."""

from __future__ import annotations

from typing import Final

from pet.errors import TransportConfigError
from pet.pet1.answers import PIECE_HEAD
from pet.pet1.leaves import LEAF_BYTES
from pet.transports.nats.connection import NatsConnection
from pet.transports.nats.kept_session import SPARE_BYTES
from pet.transports.nats.pet1_publishing import Pet1Publisher
from pet.transports.nats.pet1_receiver import Pet1Receiver
from pet.transports.nats.pet1_stored import StoredUpdates
from pet.transports.nats.subjects import Subjects
from pet.transports.pet1 import Pet1Endpoint
from pet.transports.rates import Rates
from pet.transports.service import Service


class Pet1Server:
    """What it publishes, and the updates that come: as requests, or out of the broker's storage, where it is asked to.

    Args:
        service: the coordinator behind it.
        endpoint: its endpoint.
        connection: to the broker.
        subjects: names of the federation.
        rates: what each sender may ask for in a second.
        publishes_model: whether participants find models at the broker.
    """

    def __init__(
        self,
        service: Service,
        endpoint: Pet1Endpoint,
        connection: NatsConnection,
        subjects: Subjects,
        rates: Rates,
        *,
        publishes_model: bool,
    ) -> None:
        self._connection: Final = connection
        publisher = Pet1Publisher(endpoint, connection, subjects, publishes_model=publishes_model)
        receiver = Pet1Receiver(service, endpoint, connection, subjects, rates=rates)
        self.publish: Final = publisher.publish
        self.is_published: Final = publisher.is_published
        self.forget: Final = publisher.forget
        self.stop: Final = receiver.stop
        self.stored: Final = StoredUpdates(service, endpoint)
        self._receiver: Final = receiver

    async def start(self) -> None:
        """Take updates from now on.

        Raises:
            TransportConfigError: the broker's largest message is smaller than a leaf.
            ForbiddenSubjectError, UnreachableError: the broker does not let us.
        """
        require_room(self._connection)
        await self._receiver.start()


def require_room(connection: NatsConnection) -> None:
    """Check that leaves can come by way of a broker.

    Raises:
        TransportConfigError: its largest message is smaller.
    """
    needed, most = PIECE_HEAD.size + LEAF_BYTES + SPARE_BYTES, connection.max_payload_bytes
    if most < needed:
        raise TransportConfigError(f"broker: expected a max_payload of {needed} bytes or more for pet/1, got {most}")
