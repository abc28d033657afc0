"""Every key of the maps that create and join: defaults, rules, and what an invitation carries over."""

import pytest

from pet.errors import FederationValueError
from pet.federation.formats.member_list import list_digest
from pet.federation.records import FailureAction, InvitationContents, Mode, ProjectKind
from pet.federation.server.request_maps import (
    MapContext,
    check_schedule,
    created_record,
    derive_id,
    invitation_map,
    joined_record,
    read_map,
)
from pet.secret import Secret

NATIVE = MapContext(customer_id="c1", project_id="p")
COMPAT = MapContext(customer_id="c1", project_id="p", mode=Mode.COMPAT, allows_compat=True)
ENTRIES = {"fed_name": "f", "sync_sched": "m1", "nats_hosts": "nats://localhost:4222"}
SCHEMA = '{"features":[{"name":"x","kind":"continuous","centre":0,"scale":1}]}'


def test_defaults_of_a_native_federation():
    record = created_record(ENTRIES, NATIVE)
    terms = record.terms
    assert (terms.encrypts, terms.uses_smpc, terms.mode, terms.kind) == (True, True, Mode.NATIVE, ProjectKind.STATISTICS)
    assert (record.is_admin, record.is_pulsing, record.allows_explore) == (True, False, False)
    assert record.peers == (terms.admin,) == (record.keys.identity("p"),)
    assert record.send_failure_action is record.receive_failure_action is FailureAction.BLOCK
    assert (record.nats.request_timeout_seconds, record.nats.stream_max_bytes) == (30.0, 2**30)
    assert len(terms.federation_id) == 16
    assert created_record(ENTRIES, NATIVE).terms.federation_id != terms.federation_id


def test_defaults_of_a_compatible_federation():
    terms = created_record(ENTRIES, COMPAT).terms
    assert (terms.encrypts, terms.uses_smpc, terms.mode) == (False, False, Mode.COMPAT)
    assert terms.federation_id == derive_id("f", terms.secret_key)


def test_the_derived_id():
    # printf 'pet-fed:nh_test_doc:t6Zat/ZAJyYBtmVXATUDCQ==' | sha256sum | xxd -r -p | base32 | head -c 16
    assert derive_id("nh_test_doc", Secret("t6Zat/ZAJyYBtmVXATUDCQ==")) == "k3fp7lckedf3ufgu"


def test_values_of_a_creation():
    more = {
        "fed_local_type": "cpu",
        "fed_encrypt": "false",
        "fed_use_smpc": "false",
        "fed_enforce_hipaa_compliance": "false",
        "nats_sec_token": "hush",
        "nats_req_timeout": "60",
        "nats_stream_max_memory": "1024M",
        "fed_schema": SCHEMA,
        "fed_psr_contract_snd_fail_action": "fed_psr_contract_snd_fail_action_allow",
        "fed_psr_contract_rcv_fail_action": "fed_psr_contract_rcv_fail_action_block",
        "unknown": "ignored",
    }
    record = created_record(ENTRIES | more, NATIVE)
    assert (record.terms.encrypts, record.terms.uses_smpc) == (False, False)
    assert (record.nats.token.reveal(), record.nats.request_timeout_seconds, record.nats.stream_max_bytes) == (
        "hush",
        60,
        2**30,
    )
    assert record.send_failure_action is FailureAction.ALLOW
    assert record.terms.schema.startswith('{"features":[{')


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("fed_name", "", "it is missing"),
        ("fed_name", "x" * 257, "256 printable"),
        ("fed_name", "a\nb", "256 printable"),
        ("sync_sched", "", "it is missing"),
        ("sync_sched", "m0", "expected m, h or d and a number from 1 on, at most 366 days"),
        ("sync_sched", "d367", "at most 366 days"),
        ("sync_sched", "m1 ", "expected m, h or d"),
        ("nats_hosts", "", "it is missing"),
        ("nats_hosts", "http://localhost", "expected nats://"),
        ("nats_hosts", "nats://broker.example:4222", "expected TLS"),
        ("nats_req_timeout", "soon", "expected seconds"),
        ("nats_req_timeout", "0", "above 0"),
        ("nats_sec_nkey_seed", "hush-hush", "expected SU and 56 more characters"),
        ("fed_local_type", "tpu", "expected cpu or gpu"),
        ("fed_enforce_hipaa_compliance", "true", "HIPAA compliance checks are not supported yet"),
        ("fed_encrypt", "yes", "expected true or false"),
        ("fed_mode", "compat", "this server was not started with --compat"),
        ("fed_mode", "other", "expected native or compat"),
        ("fed_project_kind", "rows", "expected statistics or model"),
        ("fed_schema", "{}", "schema: expected"),
        ("fed_psr_contract_snd_fail_action", "allow", "_allow"),
    ],
)
def test_values_that_break_a_rule(key, value, reason):
    with pytest.raises(FederationValueError) as raised:
        created_record(ENTRIES | {key: value}, NATIVE)
    text = str(raised.value)
    assert text.startswith(f"Invalid value for key [{key}]: ")
    assert reason in text
    assert raised.value.key == key
    assert "hush" not in text


