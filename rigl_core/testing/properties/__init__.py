"""The properties, one concept a file. Each takes a harness and a mode, and fails if a rule is broken."""
