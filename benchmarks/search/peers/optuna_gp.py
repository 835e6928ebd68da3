"""Optuna's Gaussian processes with the logarithm of expected hypervolume improvement."""

import optuna

from benchmarks.search.peers.optuna_study import OptunaPeer


class Gp(OptunaPeer):
    """As it comes. A conditional parameter is no part of its model and is drawn at random."""

    def sampler(self, startup: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.GPSampler(n_startup_trials=startup, seed=self.seed)
