"""PET over NATS: a participant's transport, the coordinator's side of it, and what a federation needs of the broker besides.

`connect` gives a connection; `Subjects` names what a federation uses; `Broadcasts` publishes for all and fetches;
docs/nats.md shows how they belong together, and how to set up a broker. Needs the extra `nats`.
"""

from pet.transports.nats.broadcasts import BlobReference, Broadcasts
from pet.transports.nats.connection import NatsConnection, connect
from pet.transports.nats.frames import UploadOffer, Verdict
from pet.transports.nats.receiver import UploadReceiver
from pet.transports.nats.sender import send_upload
from pet.transports.nats.server import NatsServer
from pet.transports.nats.stored_uploads import StoredUploads
from pet.transports.nats.storing import store_upload
from pet.transports.nats.subjects import Subjects, generate_federation_id
from pet.transports.nats.subscription import Subscription
from pet.transports.nats.surroundings import UploadHandler
from pet.transports.nats.transport import AsyncNatsTransport, NatsTransport
from pet.transports.nats_settings import NatsSettings, parse_size

__all__ = [
    "AsyncNatsTransport",
    "BlobReference",
    "Broadcasts",
    "NatsConnection",
    "NatsServer",
    "NatsSettings",
    "NatsTransport",
    "StoredUploads",
    "Subjects",
    "Subscription",
    "UploadHandler",
    "UploadOffer",
    "UploadReceiver",
    "Verdict",
    "connect",
    "generate_federation_id",
    "parse_size",
    "send_upload",
    "store_upload",
]
