"""Fuzz one target with atheris, guided by coverage; arguments after the name are libFuzzer's.

    python tests/fuzzing/fuzz.py payload tests/fuzzing/corpus/payload -max_total_time=600
    python tests/fuzzing/fuzz.py message_path tests/fuzzing/corpus/message_path -runs=100000

New inputs go into the first folder that is given. Names are in targets.py.
"""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))
with atheris.instrument_imports(include=["pet"]):
    import targets


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in targets.TARGETS:
        raise SystemExit(f"usage: fuzz.py TARGET [libFuzzer's arguments]; TARGET is one of {', '.join(targets.TARGETS)}")
    target = targets.TARGETS[sys.argv[1]]()
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
