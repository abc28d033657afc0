"""Payloads in pieces (spec 4.7), and the bounds that the reference lacks (spec 13)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import chunks

from pet.buffers import Buffer
from pet.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from pet.messages import (
    CHUNK_OVERHEAD_BYTES,
    MIN_MAX_MESSAGE_SIZE,
    Chunk,
    ChunkCollector,
    ChunkLimits,
    HeadCheck,
    MemoryChunkStore,
    Tag,
    max_payload_bytes,
    split_payload,
)
from pet.messages.chunk_store import MemoryPile

KEY, OTHER_KEY = b"\x55" * 32, b"\x77" * 32
PAYLOAD = bytes(range(250))


def new_collector(per_participant: int = 10**6, overall: int = 10**6, messages: int = 10) -> ChunkCollector:
    return ChunkCollector(
        ChunkLimits(max_bytes_per_participant=per_participant, max_bytes=overall, max_messages=messages, patience_seconds=60)
    )


def chunk(chunk_id: int, data: bytes = b"data", is_last: bool = False, message_id: int = 7) -> Chunk:
    return Chunk(chunk_id=chunk_id, message_id=message_id, is_last=is_last, data=data)


def refusal_reason(collector: ChunkCollector, refused: Chunk, public_key: bytes = KEY, tag: Tag = Tag.UPDATE) -> str:
    """Add a chunk that is refused, and check that nothing has changed."""
    before = collector.size_bytes, len(collector)
    with pytest.raises(RemoteProtocolError) as caught:
        collector.add(public_key, tag, refused)
    assert (collector.size_bytes, len(collector)) == before
    return caught.value.reason


@given(chunks)
def test_decoding_inverts_encoding(chunk: Chunk) -> None:
    encoded = b"".join(chunk.encode_parts())
    assert len(encoded) == chunk.size_bytes
    assert Chunk.decode(encoded) == chunk


def test_fields_lie_where_the_specification_says() -> None:
    encoded = b"".join(Chunk(chunk_id=0x0102, message_id=0x0304, is_last=True, data=b"data").encode_parts())
    assert encoded == bytes.fromhex("0102 0304 01 000000") + b"data"


def test_flags_and_reserved_bytes_without_a_meaning_are_ignored() -> None:
    assert Chunk.decode(bytes.fromhex("0000 0007 fe ffffff") + b"data") == chunk(0)


def test_a_chunk_shorter_than_its_header_is_refused() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        Chunk.decode(bytes(7))
    assert caught.value.reason == "malformed_chunk"


@pytest.mark.parametrize("value", [-1, 2**16])
def test_ids_have_16_bits(value: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"chunk_id: expected 0 to 65535, got {value}"):
        chunk(value)
    with pytest.raises(LocalProtocolError, match=f"message_id: expected 0 to 65535, got {value}"):
        chunk(0, message_id=value)


def test_pieces_have_the_worked_sizes() -> None:
    pieces = list(split_payload([bytes(494)], 300, 7))
    assert [len(piece.data) for piece in pieces] == [108, 108, 108, 108, 62]
    assert [136 + piece.size_bytes for piece in pieces] == [252, 252, 252, 252, 206]
    assert [piece.chunk_id for piece in pieces] == [0, 1, 2, 3, 4]
    assert [piece.is_last for piece in pieces] == [False, False, False, False, True]


@given(
    st.lists(st.binary(max_size=60), max_size=6),
    st.integers(MIN_MAX_MESSAGE_SIZE, 260),
    st.integers(0, 2**16 - 1),
    st.randoms(use_true_random=False),
)
def test_chunks_in_any_order_give_the_payload(
    parts: list[bytes], max_message_size: int, message_id: int, source: random.Random
) -> None:
    pieces = list(split_payload(parts, max_message_size, message_id))
    assert all(136 + 48 + piece.size_bytes == max_message_size for piece in pieces[:-1])
    assert 136 + 48 + pieces[-1].size_bytes <= max_message_size
    source.shuffle(pieces)
    collector = new_collector()
    results = [collector.add(KEY, Tag.UPDATE, Chunk.decode(b"".join(piece.encode_parts()))) for piece in pieces]
    assert results == [None] * (len(pieces) - 1) + [b"".join(parts)]
    assert (collector.size_bytes, len(collector)) == (0, 0)


def test_pieces_within_one_part_are_views() -> None:
    payload = bytearray(100)
    pieces = list(split_payload([payload], MIN_MAX_MESSAGE_SIZE, 7))
    payload[0] = 9
    assert pieces[0].data == b"\x09\0"


def test_parts_may_be_empty() -> None:
    assert [piece.data for piece in split_payload([b"", memoryview(b"data"), b""], 300, 7)] == [b"data"]
    assert list(split_payload([], 300, 7)) == [chunk(0, b"", is_last=True)]


def test_messages_smaller_than_the_reference_can_make_are_refused() -> None:
    assert max_payload_bytes(MIN_MAX_MESSAGE_SIZE) == 10
    with pytest.raises(ConfigError, match="max_message_size: expected at least 194 bytes, got 193"):
        split_payload([PAYLOAD], 193, 7)


def test_more_chunks_than_ids_are_refused() -> None:
    payload = bytes(2 * 2**16 + 1)
    with pytest.raises(LocalProtocolError, match="expected at most 65536 chunks, got 65537"):
        split_payload([payload], MIN_MAX_MESSAGE_SIZE, 7)
    assert sum(1 for _ in split_payload([payload[:-1]], MIN_MAX_MESSAGE_SIZE, 7)) == 2**16


def test_a_gap_keeps_a_payload_incomplete() -> None:
    collector = new_collector()
    for piece in (chunk(0), chunk(2), chunk(3, is_last=True)):
        assert collector.add(KEY, Tag.UPDATE, piece) is None
    assert collector.add(KEY, Tag.UPDATE, chunk(1, b"gap!")) == b"datagap!datadata"


def test_a_duplicate_counts_once() -> None:
    collector = new_collector()
    for _ in range(3):
        assert collector.add(KEY, Tag.UPDATE, chunk(0)) is None
    assert collector.size_bytes == 4 + CHUNK_OVERHEAD_BYTES
    assert collector.add(KEY, Tag.UPDATE, chunk(1, is_last=True)) == b"datadata"


def test_of_two_chunks_with_one_id_the_second_stays() -> None:
    collector = new_collector()
    collector.add(KEY, Tag.UPDATE, chunk(0, b"first one"))
    collector.add(KEY, Tag.UPDATE, chunk(0, b"second"))
    assert collector.size_bytes == 9 + 6 + CHUNK_OVERHEAD_BYTES
    assert collector.add(KEY, Tag.UPDATE, chunk(1, b"", is_last=True)) == b"second"


def test_payloads_are_told_apart_by_sender_and_message_id() -> None:
    collector = new_collector()
    collector.add(KEY, Tag.UPDATE, chunk(0, b"a"))
    collector.add(KEY, Tag.UPDATE, chunk(0, b"b", message_id=8))
    collector.add(OTHER_KEY, Tag.UPDATE, chunk(0, b"c"))
    assert len(collector) == 3
    assert collector.add(KEY, Tag.UPDATE, chunk(1, b"!", is_last=True)) == b"a!"
    assert collector.add(OTHER_KEY, Tag.UPDATE, chunk(1, b"!", is_last=True)) == b"c!"
    assert collector.add(KEY, Tag.UPDATE, chunk(1, b"!", is_last=True, message_id=8)) == b"b!"


@pytest.mark.parametrize(
    ("known", "refused"),
    [
        ([chunk(2, is_last=True)], chunk(3)),
        ([chunk(2, is_last=True)], chunk(3, is_last=True)),
        ([chunk(2, is_last=True)], chunk(1, is_last=True)),
        ([chunk(2, is_last=True)], chunk(2)),
        ([chunk(2)], chunk(1, is_last=True)),
        ([chunk(2)], chunk(2, is_last=True)),
    ],
    ids=["above-last", "last-above-last", "last-below-last", "no-longer-last", "last-below-another", "suddenly-last"],
)
def test_conflicting_last_flags_are_refused(known: list[Chunk], refused: Chunk) -> None:
    collector = new_collector()
    for piece in known:
        collector.add(KEY, Tag.UPDATE, piece)
    assert refusal_reason(collector, refused) == "chunk_conflict"


def test_a_repeated_last_chunk_is_harmless() -> None:
    collector = new_collector()
    for _ in range(2):
        assert collector.add(KEY, Tag.UPDATE, chunk(1, is_last=True)) is None
    assert collector.add(KEY, Tag.UPDATE, chunk(0)) == b"datadata"


def test_another_tag_than_before_is_refused() -> None:
    collector = new_collector()
    collector.add(KEY, Tag.UPDATE, chunk(0))
    assert refusal_reason(collector, chunk(1), tag=Tag.SUM2) == "chunk_conflict"


def test_multipart_buffers_are_bounded() -> None:
    """Spec 13: xaynet keeps whatever comes, without end."""
    size = 4 + CHUNK_OVERHEAD_BYTES
    collector = new_collector(per_participant=2 * size, overall=3 * size, messages=3)
    collector.add(KEY, Tag.UPDATE, chunk(0))
    collector.add(KEY, Tag.UPDATE, chunk(0, message_id=8))
    assert refusal_reason(collector, chunk(1)) == "chunk_limit"
    assert refusal_reason(collector, chunk(0, b"data+")) == "chunk_limit"
    collector.add(OTHER_KEY, Tag.UPDATE, chunk(0))
    assert refusal_reason(collector, chunk(1), OTHER_KEY) == "chunk_limit"
    assert collector.size_bytes == 3 * size


def test_of_two_chunks_of_one_size_the_second_stays_and_costs_nothing() -> None:
    collector = new_collector()
    collector.add(KEY, Tag.UPDATE, chunk(0, b"first"))
    collector.add(KEY, Tag.UPDATE, chunk(0, b"other"))
    assert collector.size_bytes == 5 + CHUNK_OVERHEAD_BYTES
    assert collector.add(KEY, Tag.UPDATE, chunk(1, b"", is_last=True)) == b"other"


def test_what_stands_still_gives_way_to_what_needs_its_room() -> None:
    """The longest idle first, and no more than needed; what grows stays."""
    size = 4 + CHUNK_OVERHEAD_BYTES
    collector = new_collector(overall=3 * size)
    keys = [bytes([number]) * 32 for number in range(5)]
    for now, key in enumerate(keys[:3]):
        collector.add(key, Tag.UPDATE, chunk(0), now)
    collector.add(keys[0], Tag.UPDATE, chunk(0), 50)  # the same again is no progress
    with pytest.raises(RemoteProtocolError, match="at most 492 bytes of all participants, got 656"):
        collector.add(keys[3], Tag.UPDATE, chunk(0), 59.5)
    assert len(collector) == 3
    collector.add(keys[3], Tag.UPDATE, chunk(0), 60)  # in the place of the first
    assert collector.last_dropped == [(keys[0], 7)]
    assert (len(collector), collector.size_bytes) == (3, 3 * size)
    assert collector.add(keys[3], Tag.UPDATE, chunk(1, is_last=True), 100) == b"datadata"  # the second went for it
    assert collector.last_dropped == [(keys[1], 7)]
    assert (len(collector), collector.size_bytes) == (1, size)


def test_other_bytes_of_one_size_are_no_progress() -> None:
    """Nor is less than a sixteenth more: who sends it would keep its place for ever, and pays next to nothing."""
    collector = new_collector(messages=2)
    collector.add(OTHER_KEY, Tag.UPDATE, chunk(0, bytes(100_000)), 0)
    collector.add(KEY, Tag.UPDATE, chunk(0, bytes(100_000)), 1)
    for now in range(2, 60, 10):
        collector.add(KEY, Tag.UPDATE, chunk(0, bytes([now]) * 100_000), now)
        collector.add(KEY, Tag.UPDATE, chunk(1 + now, b""), now)
    collector.add(OTHER_KEY, Tag.UPDATE, chunk(1, bytes(7000)), 20)
    collector.add(b"n" * 32, Tag.UPDATE, chunk(0), 61)
    assert collector.last_dropped == [(KEY, 7)]


@pytest.mark.parametrize("limits", [{"overall": 4 * (4 + CHUNK_OVERHEAD_BYTES)}, {"messages": 4}], ids=["bytes", "messages"])
def test_who_holds_most_makes_way_for_who_would_hold_less(limits: dict[str, int]) -> None:
    """Its newest message first; and one participant alone may hold everything while nobody else asks."""
    collector = new_collector(**limits)
    for message_id in range(4):
        collector.add(KEY, Tag.UPDATE, chunk(0, message_id=message_id))
    assert refusal_reason(collector, chunk(0, message_id=9)) == "chunk_limit"
    for number, dropped in ((1, [(KEY, 3)]), (2, [(KEY, 2)])):
        collector.add(bytes([number]) * 32, Tag.UPDATE, chunk(0))
        assert collector.last_dropped == dropped
    assert refusal_reason(collector, chunk(0, message_id=8), b"\1" * 32) == "chunk_limit"  # it would hold as much
    assert len(collector) == 4


def refuse_x(head: bytes) -> None:
    if head.startswith(b"x"):
        raise RemoteProtocolError("not_wanted", "expected no x")


HEAD = HeadCheck(6, refuse_x)


def test_as_many_payloads_make_way_as_are_needed() -> None:
    size = 1000 + CHUNK_OVERHEAD_BYTES
    collector = new_collector(overall=4 * size)
    for message_id in range(4):
        collector.add(OTHER_KEY, Tag.UPDATE, chunk(0, bytes(1000), message_id=message_id))
    collector.add(KEY, Tag.UPDATE, chunk(0, bytes(1500)))
    assert [collector.holds(OTHER_KEY, message_id) for message_id in range(4)] == [True, True, False, False]
    assert collector.holds(KEY, 7)


def test_it_says_which_chunk_it_has() -> None:
    collector = new_collector()
    collector.add(KEY, Tag.UPDATE, chunk(1))
    assert collector.has(KEY, chunk(1))
    assert not any(collector.has(*other) for other in ((KEY, chunk(2)), (OTHER_KEY, chunk(1)), (KEY, chunk(1, message_id=8))))


def test_a_head_is_checked_before_anything_is_kept() -> None:
    collector = new_collector()
    with pytest.raises(RemoteProtocolError, match="no x"):
        collector.add(KEY, Tag.UPDATE, chunk(0, b"x12345"), head=HEAD)
    assert (len(collector), collector.size_bytes) == (0, 0)
    collector.add(KEY, Tag.UPDATE, chunk(0, b"y12345"), head=HEAD)
    assert collector.add(KEY, Tag.UPDATE, chunk(1, b"!", is_last=True), head=HEAD) == b"y12345!"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_a_head_in_small_chunks_is_checked_as_soon_as_it_is_there(order: tuple[int, ...]) -> None:
    collector = new_collector()
    for first in "xy":
        data = [f"{first}1".encode(), b"23", b"45"]
        outcomes = []
        for number in order:
            try:
                collector.add(KEY, Tag.UPDATE, chunk(number, data[number]), head=HEAD)
                outcomes.append(len(collector))
            except RemoteProtocolError as error:
                outcomes.append(error.reason)
        assert outcomes == [1, 1, "not_wanted" if first == "x" else 1]
        assert len(collector) == (first == "y")


def test_what_was_not_checked_makes_way_for_what_was() -> None:
    """The oldest first; and never the other way round."""
    collector = new_collector(messages=2)
    collector.add(KEY, Tag.UPDATE, chunk(5), head=HEAD)
    collector.add(OTHER_KEY, Tag.UPDATE, chunk(0, b"y12345"), head=HEAD)
    for number in (1, 2):
        with pytest.raises(RemoteProtocolError, match="incomplete payloads"):
            collector.add(bytes([number]) * 32, Tag.UPDATE, chunk(5), head=HEAD)
    collector.add(b"c" * 32, Tag.UPDATE, chunk(0, b"y12345"), head=HEAD)
    assert collector.last_dropped == [(KEY, 7)]
    assert collector.add(OTHER_KEY, Tag.UPDATE, chunk(1, is_last=True), head=HEAD) == b"y12345data"


def test_a_message_that_stands_still_does_not_give_way_to_itself() -> None:
    collector = new_collector(overall=4 + CHUNK_OVERHEAD_BYTES)
    collector.add(KEY, Tag.UPDATE, chunk(0), 0)
    with pytest.raises(RemoteProtocolError, match="bytes of all participants"):
        collector.add(KEY, Tag.UPDATE, chunk(1), 1000)
    assert len(collector) == 1


def test_too_many_messages_make_the_idle_ones_go() -> None:
    collector = new_collector(messages=1)
    collector.add(KEY, Tag.UPDATE, chunk(0), 0)
    with pytest.raises(RemoteProtocolError, match="at most 1 incomplete payloads, got 2"):
        collector.add(OTHER_KEY, Tag.UPDATE, chunk(0), 59)
    collector.add(OTHER_KEY, Tag.UPDATE, chunk(0), 60)
    assert len(collector) == 1


@pytest.mark.parametrize("is_known", [False, True])
def test_a_chunk_that_cannot_be_stored_changes_nothing(is_known: bool) -> None:
    class FullStore(MemoryChunkStore):
        def create(self) -> MemoryPile:
            return pile

    class FullPile(MemoryPile):
        is_full = False
        is_closed = False

        def append(self, data: Buffer) -> int:
            if self.is_full:
                raise OSError("disk full")
            return super().append(data)

        def close(self) -> None:
            self.is_closed = True

    pile = FullPile()
    limits = ChunkLimits(max_bytes_per_participant=10**6, max_bytes=10**6, max_messages=10, patience_seconds=60)
    collector = ChunkCollector(limits, FullStore())
    if is_known:
        collector.add(KEY, Tag.UPDATE, chunk(0))
    before = collector.size_bytes, len(collector)
    pile.is_full = True
    with pytest.raises(OSError, match="disk full"):
        collector.add(KEY, Tag.UPDATE, chunk(1, is_last=True))
    assert (collector.size_bytes, len(collector)) == before
    assert pile.is_closed != is_known
    pile.is_full = False
    if is_known:
        assert collector.add(KEY, Tag.UPDATE, chunk(1, is_last=True)) == b"datadata"


def test_empty_chunks_are_bounded_too() -> None:
    collector = new_collector(per_participant=3 * CHUNK_OVERHEAD_BYTES)
    for chunk_id in range(3):
        collector.add(KEY, Tag.UPDATE, chunk(chunk_id, b""))
    assert refusal_reason(collector, chunk(3, b"")) == "chunk_limit"


def test_room_is_given_back_when_a_payload_is_complete() -> None:
    collector = new_collector(per_participant=2 * (4 + CHUNK_OVERHEAD_BYTES), messages=2)
    collector.add(KEY, Tag.UPDATE, chunk(0, message_id=8))
    assert collector.add(KEY, Tag.UPDATE, chunk(0, is_last=True)) == b"data"
    assert collector.size_bytes == 4 + CHUNK_OVERHEAD_BYTES
    assert collector.add(KEY, Tag.UPDATE, chunk(0, is_last=True, message_id=9)) == b"data"


def test_clearing_drops_everything() -> None:
    collector = new_collector(per_participant=4 + CHUNK_OVERHEAD_BYTES)
    collector.add(KEY, Tag.UPDATE, chunk(0))
    collector.clear()
    assert (collector.size_bytes, len(collector)) == (0, 0)
    assert collector.add(KEY, Tag.UPDATE, chunk(1, is_last=True)) is None


def test_collected_data_does_not_depend_on_the_message() -> None:
    buffer = bytearray(b"data")
    collector = new_collector()
    collector.add(KEY, Tag.UPDATE, Chunk(chunk_id=0, message_id=7, is_last=False, data=memoryview(buffer)))
    buffer[:] = b"gone"
    assert collector.add(KEY, Tag.UPDATE, chunk(1, b"", is_last=True)) == b"data"


def test_repr_leaves_the_data_out() -> None:
    assert repr(chunk(0)) == "Chunk(chunk_id=0, message_id=7, is_last=False)"


def test_a_collector_says_what_it_holds() -> None:
    collector = new_collector()
    collector.add(KEY, Tag.UPDATE, chunk(0))
    assert (collector.holds(KEY, 7), collector.holds(KEY, 8), collector.holds(OTHER_KEY, 7)) == (True, False, False)
    assert collector.add(KEY, Tag.UPDATE, chunk(1, is_last=True)) is not None
    assert not collector.holds(KEY, 7)
