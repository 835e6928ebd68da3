"""Measure models: quality, latency, memory, energy."""
