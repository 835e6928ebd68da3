"""Take a model home: recommend, compare, export."""
