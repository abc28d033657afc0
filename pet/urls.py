"""URLs that hold credentials: how they are shown, and how the credentials are taken out before a library sees the URL.

Libraries log the URLs they work with and quote them in their errors. So each place of pet that is given a URL hands it on
without user and password, and shows it with `shown_url` only. What a library says is shown with `shown_error`.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import Final

from pet.secret import Secret

#: Longer texts are no URL that somebody would want to read in an error.
_MAX_SHOWN: Final = 200
_BETWEEN_URLS: Final = re.compile(r",\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)")
#: A URL with credentials in a text of a library, whatever characters the password has.
_CREDENTIALS_IN_TEXT: Final = re.compile(r"(://)[^\s'\"<>]*@")
#: The query of a URL in a text of a library.
_QUERY_IN_TEXT: Final = re.compile(r"(://[^\s'\"<>?]*\?)[^\s'\"<>)]*")


def shown_url(url: object) -> str:
    """Return a URL without user, password, query and fragment, for errors, logs and the screen.

    Never raises, since what is shown is often what could not be read. A password may hold any character, so everything up to
    the last "@" goes, and with it the part of a path that holds one.

    Args:
        url: a text, or several with commas.
    """
    if not isinstance(url, str):
        return f"an object of type {type(url).__name__}"
    several = _BETWEEN_URLS.split(url)
    if len({"@" in one for one in several}) > 1:
        several = [url]  # the comma may belong to a password
    shown = ",".join(map(_shown_one, several))
    printable = "".join(character if character.isprintable() else "?" for character in shown)
    return printable if len(printable) <= _MAX_SHOWN else printable[:_MAX_SHOWN] + "..."


def without_credentials(text: str) -> str:
    """Return a text of a library, or the value of a setting, without the credentials and queries of URLs in it."""
    return _QUERY_IN_TEXT.sub(r"\1...", _CREDENTIALS_IN_TEXT.sub(r"\1", text))


def shown_error(error: BaseException) -> str:
    """Return the kind and the text of a library's error, in one line and without credentials."""
    text = without_credentials(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def split_credentials(url: str) -> tuple[str, tuple[str, Secret] | None]:
    """Return a URL without user and password, and these, decoded; None if the URL has none.

    Raises:
        ValueError: the text cannot be a URL; the error quotes parts of it, so it must not be shown.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.username is None and parts.password is None:
        return url, None
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    user, password = (urllib.parse.unquote(text or "") for text in (parts.username, parts.password))
    return bare, (user, Secret(password))


def _shown_one(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    rest = rest.rpartition("@")[2]
    ending = re.search(r"[?#]", rest)
    if ending is not None:
        rest = f"{rest[: ending.start()]}{ending[0]}..."
    return f"{scheme}{separator}{rest}"
