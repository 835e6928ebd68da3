"""Multi-objective TPE (Bergstra et al. 2011; Ozaki et al. 2022) as Optuna has it."""

import optuna

from benchmarks.search.peers.optuna_study import OptunaPeer


class Tpe(OptunaPeer):
    """As it comes."""

    def sampler(self, startup: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.TPESampler(n_startup_trials=startup, seed=self.seed)


class GroupedTpe(OptunaPeer):
    """Parameters that are active together are drawn together, which suits conditional spaces."""

    def sampler(self, startup: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.TPESampler(
            n_startup_trials=startup, multivariate=True, group=True, seed=self.seed
        )
