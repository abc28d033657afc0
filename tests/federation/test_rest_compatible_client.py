"""The documented endpoints, called by a client written from docs/spec/federation.md 2 and 3 alone (documented_client.py)."""

import base64
import json

import pytest
from documented_client import DocumentedClient, decrypt_invitation, decrypt_map
from federation_rest_server import KEY, OTHER_KEY, federation_server

CREATE = {"fed_name": "nh_test_doc", "fed_local_type": "cpu", "sync_sched": "m1", "nats_hosts": "nats://localhost:4222"}


@pytest.fixture(scope="module")
def url():
    with federation_server(allows_compat=True) as url:
        yield url


@pytest.fixture(scope="module")
def client(url):
    client = DocumentedClient(url, "c1", KEY)
    assert client.send_map("fedml/create", CREATE, "pid=admin&persist=true").status_code == 201
    return client


@pytest.fixture
def other(url):
    return DocumentedClient(url, "c2", OTHER_KEY)


def invitation_for(client, password="passwd", **more):
    answer = client.send_map("fedml/admin/getEncrypted", {"passwd": password, "fed_rest_host": "http://charm:8080"} | more)
    assert answer.status_code == 200, answer.text
    return answer.json()["values"]["fedInfoEncrypted"]


def test_create_answers_as_documented(client):
    answer = client.send_map("fedml/create", CREATE, "pid=nh_test_admin&persist=true")
    assert answer.status_code == 201
    assert answer.json() == {
        "statusCode": "CREATED",
        "statusString": "Project Created with id:nh_test_admin",
        "values": {},
    }
    again = client.send_map("fedml/create", CREATE, "pid=nh_test_admin")
    assert again.status_code == 409
    assert again.json() == {
        "statusCode": "CONFLICT",
        "statusString": "Customer [c1] already have SYMETRYML with id[nh_test_admin], ",
        "values": {},
    }


def test_the_invitation_is_readable_as_documented(client):
    answer = client.send_map("fedml/admin/getEncrypted", {"passwd": "passwd", "fed_rest_host": "http://charm:8080"})
    assert answer.json()["statusString"] == answer.json()["statusCode"] == "OK"
    values = answer.json()["values"]
    assert values["fedInfoEncrypted"] == values["encryptedGroupInfo"]
    contents = decrypt_invitation(values["fedInfoEncrypted"], "passwd")
    assert contents["sync_sched"] == "m1"
    assert contents["fed_name"] == "nh_test_doc"
    assert contents["fed_rest_url"] == "http://charm:8080/symetry/rest/c1/fedml/admin/createPolicies"
    assert contents["nats_hosts"] == "nats://localhost:4222"
    assert len(base64.b64decode(contents["fed_secret_key"])) == 16
    assert contents["fed_req_token"].startswith("FEDTOKEN")
    assert int(contents["fed_req_token"].removeprefix("FEDTOKEN"), 16) < 2**64
    assert all(isinstance(value, str) for value in contents.values())


def test_a_peer_joins_with_the_map_as_it_is(client, other):
    contents = decrypt_invitation(invitation_for(client), "passwd")
    answer = other.send_map("fedml/createJoin", contents | {"fed_local_type": "cpu"}, "pid=joined&persist=true")
    assert answer.status_code == 201
    assert answer.json() == {"statusCode": "CREATED", "statusString": "Fed Project created with join", "values": {}}
    assert other.send_map("fedml/createJoin", contents, "pid=joined").status_code == 409
    again = other.send_map("fedml/createJoin", contents, "pid=joined2")
    assert (again.status_code, again.json()["statusString"]) == (403, "Invalid federation token")
    info = decrypt_map(other.call("GET", "fedml/joined/info").json()["values"]["fedInfoEncrypted"], OTHER_KEY)
    assert info["fed_name"] == "nh_test_doc"
    assert len(info["peersInfo"]) >= 2
    assert contents["fed_secret_key"] not in json.dumps(info)


def test_a_peer_joins_with_the_documented_keys_alone(client, other):
    contents = decrypt_invitation(invitation_for(client), "passwd")
    names = ("sync_sched", "fed_secret_key", "fed_name", "fed_req_token", "nats_hosts", "fed_rest_url")
    answer = other.send_map("fedml/createJoin", {name: contents[name] for name in names}, "pid=documented")
    assert answer.status_code == 201, answer.text


def test_the_server_opens_an_invitation_with_its_password_too(client, other):
    body = {"fed_info_encrypted": invitation_for(client), "passwd": "passwd"}
    assert other.send_map("fedml/createJoin", body, "pid=opened").status_code == 201
    wrong = other.send_map("fedml/createJoin", body | {"passwd": "other"}, "pid=wrong")
    assert wrong.status_code == 400
    assert wrong.json()["statusString"].startswith("the invitation does not open")


def test_unknown_projects_are_named_as_documented(client):
    answer = client.send_map("fedml/nowhere/getEncrypted", {"passwd": "p", "fed_rest_host": "h"})
    assert answer.status_code == 400
    assert answer.json()["statusString"] == "Cannot Find SYMETRYML id[nowhere] for Customer id [c1]"


@pytest.mark.parametrize("name", ["passwd", "fed_token_lifespan_hours"])
def test_bad_keys_of_an_invitation(client, name):
    entries = {"passwd": "x" * 17 if name == "passwd" else "p", "fed_token_lifespan_hours": "1" if name == "passwd" else "169"}
    answer = client.send_map("fedml/admin/getEncrypted", entries)
    assert answer.status_code == 400
    assert "x" * 17 not in answer.text


