"""Peers that benchmarks measure against, written from published descriptions; not part of the package."""
