"""Shipped search spaces, one YAML file each."""
