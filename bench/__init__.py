"""Benchmarks: `make bench`, or one table of it with `python -m bench.run --only throughput --rounds 2`."""
