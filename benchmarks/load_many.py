"""Ten thousand participants with a thousand weights each in one round of a real `pet coordinator`; see load_round.py.

python benchmarks/load_many.py [--participants 10000] [--length 1000] [--sums 3] [--senders 16]
"""

from load_round import Load, parse, run

if __name__ == "__main__":
    run(parse(__doc__, Load(participants=10_000, length=1000, sums=3, senders=16)))
