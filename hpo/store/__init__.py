"""The SQL study store: the record of every study, and the only state."""
