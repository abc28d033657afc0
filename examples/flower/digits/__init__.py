"""Handwritten digits, learned by nodes that show their updates to nobody."""