@pytest.mark.parametrize("body", [b"", b"AAAA", b"not base64!", base64.b64encode(bytes(16))])
def test_bodies_that_do_not_decrypt(client, body):
    answer = client.call("POST", "fedml/create", "pid=bad", body)
    assert (answer.status_code, answer.json()["statusString"]) == (400, "Bad Request Body")


def test_the_pulse_and_the_logs(client):
    for path in ["startPulse", "stopPulse", "stopPulse"]:
        assert client.call("GET", f"fedml/admin/{path}").json()["statusCode"] == "OK"
    assert client.call("GET", "projects/admin/info").json()["values"]["smlInfo"]["params"] == {
        "fed_pulsing": "false",
        "fed_has_error": "false",
        "fed_is_admin": "true",
    }
    assert client.call("GET", "fedml/admin/getErrorLog").json()["values"] == {"stringList": {"values": []}}
    old = client.call("GET", "fedml/admin/getSyncLog", **{"sym-version": "5.2"})
    assert old.json()["values"] == {"stringList": []}
    assert client.call("DELETE", "fedml/admin/clearErrorLog").status_code == 200
    stats = client.call("GET", "fedml/admin/syncStats").json()["values"]["fedSyncStats"]
    assert stats == {
        "sndCount": 0,
        "sndContractError": 0,
        "rcvCount": 0,
        "rcvError": 0,
        "rcvContractError": {},
        "errorLog": [],
        "syncLog": [],
    }
    assert client.call("GET", "fedml/admin/newSchedule", "newSchedule=h3").status_code == 200
    assert client.call("GET", "fedml/admin/newSchedule", "newSchedule=3h").status_code == 400
    assert client.call("GET", "fedml/admin/newSchedule").status_code == 400
    for path in ["fedml/admin/awsinfo", "fedml/awsinfo"]:
        assert client.send_map(path, {"aws_access_key": "a", "aws_secret_key": "b"}).status_code == 400


@pytest.mark.parametrize("body", [b'["COUNT(x) > 5"]', b'{"values":["COUNT(x) > 5"]}'])
def test_contracts_come_in_both_forms(client, body):
    for path in ["contractValidate", "psrContractValidate", "addContract", "addPsrContract"]:
        answer = client.call("POST", f"fedml/admin/{path}", body=body)
        assert (answer.status_code, answer.json()["values"]) == (200, {})
    bad = client.call("POST", "fedml/admin/contractValidate", body=b'["nonsense"]')
    assert (bad.status_code, bad.json()["values"]) == (200, {"status": "line 1: expected the name of a function"})
    bad = client.call("POST", "fedml/admin/addContract", body=b'["nonsense"]')
    assert (bad.status_code, list(bad.json()["values"])) == (400, ["status"])
    for body in [b"", b"{}", b"[1]"]:
        assert client.call("POST", "fedml/admin/addContract", body=body).status_code == 400


def test_what_is_missing_or_late_is_said_in_the_documented_order(client):
    def status(**how):
        answer = client.call("GET", "fedml/admin/info", **how)
        return answer.status_code, answer.json()["statusString"]

    clock = "Please update your server time, it is likely out of sync with UTC"
    assert status(authorization=None, **{"sym-date": None}) == (400, "Authentication header is null")
    assert status(**{"sym-date": None}) == (400, "sym-date header is null")
    assert status(**{"sym-date": "today"}) == (400, "Invalid Date Format")
    assert status(offset_seconds=-310) == (400, clock)
    assert status(offset_seconds=70) == (400, clock)
    assert status(offset_seconds=-290)[0] == 200
    assert status(offset_seconds=50)[0] == 200
    assert status(md5="AAAA") == (400, "Md5 do not match")
    assert status(authorization="AAAA") == (401, "Invalid Signature")


def test_the_digest_may_be_left_out_of_the_header(client):
    body = b'["COUNT(x) > 5"]'
    assert client.call("POST", "fedml/admin/contractValidate", body=body, **{"content-md5": None}).status_code == 200
    without = client.call("POST", "fedml/admin/contractValidate", body=body, signed_md5="", **{"content-md5": None})
    assert without.status_code == 200


def test_401_echoes_what_should_have_been_signed_without_the_key(client, url):
    answer = client.call("GET", "fedml/admin/newSchedule", "newSchedule=h3", authorization="AAAA")
    assert answer.status_code == 401
    assert answer.json()["statusString"] == "Invalid Signature"
    echoed = answer.json()["values"]["stringToSign"]
    assert echoed == client.signed.replace(KEY, "SECRETKEY").replace("\n", "\\n")
    assert KEY not in answer.text
    stranger = DocumentedClient(url, "nobody", KEY)
    answer = stranger.call("GET", "fedml/admin/info")
    assert (answer.status_code, answer.json()["statusString"]) == (401, "Invalid User")
    assert answer.json()["values"]["stringToSign"] == stranger.signed.replace(KEY, "SECRETKEY").replace("\n", "\\n")


def test_nobody_sees_the_projects_of_others(other):
    answer = other.call("GET", "fedml/admin/info")
    assert answer.json()["statusString"] == "Cannot Find SYMETRYML id[admin] for Customer id [c2]"


def test_without_being_told_the_server_does_not_speak_so():
    with federation_server() as url:
        answer = DocumentedClient(url, "c1", KEY).send_map("fedml/create", CREATE, "pid=admin")
        assert answer.status_code == 401
        assert "PET1-HMAC-SHA256" in answer.json()["statusString"]
        assert "stringToSign" not in answer.text
