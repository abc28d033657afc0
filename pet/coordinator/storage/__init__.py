"""Where a coordinator keeps what has to outlive an engine: the interface, and one implementation per file."""
