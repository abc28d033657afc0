"""Bodies that are too large for memory, on their way in: counted while they arrive, spooled to files, read back in turn.

For every transport alike; knows neither HTTP nor NATS, no message and no phase.
"""