@pytest.mark.parametrize(
    "more",
    [
        {"nats_sec_user": "u"},
        {"nats_sec_passwd": "hush"},
        {"nats_sec_user": "u", "nats_sec_passwd": "hush", "nats_sec_token": "hush"},
    ],
)
def test_half_or_double_credentials_are_refused(more):
    with pytest.raises(FederationValueError, match="Invalid value for key") as raised:
        created_record(ENTRIES | more, NATIVE)
    assert "hush" not in str(raised.value)


def test_a_model_needs_its_length():
    entries = ENTRIES | {"fed_project_kind": "model"}
    for length in ["", "0", "-1", "9" * 30]:
        with pytest.raises(FederationValueError, match="fed_model_length"):
            created_record(entries | {"fed_model_length": length}, NATIVE)
    assert created_record(entries | {"fed_model_length": "5"}, NATIVE).terms.schema == '{"length":5}'
    bounds = {"fed_model_length": "5", "fed_model_bound": "8", "fed_max_weight": "1e3"}
    assert created_record(entries | bounds, NATIVE).terms.schema == '{"bound":8.0,"length":5,"max_weight":1000.0}'
    for key, value in (
        ("fed_model_bound", "1e5"),
        ("fed_model_bound", "nan"),
        ("fed_max_weight", "0"),
        ("fed_max_weight", "x"),
    ):
        with pytest.raises(FederationValueError, match=key):
            created_record(entries | bounds | {key: value}, NATIVE)


@pytest.mark.parametrize("context", [NATIVE, COMPAT], ids=["native", "compat"])
def test_a_peer_joins_with_what_the_invitation_says(context):
    more = {"nats_sec_user": "u", "nats_sec_passwd": "hush", "nats_req_timeout": "7"}
    admin = created_record(ENTRIES | more, context)
    digest = list_digest(admin.terms.federation_id, admin.peers)
    contents = InvitationContents(
        terms=admin.terms, nats=admin.nats, token=Secret("tok"), members_digest=digest, rest_url="http://h/x"
    )
    entries = invitation_map(contents)
    assert all(isinstance(value, str) for value in entries.values())
    record, token = joined_record(entries, context)
    assert token.reveal() == "tok"
    assert record.nats == admin.nats
    assert record.terms.federation_id == admin.terms.federation_id
    assert record.terms.secret_key == admin.terms.secret_key
    assert record.terms.admin.signing_key == admin.keys.signing.public_key
    assert record.terms.admin.encryption_key == admin.keys.encryption.public_key
    assert (record.terms.encrypts, record.terms.uses_smpc, record.terms.mode) == (
        admin.terms.encrypts,
        admin.terms.uses_smpc,
        admin.terms.mode,
    )
    assert not record.is_admin
    assert [peer.uuid for peer in record.peers] == [admin.keys.uuid, record.keys.uuid]
    assert (record.members_digest, record.confirmed) == (digest, ())


