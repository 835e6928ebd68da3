"""The profile of a small model with random weights, every basis cached."""

import pytest

from hpo.compress.bases import FISHER, PLAIN, WHITENED, AsvdBasis
from hpo.compress.grid import Grid
from hpo.compress.modegpt_basis import Narrowing
from hpo.compress.modegpt_sensitivity import NarrowingSensitivity
from hpo.compress.mpo_basis import WEIGHTED, MpoBasis, ReorderedBasis
from hpo.compress.mpo_curves import BondCurves
from hpo.compress.outliers import Outliers
from hpo.compress.profile import ModelProfile
from hpo.compress.profiling import build_profile
from hpo.compress.residual import Residual
from hpo.compress.sensitivity import BLOCK_INFLUENCE, Sensitivity
from hpo.compress.shared_bases import SharedBases
from hpo.models.dense import DenseModel
from tests.compress import small

PREPARED = (
    PLAIN,
    WHITENED,
    AsvdBasis(0.5),
    AsvdBasis(1.0),
    FISHER,
    Sensitivity(PLAIN),
    Sensitivity(WHITENED),
    BLOCK_INFLUENCE,
    MpoBasis(2),
    MpoBasis(3),
    MpoBasis(4),
    MpoBasis(4, "skewed"),
    ReorderedBasis(MpoBasis(2)),
    ReorderedBasis(MpoBasis(3)),
    BondCurves(MpoBasis(3)),
    WEIGHTED,
    SharedBases(2),
    SharedBases(2, is_fitted=False),
    SharedBases(4, "mlp"),
    Narrowing("elimination"),
    Narrowing("leverage"),
    NarrowingSensitivity(Narrowing("elimination")),
    Outliers(3),
    Residual(Grid(4, 64)),
    Residual(Grid(3, 32, symmetric=False)),
)
"""What the methods under contract are planned from; add yours where its plans read the profile."""


@pytest.fixture(scope="session")
def llama() -> DenseModel:
    return small.dense_model("llama")


@pytest.fixture(scope="session")
def profile(llama: DenseModel) -> ModelProfile:
    return build_profile(llama, small.corpus(), small.CONTEXT, PREPARED)
