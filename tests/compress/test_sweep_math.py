from math import prod, sqrt

import pytest
import torch
from torch import Tensor

from hpo.compress.mpo_math import full_cores, sliced
from hpo.compress.mpo_plan import bond_caps
from hpo.compress.svd_math import ridged
from hpo.compress.sweep_math import Surroundings, centred, gauges, surroundings, swept, weighted_error
from hpo.errors import NonFinite

SITES = [
    ((4, 6), (3, 8), (5,)),
    ((6, 4), (2, 8), (3,)),
    ((2, 3, 4), (2, 3, 4), (3, 6)),
    ((2, 2, 2, 3),) * 2 + ((2, 6, 3),),
]
Factors = tuple[int, ...]


def matrix(rows: int, columns: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


def inputs(features: int, tokens: int = 400, seed: int = 0) -> Tensor:
    """Correlated inputs, as a model's are: their spectrum falls over three decades."""
    scales = torch.logspace(0, -3, features, dtype=torch.float64)
    return (matrix(tokens, features, seed) * scales) @ matrix(features, features, seed + 1)


def start(W: Tensor, outs: Factors, ins: Factors, bonds: Factors) -> list[Tensor]:
    return sliced(full_cores(W, outs, ins, max(bonds))[0], bonds)


def dense(cores: list[Tensor]) -> Tensor:
    whole = cores[0]
    for core in cores[1:]:
        joined = torch.einsum("aoib,bpjc->aopijc", whole, core)
        a, o, p, i, j, c = joined.shape
        whole = joined.reshape(a, o * p, i * j, c)
    return whole[0, :, :, 0]


def test_a_sweep_keeps_what_the_inputs_need_worked_by_hand() -> None:
    """W = diag(2, 2, 1, -1) is two Kronecker products, of norms 2 sqrt 2 and sqrt 2. Truncation keeps the
    first; the inputs are ten times as large where the second acts: f(0) = 4 (0.02) + 2, and 0.08 is lost."""
    W = torch.diag(torch.tensor([2.0, 2.0, 1.0, -1.0]))
    G = torch.diag(torch.tensor([0.01, 0.01, 1.0, 1.0]))
    cores = start(W, (2, 2), (2, 2), (1,))
    found = swept(W, G, cores, 1)
    assert found.errors[0] == pytest.approx(sqrt(2 / 2.08), rel=1e-4)
    assert found.errors[1] == pytest.approx(sqrt(0.08 / 2.08), rel=1e-3)
    expected = torch.diag(torch.tensor([0.0, 0.0, 1.0, -1.0], dtype=torch.float64))
    assert torch.allclose(dense(found.cores), expected, atol=1e-3)


@pytest.mark.parametrize(("outs", "ins"), [((4, 6), (3, 8)), ((6, 2), (4, 5))])
@pytest.mark.parametrize("bond", [1, 3, 6])
def test_one_sweep_is_the_best_there_is_where_the_gram_matrix_is_a_kronecker_product(
    outs: Factors, ins: Factors, bond: int
) -> None:
    """Then the error of two sites is that of a matrix, whose best truncation its SVD gives."""
    W = matrix(prod(outs), prod(ins), 3)
    roots = [matrix(i, i, 5 + k) for k, i in enumerate(ins)]
    G = torch.kron(roots[0] @ roots[0].T, roots[1] @ roots[1].T)
    weighted = (W @ torch.kron(*roots)).reshape(*outs, *ins).permute(0, 2, 1, 3)
    singular = torch.linalg.svdvals(weighted.reshape(outs[0] * ins[0], -1))
    best = float((singular[bond:].square().sum() / singular.square().sum()).sqrt())
    found = swept(W, G, start(W, outs, ins, (bond,)), 1)
    assert found.errors[1] == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize(("outs", "ins", "bonds"), SITES)
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("tokens", [400, 7])
@pytest.mark.parametrize("rows", [0, 256])
def test_sweeps_never_raise_the_weighted_error(
    outs: Factors,
    ins: Factors,
    bonds: Factors,
    seed: int,
    tokens: int,
    rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By either way to solve, also with fewer tokens than inputs; and the shapes stay."""
    monkeypatch.setattr("hpo.compress.sweep_math._DIRECT", rows)
    W, X = matrix(prod(outs), prod(ins), seed), inputs(prod(ins), tokens, seed)
    cores = start(W, outs, ins, bonds)
    found = swept(W, X.T @ X, cores, 3)
    assert [core.shape for core in found.cores] == [core.shape for core in cores]
    assert len(found.errors) == 4
    for before, after in zip(found.errors, found.errors[1:], strict=False):
        assert after <= before * (1 + 1e-9)
    assert found.errors[0] == pytest.approx(_measured(W, X, cores), rel=1e-3)
    assert found.errors[-1] == pytest.approx(_measured(W, X, found.cores), rel=1e-3, abs=1e-4)
    assert found.errors[-1] == pytest.approx(weighted_error(W, X.T @ X, found.cores), rel=1e-6, abs=1e-9)
    assert found.errors[-1] < 0.8 * found.errors[0]


def _measured(W: Tensor, X: Tensor, cores: list[Tensor]) -> float:
    """The error on the inputs themselves, the ridge as more of them."""
    ridge = sqrt(float(ridged(X.T @ X)[0, 0] - (X.T @ X)[0, 0]))
    more = torch.cat([X, ridge * torch.eye(X.shape[1], dtype=X.dtype)])
    return float(torch.linalg.norm((W - dense(cores)) @ more.T) / torch.linalg.norm(W @ more.T))


@pytest.mark.parametrize(("outs", "ins", "bonds"), SITES)
def test_after_a_sweep_no_change_of_the_last_core_lowers_the_error(
    outs: Factors, ins: Factors, bonds: Factors
) -> None:
    W, X = matrix(prod(outs), prod(ins), 4), inputs(prod(ins))
    cores = [core.requires_grad_() for core in swept(W, X.T @ X, start(W, outs, ins, bonds), 2).cores]
    lost = ((W - dense(cores)) @ ridged(X.T @ X) * (W - dense(cores))).sum()
    lost.backward()
    last = cores[-1].detach()
    assert cores[-1].grad is not None
    slope = float(torch.linalg.norm(cores[-1].grad) * torch.linalg.norm(last))
    assert slope < 1e-6 * lost.item()


def test_both_ways_to_solve_come_to_like_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    outs, ins, bonds = (4, 6), (3, 8), (5,)
    W, X = matrix(24, 24, 6), inputs(24)
    errors = []
    for rows, steps in ((256, 1), (0, 200)):
        monkeypatch.setattr("hpo.compress.sweep_math._DIRECT", rows)
        monkeypatch.setattr("hpo.compress.sweep_math._STEPS", steps)
        monkeypatch.setattr("hpo.compress.sweep_math._LITTLE", 1e-12)
        errors.append(swept(W, X.T @ X, start(W, outs, ins, bonds), 1).errors[1])
    assert errors[0] == pytest.approx(errors[1], rel=1e-4)


def test_cores_that_are_exact_stay_exact() -> None:
    W = torch.kron(matrix(4, 3, 1), matrix(6, 8, 2))
    found = swept(W, inputs(24).T @ inputs(24), start(W, (4, 6), (3, 8), (1,)), 2)
    assert found.errors[-1] < 1e-6
    assert torch.allclose(dense(found.cores), W, atol=1e-6)


def test_a_weight_of_zeros_is_its_own_answer() -> None:
    W = torch.zeros(6, 6)
    found = swept(W, inputs(6).T @ inputs(6), start(W, (2, 3), (2, 3), (2,)), 2)
    assert found.errors == (0.0, 0.0, 0.0)
    assert not dense(found.cores).any()


def test_no_sweeps_leave_the_matrix_as_it_was() -> None:
    W = matrix(24, 24, 1)
    cores = start(W, (4, 6), (3, 8), (4,))
    found = swept(W, inputs(24).T @ inputs(24), cores, 0)
    assert len(found.errors) == 1
    assert torch.allclose(dense(found.cores), dense(cores), atol=1e-12)


@pytest.mark.parametrize("broken", ["W", "G"])
def test_numbers_that_are_not_finite_are_refused_by_name(broken: str) -> None:
    W, G = matrix(6, 6, 1), inputs(6).T @ inputs(6)
    cores = start(W, (2, 3), (2, 3), (2,))
    (W if broken == "W" else G)[0, 0] = float("nan")
    with pytest.raises(NonFinite, match=r"layer\.7\.weight"):
        swept(W, G, cores, 1, "layer.7.weight")


@pytest.mark.parametrize(("outs", "ins", "bonds"), SITES)
def test_placing_a_core_is_linear_and_gathering_its_adjoint(
    outs: Factors, ins: Factors, bonds: Factors
) -> None:
    cores = start(matrix(prod(outs), prod(ins), 1), outs, ins, bonds)
    for k, core in enumerate(cores):
        around = surroundings(cores, k, k + 1)
        assert torch.allclose(around.placed(core), dense(cores), atol=1e-12)
        other = torch.randn(core.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
        M = matrix(prod(outs), prod(ins), 2)
        left = float((around.placed(other) * M).sum())
        assert left == pytest.approx(
            float((other * around.gathered(M, outs[k], ins[k])).sum()), rel=1e-9, abs=1e-9
        )


@pytest.mark.parametrize(("outs", "ins", "bonds"), SITES)
def test_centring_keeps_the_matrix_and_makes_the_surroundings_orthonormal(
    outs: Factors, ins: Factors, bonds: Factors
) -> None:
    cores = start(matrix(prod(outs), prod(ins), 1), outs, ins, bonds)
    for k in range(len(cores)):
        moved = centred(cores, k)
        assert torch.allclose(dense(moved), dense(cores), atol=1e-10)
        around = surroundings(moved, k, k + 1)
        left = around.left_pka.reshape(-1, moved[k].shape[0])
        right = around.right_bqm.reshape(moved[k].shape[3], -1)
        for square in (left.T @ left, right @ right.T):
            assert torch.allclose(square, torch.eye(len(square), dtype=torch.float64), atol=1e-9)


def test_the_gauge_of_a_pair_is_exact_where_the_gram_matrix_is_a_kronecker_product() -> None:
    left, right = inputs(3).T @ inputs(3), inputs(4).T @ inputs(4)
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    (to_left, from_left), (to_right, _) = gauges(Surroundings(one, one), torch.kron(left, right), 3, 4)
    scale = float(left.trace() * right.trace())
    assert torch.allclose(
        torch.kron(to_left @ to_left, to_right @ to_right) / scale, torch.kron(left, right), rtol=1e-6
    )
    assert torch.allclose(to_left @ from_left, torch.eye(3, dtype=torch.float64), atol=1e-6)


def test_every_bond_under_test_is_one_that_its_cut_can_carry() -> None:
    for outs, ins, bonds in SITES:
        assert all(bond < cap for bond, cap in zip(bonds, bond_caps(outs, ins), strict=True))
