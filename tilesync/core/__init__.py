"""Decisions without I/O: bytes and values in, verdicts with reasons out."""
