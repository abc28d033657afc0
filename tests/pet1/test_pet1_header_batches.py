"""Share headers on their way to members: what is written is read, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet.errors import RemoteProtocolError
from pet.pet1.header_batch import HeaderBatch

_HEADERS = st.lists(st.binary(max_size=40), max_size=5)


@given(headers=_HEADERS, first=st.integers(0, 2**32))
def test_headers_are_read_as_they_were_written(headers: list[bytes], first: int) -> None:
    batch = HeaderBatch(tuple(headers), first + len(headers))
    assert HeaderBatch.decode(batch.encode(), first) == batch
    assert batch.size_bytes == len(batch.encode())


@given(headers=_HEADERS, data=st.data())
def test_a_cut_anywhere_is_refused_or_ends_between_two_headers(headers: list[bytes], data: st.DataObject) -> None:
    whole = HeaderBatch(tuple(headers), len(headers)).encode()
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    ends = {len(HeaderBatch(tuple(headers[:count]), count).encode()) for count in range(len(headers) + 1)}
    if len(cut) in ends:
        assert HeaderBatch.decode(cut, 0).encode() == cut
    else:
        with pytest.raises(RemoteProtocolError) as refused:
            HeaderBatch.decode(cut, 0)
        assert refused.value.reason == "malformed_headers"


def test_a_length_beyond_the_end_reserves_nothing() -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        HeaderBatch.decode(b"\xff\xff\xff\xff", 0)
    assert refused.value.reason == "malformed_headers"
