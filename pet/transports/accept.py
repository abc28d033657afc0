"""Choose a media type by an Accept header (RFC 9110, 12.5.1). Pure functions of text."""

from __future__ import annotations

from collections.abc import Sequence


def choose_media_type(accept: str | None, offered: Sequence[str]) -> str | None:
    """Return the offered media type that the header prefers; the first offered one among equals.

    Args:
        accept: the header; None or empty accepts everything.
        offered: media types in lower case, the default first.

    Returns:
        None if the header accepts none of them.
    """
    if accept is None or not accept.strip():
        return offered[0]
    ranges = [_parse_range(part) for part in accept.split(",") if part.strip()]
    best = max(offered, key=lambda media_type: _quality(media_type, ranges))
    return best if _quality(best, ranges) > 0 else None


def _parse_range(text: str) -> tuple[str, float]:
    """Read "type/subtype;q=0.5"; a quality that is no number from 0 to 1 counts as 0."""
    media_range, *parameters = (part.strip().lower() for part in text.split(";"))
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                quality = 0.0
    return media_range, quality if 0 <= quality <= 1 else 0.0


def _quality(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Return the quality that the most specific range gives to a media type."""
    for pattern in (media_type, f"{media_type.split('/')[0]}/*", "*/*"):
        qualities = [quality for media_range, quality in ranges if media_range == pattern]
        if qualities:
            return max(qualities)
    return 0.0
