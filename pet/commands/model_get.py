"""`pet model get`: the global model of a running coordinator, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from numpy.typing import NDArray

from pet.commands._coordinator_url import open_coordinator
from pet.errors import TransportError
from pet.messages import RoundParameters
from pet.model_formats import encode_npy, encode_safetensors
from pet.participant.model_answer import decode_global_model, max_model_bytes
from pet.transports.base import Transport
from pet.urls import shown_url

_ENCODERS: Final = {".npy": encode_npy, ".safetensors": encode_safetensors}


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
) -> None:
    """Download the global model of a coordinator, of pet or of xaynet.

    Example: pet model get -u http://127.0.0.1:8081 -o model.npy
    """
    encode = _ENCODERS.get(output.suffix.lower())
    if encode is None:
        expected = " or ".join(_ENCODERS)
        raise typer.BadParameter(f"expected a name that ends in {expected}, got {output.name!r}", param_hint="--output")
    transport = open_coordinator(url, certificate, identity)
    try:
        model = _fetch(transport, shown_url(url))
    finally:
        transport.close()
    output.write_bytes(encode(model))
    typer.echo(f"{output}: {len(model)} weights of {model.dtype}")


def _fetch(transport: Transport, url: str) -> NDArray[np.generic]:
    """Return the model in the data type of the round parameters.

    Raises:
        TransportError: the coordinator cannot be reached, or has no model yet.
        RemoteProtocolError: its answers are malformed.
    """
    parameters = RoundParameters.from_bytes(transport.get_parameters())
    answer = transport.get_model(max_model_bytes(parameters))
    if answer is None:
        raise TransportError(f"{url}: expected a global model, got none: no round has finished yet")
    return decode_global_model(answer, parameters)
