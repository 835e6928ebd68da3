"""Turn a candidate into a plan, and a plan into a compressed model."""
