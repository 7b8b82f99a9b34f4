"""The properties, one file for each concept. A property takes a harness and a mode, and fails if a rule is broken."""
