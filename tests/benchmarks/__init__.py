"""Benchmarks: how fast the core is, measured from outside over loopback; see README.md."""
