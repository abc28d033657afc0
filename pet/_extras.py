"""How an extra is installed: the one place that knows whether pet is on the package index. Imports nothing of pet."""

from __future__ import annotations

import os
import shlex
from typing import Final

DISTRIBUTION: Final = "pet-protocol"
#: Whether the package index has pet. Until it does, errors and documents name the clone or the wheel that pet came from:
#: somebody else could register the name there, and serve anything. Set it with the first upload;
#: tests/test_install_commands.py then allows documents the new form.
PUBLISHED: Final = False


def install_command(extra: str) -> str:
    """Return the command that adds an extra's packages to the installation that runs, for an error or a log line.

    Args:
        extra: a name of pyproject.toml's optional dependencies.
    """
    if PUBLISHED:
        return f"pip install {shlex.quote(f'{DISTRIBUTION}[{extra}]')}"
    source, is_editable = _source()
    if source is None:
        return f"pip install '.[{extra}]' in a clone of pet"
    return f"pip install {'-e ' if is_editable else ''}{shlex.quote(f'{source}[{extra}]')}"


def _source() -> tuple[str | None, bool]:
    """Return the folder or file that pet was installed from, if it is still there, and whether it is an editable install.

    pip keeps it in direct_url.json (PEP 610). A URL of another kind than `file:` is not repeated: it may have a password in it.
    """
    # Only an error needs these, and every import of pet would wait for them.
    import importlib.metadata
    import json
    import urllib.parse
    import urllib.request

    try:
        # In the root of a clone its egg-info, which has no such record, stands before what was installed.
        records = (found.read_text("direct_url.json") for found in importlib.metadata.distributions(name=DISTRIBUTION))
        description = json.loads(next((record for record in records if record), "{}"))
        url = urllib.parse.urlsplit(description.get("url", ""))
        is_editable = bool(description.get("dir_info", {}).get("editable", False))
    except (ValueError, AttributeError):
        return None, False
    path = urllib.request.url2pathname(url.path)
    if url.scheme != "file" or not os.path.exists(path):  # noqa: PTH110 - a Path costs more than the rest of this module
        return None, False
    return path, is_editable
