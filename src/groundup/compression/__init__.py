"""Compression with a verdict: one complete graph, schemes that rewrite its core, measurements, a choice."""
