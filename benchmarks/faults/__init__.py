"""Studies under faults: a real two-node Ray cluster, real databases, and everything that may go wrong."""
