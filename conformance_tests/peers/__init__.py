"""Sparse training libraries from PyPI under the conformance suite, and the table of rules that each keeps or breaks.

``nox -s peers`` makes an environment for each library and writes the table into docs/peers.md.
"""
