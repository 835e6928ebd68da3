"""NSGA-II (Deb et al. 2002) as Optuna has it."""

import optuna

from benchmarks.search.peers.optuna_study import OptunaPeer


class Nsga2(OptunaPeer):
    """With Optuna's population of 50: until then, and so in a small search altogether, it is random."""

    def sampler(self, startup: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.NSGAIISampler(seed=self.seed)


class SmallNsga2(OptunaPeer):
    """With a population the size of the initial budget, so that there are generations to speak of."""

    def sampler(self, startup: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.NSGAIISampler(population_size=max(2, self.initial), seed=self.seed)
