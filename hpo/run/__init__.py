"""Run studies: evaluate trials on workers, under one coordinator."""
