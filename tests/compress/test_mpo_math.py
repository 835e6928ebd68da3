from math import prod

import numpy as np
import pytest
import tensorly
import torch
from tensorly.decomposition import tensor_train_matrix
from tensorly.tt_matrix import tt_matrix_to_tensor

from hpo.compress.layers import MpoLinear
from hpo.compress.mpo_math import balanced_cores, full_cores, share_lost, sliced
from hpo.compress.mpo_plan import bond_caps
from hpo.errors import NonFinite

SITES = [((4, 6), (3, 8)), ((2, 3, 4), (2, 3, 4)), ((2, 2, 2, 3), (2, 2, 3, 2))]


def matrix(outs: tuple[int, ...], ins: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(prod(outs), prod(ins), generator=generator, dtype=torch.float64)


def dense(cores: list[torch.Tensor]) -> torch.Tensor:
    return MpoLinear(cores, None, "rebuild").dense_weight().detach()


@pytest.mark.parametrize(("outs", "ins"), SITES)
def test_full_bonds_reproduce_the_matrix(outs: tuple[int, ...], ins: tuple[int, ...]) -> None:
    W = matrix(outs, ins)
    cores, spectra = full_cores(W, outs, ins, largest=10**6)
    assert torch.allclose(dense(cores), W, atol=1e-9)
    assert tuple(core.shape[3] for core in cores[:-1]) == bond_caps(outs, ins)
    assert len(spectra) == len(outs) - 1


def test_a_kronecker_product_has_bond_dimension_one() -> None:
    A, B = matrix((4,), (3,), 1), matrix((6,), (8,), 2)
    cores, spectra = full_cores(torch.kron(A, B), (4, 6), (3, 8), largest=100)
    assert torch.allclose(dense(sliced(cores, (1,))), torch.kron(A, B), atol=1e-10)
    assert spectra[0][1:].max().item() < 1e-6 * spectra[0][0].item()


@pytest.mark.parametrize(("outs", "ins"), SITES)
@pytest.mark.parametrize("bond", [1, 2, 3, 5])
def test_slicing_loses_no_more_than_the_tails_of_its_cuts(
    outs: tuple[int, ...], ins: tuple[int, ...], bond: int
) -> None:
    W = matrix(outs, ins, 3)
    cores, spectra = full_cores(W, outs, ins, largest=10**6)
    bonds = tuple(min(bond, cap) for cap in bond_caps(outs, ins))
    error = torch.linalg.norm(W - dense(sliced(cores, bonds))).item() ** 2
    bound = sum(float((s[r:] ** 2).sum()) for s, r in zip(spectra, bonds, strict=True))
    assert error <= bound * (1 + 1e-9) + 1e-12
    if len(outs) == 2:
        assert error == pytest.approx(bound, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("rank", [2, 4])
def test_truncation_is_as_good_as_tensorlys(rank: int) -> None:
    outs, ins = (4, 6), (3, 8)
    W = matrix(outs, ins, 4)
    cores, _ = full_cores(W, outs, ins, largest=10**6)
    ours = torch.linalg.norm(W - dense(sliced(cores, (rank,)))).item()
    tensorly.set_backend("numpy")
    oracle = tensor_train_matrix(W.numpy().reshape(*outs, *ins), [1, rank, 1])
    theirs = np.linalg.norm(W.numpy() - np.asarray(oracle.to_matrix()).reshape(W.shape))
    assert ours == pytest.approx(float(theirs), rel=1e-6)


@pytest.mark.parametrize(("outs", "ins"), SITES)
def test_chained_and_cached_contraction_equal_the_rebuilt_matrix(
    outs: tuple[int, ...], ins: tuple[int, ...]
) -> None:
    cores, _ = full_cores(matrix(outs, ins, 5), outs, ins, largest=3)
    bias = matrix((prod(outs),), (1,), 6)[:, 0]
    x = matrix((10,), ins, 7).reshape(2, 5, prod(ins))
    results = [MpoLinear(cores, bias, how)(x) for how in ("rebuild", "chain", "cached")]
    assert results[0].shape == (2, 5, prod(outs))
    assert torch.allclose(results[0], results[1], atol=1e-9)
    assert torch.allclose(results[0], results[2], atol=1e-9)


def test_balanced_cores_keep_the_matrix_and_share_the_norm() -> None:
    cores, _ = full_cores(matrix((4, 6), (3, 8)), (4, 6), (3, 8), largest=100)
    even = balanced_cores([cores[0] * 1e3, cores[1]])
    norms = [torch.linalg.norm(core).item() for core in even]
    assert norms[0] == pytest.approx(norms[1])
    assert torch.allclose(dense(even), dense([cores[0] * 1e3, cores[1]]))


@pytest.mark.parametrize(("outs", "ins"), SITES)
@pytest.mark.parametrize("bond", [1, 2, 4])
def test_the_share_lost_is_that_of_the_tails_of_every_unfolding(
    outs: tuple[int, ...], ins: tuple[int, ...], bond: int
) -> None:
    W = matrix(outs, ins, 8)
    bonds = tuple(min(bond, cap) for cap in bond_caps(outs, ins))
    sites = (
        W.numpy().reshape(*outs, *ins).transpose([a for k in range(len(outs)) for a in (k, len(outs) + k)])
    )
    lost = 0.0
    for k, kept in enumerate(bonds):
        rows = prod(outs[: k + 1]) * prod(ins[: k + 1])
        lost += float((np.linalg.svd(sites.reshape(rows, -1), compute_uv=False)[kept:] ** 2).sum())
    assert share_lost(W, outs, ins, bonds) == pytest.approx(lost / float((W**2).sum()), abs=1e-9)
    error = torch.linalg.norm(W - dense(sliced(full_cores(W, outs, ins, 10**6)[0], bonds))).item() ** 2
    assert error <= lost * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize(("outs", "ins"), SITES)
def test_tensorly_multiplies_our_cores_out_to_the_same_matrix(
    outs: tuple[int, ...], ins: tuple[int, ...]
) -> None:
    tensorly.set_backend("numpy")
    cores, _ = full_cores(matrix(outs, ins, 9), outs, ins, largest=4)
    whole = np.asarray(tt_matrix_to_tensor([core.numpy() for core in cores]))
    assert np.allclose(whole.reshape(prod(outs), prod(ins)), dense(cores).numpy(), atol=1e-10)


@pytest.mark.parametrize("cut", [1, 2])
def test_merged_contraction_equals_the_rebuilt_matrix_whatever_its_cut(cut: int) -> None:
    outs, ins = (2, 3, 4), (3, 2, 4)
    cores, _ = full_cores(matrix(outs, ins, 5), outs, ins, largest=3)
    x = matrix((10,), ins, 7)
    merged, rebuilt = (MpoLinear(cores, None, how, cut)(x) for how in ("merged", "rebuild"))
    assert torch.allclose(merged, rebuilt, atol=1e-9)


def test_a_weight_that_is_not_finite_is_refused_by_name() -> None:
    W = matrix((4, 6), (3, 8))
    W[1, 2] = float("inf")
    with pytest.raises(NonFinite, match=r"mlp\.up\.weight"):
        full_cores(W, (4, 6), (3, 8), 5, "mlp.up.weight")
