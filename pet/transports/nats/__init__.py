"""PET over NATS: a participant's transport, the coordinator's side of it, and what a federation needs of the broker besides.

`connect` gives a connection; `Subjects` names what a federation uses; `Broadcasts` publishes for all and fetches;
docs/nats.md shows how they belong together, and how to set up a broker. Needs the extra `nats`.
"""

from pet.transports.nats.broadcasts import BlobReference, Broadcasts
from pet.transports.nats.connection import MissingError, NatsConnection, Subscription, connect
from pet.transports.nats.settings import NatsSettings, parse_size
from pet.transports.nats.subjects import Subjects, generate_federation_id

__all__ = [
    "BlobReference",
    "Broadcasts",
    "MissingError",
    "NatsConnection",
    "NatsSettings",
    "Subjects",
    "Subscription",
    "connect",
    "generate_federation_id",
    "parse_size",
]
