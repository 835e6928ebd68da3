"""Choose what to try next. Sees a `Problem`; knows nothing of compression."""
