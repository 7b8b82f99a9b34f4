"""The conformance suite, for adapters of this project and of others (extra: testing)."""
