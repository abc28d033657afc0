"""Fifty participants with 25 million weights each (150 MB) in one round of a real `pet coordinator`; see load_round.py.

python benchmarks/load_large.py [--participants 50] [--length 25000000] [--sums 1] [--senders 8]
"""

from load_round import Load, parse, run

if __name__ == "__main__":
    run(parse(__doc__, Load(participants=50, length=25_000_000, sums=1, senders=8)))
