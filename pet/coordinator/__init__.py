"""A coordinator that runs: settings, the engine that guards the protocol object, and the service with clock and threads."""
