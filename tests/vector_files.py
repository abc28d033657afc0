"""Where the vectors of the originals are, and how to read them.

Not in conftest.py: there may be one in each folder, and only one of them can be imported by that name.
"""

import json
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parent / "vectors"


def load_vectors(name: str) -> Any:
    """Read a file of tests/vectors."""
    return json.loads((VECTORS / name).read_text())
