"""URLs are shown without anything secret, whatever they look like."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pet.urls import shown_error, shown_url, split_credentials


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:sekret@host:8081/path", "http://host:8081/path"),
        ("nats://sekret@host:4222", "nats://host:4222"),
        ("redis://:sekret@host/0", "redis://host/0"),
        ("redis://host/0?password=sekret", "redis://host/0?..."),
        ("http://host/#sekret", "http://host/#..."),
        ("nats://me:sekret@one:1,nats://me:sekret@two:2", "nats://one:1,nats://two:2"),
        ("nats://me:se,kret@one:1, nats://me:se,kret@two:2", "nats://one:1,nats://two:2"),
        ("me:sekret@host", "host"),
        ("http://me:se/kr?et#@host/x", "http://host/x"),
        ("http://me:se@kret@host", "http://host"),
        ("http://host", "http://host"),
        ("http://[::1", "http://[::1"),
        ("", ""),
        ("http://host\x1b[31m", "http://host?[31m"),
        (None, "an object of type NoneType"),
    ],
)
def test_what_is_shown_of_a_url(url, shown):
    assert shown_url(url) == shown


@given(
    scheme=st.sampled_from(["http://", "nats://", "redis://", ""]),
    before=st.text(max_size=10),
    after=st.text(max_size=10),
    host=st.sampled_from(["host", "host:1", "[::1]:1", "host/path"]),
)
@example("nats://", ",", ",", "host")
@example("nats://", "?", "#/", "host")
@example("nats://", "", ",nats://x", "host")
def test_a_password_is_never_shown(scheme, before, after, host):
    assert "sekret" not in shown_url(f"{scheme}me:{before}sekret{after}@{host}")


def test_what_a_library_says_is_shown_without_credentials():
    error = ValueError("cannot open 'http://me:se/kret@host/x?token=sekret',\n giving up")
    assert shown_error(error) == "ValueError: cannot open 'http://host/x?...', giving up"
    assert shown_error(TimeoutError()) == "TimeoutError"


def test_credentials_are_taken_out_and_decoded():
    url, credentials = split_credentials("https://m%40e:p%2Fw@host:8081/path")
    assert url == "https://host:8081/path"
    assert credentials is not None
    assert (credentials[0], credentials[1].reveal()) == ("m@e", "p/w")
    assert split_credentials("https://host") == ("https://host", None)
    assert split_credentials("http://token@[::1]:1/")[0] == "http://[::1]:1/"