def test_a_documented_join_needs_no_key_of_ours():
    entries = ENTRIES | {"fed_secret_key": "t6Zat/ZAJyYBtmVXATUDCQ==", "fed_req_token": "FEDTOKEN38f45fe16545e80c"}
    record, _ = joined_record(entries, COMPAT)
    assert record.terms.admin is None
    assert record.peers == (record.keys.identity("p"),)
    with pytest.raises(FederationValueError, match="fed_id"):
        joined_record(entries, NATIVE)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fed_req_token", ""),
        ("fed_secret_key", ""),
        ("fed_secret_key", "AAAA"),
        ("fed_secret_key", "hush"),
        ("fed_id", "UPPER"),
        ("fed_admin_uuid", "xyz"),
        ("fed_admin_uuid", ""),
        ("fed_admin_sign_key", "AAAA"),
        ("fed_admin_box_key", "*"),
        ("fed_key_epoch", "-1"),
        ("fed_mode", "compat"),
        ("fed_local_type", "tpu"),
        ("fed_members_digest", "1:0"),
        ("fed_peer_name", "x" * 65),
        ("fed_peer_name", "a\nb"),
        ("fed_peer_name", "0123 4567 89ab cdef 0123 4567 89ab cdef"),
    ],
)
def test_joins_that_break_a_rule(key, value):
    admin = created_record(ENTRIES, NATIVE)
    contents = InvitationContents(terms=admin.terms, nats=admin.nats, token=Secret("tok"), members_digest="1:" + "0" * 64)
    entries = invitation_map(contents)
    with pytest.raises(FederationValueError, match="Invalid value for key") as raised:
        joined_record(entries | {key: value}, NATIVE)
    assert "hush" not in str(raised.value)


def test_an_invitation_decides_nothing_that_is_for_the_peers_own_user():
    """The map is the invitation's; a peer's own limit of rows and its consent to contracts come in the query."""
    admin = created_record(ENTRIES, NATIVE)
    contents = InvitationContents(terms=admin.terms, nats=admin.nats, token=Secret("tok"), members_digest="1:" + "0" * 64)
    keys = ("leastRows", "fed_least_rows", "least_rows", "acceptContracts", "fed_accept_contracts", "accepts_contracts")
    record, _ = joined_record(invitation_map(contents) | dict.fromkeys(keys, "1"), NATIVE)
    assert (record.least_rows, record.accepts_contracts) == (0, False)


def test_a_native_join_with_the_keys_of_the_vendors_document_names_the_others():
    five = {"fed_name": "f", "sync_sched": "m1", "fed_secret_key": "x", "fed_req_token": "t", "nats_hosts": "nats://h:1"}
    with pytest.raises(FederationValueError) as raised:
        joined_record(five, NATIVE)
    assert str(raised.value) == (
        "Invalid value for key [fed_id]: it is missing, as are fed_admin_uuid, fed_admin_sign_key, fed_admin_box_key: "
        "expected all that the invitation holds"
    )


def test_maps_are_texts_numbers_and_booleans():
    assert read_map(b'{"a":"x","b":5,"c":true,"d":0.5}') == {"a": "x", "b": "5", "c": "true", "d": "0.5"}
    for bad in [b"", b"[]", b'{"a":null}', b'{"a":[]}', b'{"a":{}}', b'{"a":1,"a":2}', b"\xff"]:
        with pytest.raises(FederationValueError, match=r"^Bad Request Body$"):
            read_map(bad)


def test_schedules_are_checked_by_their_key():
    assert check_schedule("d7", "newSchedule") == "d7"
    with pytest.raises(FederationValueError, match=r"\[newSchedule\]"):
        check_schedule("7d", "newSchedule")
