"""Whom the benchmarks measure: a module for each framework, imported in a process of its own."""
