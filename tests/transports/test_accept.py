"""Which media type an Accept header chooses."""

import pytest

from pet.transports.accept import choose_media_type

OFFERED = ("application/octet-stream", "application/x-npy", "application/vnd.safetensors")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, 0),
        ("", 0),
        ("*/*", 0),
        ("application/*", 0),
        ("application/x-npy", 1),
        ("APPLICATION/X-NPY ; q=0.2", 1),
        ("application/vnd.safetensors, application/x-npy;q=0.9", 2),
        ("application/octet-stream;q=0.5, application/x-npy;q=0.6", 1),
        ("text/html, */*;q=0.1", 0),
        ("*/*, application/octet-stream;q=0", 1),
        ("application/*;q=0.5, application/vnd.safetensors", 2),
        ("application/x-npy;level=1", 1),
        ("application/x-npy;q=high, application/octet-stream;q=0.1", 0),
        ("application/x-npy;q=nan, */*;q=0.1", 0),
        ("application/x-npy;q=7, */*;q=0.1", 0),
        (",", None),
        ("text/html", None),
        ("*/*;q=0", None),
    ],
)
def test_choice(accept, expected):
    assert choose_media_type(accept, OFFERED) == (None if expected is None else OFFERED[expected])
