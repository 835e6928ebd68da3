"""Shipped studies, one YAML file each."""
