"""A member of a federation over NATS: its messages, its rounds, its rows, and the rules by which it shares them."""
