"""Federations: peers that merge the statistics of their rows, created and joined over REST, carried by NATS."""
