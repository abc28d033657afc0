"""`pet model get`: the global model of a running coordinator, as a file."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from numpy.typing import NDArray

from pet.commands._coordinator_url import AllowInsecureOption, CoordinatorKeyOption, open_coordinator
from pet.commands.terminal_progress import shown_progress
from pet.errors import OtherRoundError, TransportError, TransportRefusedError, UnknownProfileError
from pet.messages import RoundParameters
from pet.model_formats import encode_npy, encode_safetensors
from pet.participant.model_answer import decode_global_model, max_model_bytes
from pet.pet1.round_record import RECORD_BYTES, RoundRecord
from pet.transports.base import Transport
from pet.transports.pet1 import Pet1Document, Pet1Transport
from pet.urls import shown_url

_ENCODERS: Final = {".npy": encode_npy, ".safetensors": encode_safetensors}

#: Rounds that may begin, one after the other, while a model is fetched.
_MAX_ATTEMPTS: Final = 3


def command(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to: FILE.npy or FILE.safetensors (tensor 'model').")
    ],
    url: Annotated[
        str, typer.Option("--url", "-u", help="Where the coordinator is: http(s)://..., or nats://host:port[/federation].")
    ] = "http://127.0.0.1:8081",
    certificate: Annotated[
        Path | None, typer.Option("--certificate", "-c", metavar="FILE", help="The only authority to trust over https (PEM).")
    ] = None,
    identity: Annotated[
        Path | None, typer.Option("--identity", "-i", metavar="FILE", help="Certificate and key to appear with (PEM).")
    ] = None,
    coordinator_key: CoordinatorKeyOption = None,
    allow_insecure: AllowInsecureOption = False,
) -> None:
    """Download the global model of a coordinator, of pet or of xaynet.

    Example: pet model get -u http://127.0.0.1:8081 -o model.npy
    """
    encode = _ENCODERS.get(output.suffix.lower())
    if encode is None:
        expected = " or ".join(_ENCODERS)
        raise typer.BadParameter(f"expected a name that ends in {expected}, got {output.name!r}", param_hint="--output")
    with (
        shown_progress("downloading the model", unit="B") as progress,
        contextlib.closing(
            open_coordinator(
                url,
                certificate,
                identity,
                coordinator_key,
                allow_insecure=allow_insecure,
                on_received=progress.update,
            )
        ) as transport,
    ):
        model = _fetch(transport, shown_url(url))
    output.write_bytes(encode(model))
    typer.echo(f"{output}: {len(model)} weights of {model.dtype}")


def _fetch(transport: Transport, url: str) -> NDArray[np.generic]:
    """Return the model in the data type of the round.

    Raises:
        TransportError: the coordinator cannot be reached, or has no model yet.
        RemoteProtocolError: its answers are malformed.
    """
    parameters, answer = _fetch_in_round(transport)
    if answer is None:
        raise TransportError(f"{url}: expected a global model, got none: no round has finished yet")
    return decode_global_model(answer, parameters, _dtype_of_pet1(transport))


def _dtype_of_pet1(transport: Transport) -> np.dtype[Any] | None:
    """Return the data type of rounds of pet/1, whose parameters are made for clients that idle; None under xaynet's profile."""
    if not isinstance(transport, Pet1Transport):
        return None
    with contextlib.suppress(UnknownProfileError, TransportRefusedError):
        record = transport.get_document(Pet1Document.ROUND, RECORD_BYTES)
        return None if record is None else RoundRecord.from_bytes(record).config.dtype
    return None


def _fetch_in_round(transport: Transport) -> tuple[RoundParameters, tuple[str, bytes] | None]:
    """Fetch parameters and model; a signed model may say that the next round began in between."""
    for _ in range(_MAX_ATTEMPTS - 1):
        with contextlib.suppress(OtherRoundError):
            return _fetch_both(transport)
    return _fetch_both(transport)


def _fetch_both(transport: Transport) -> tuple[RoundParameters, tuple[str, bytes] | None]:
    parameters = RoundParameters.from_bytes(transport.get_parameters())
    return parameters, transport.get_model(max_model_bytes(parameters))
