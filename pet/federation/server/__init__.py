"""The REST service: paths, signatures, the store, and the peers that it runs through `pet.federation.runtime`."""
