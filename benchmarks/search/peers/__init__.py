"""Samplers of other packages, each by its public interface and with its own defaults."""
