"""The contenders that the benchmarks measure. Each framework has its modules; each runs in a process of its own."""
