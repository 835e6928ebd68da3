import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hpo.compress.correction_math import weighted_error
from hpo.compress.sparse_math import activations, largest, largest_of_each, magnitudes, thinned, updated
from hpo.compress.sparse_pattern import NOfM, Pattern, Unstructured
from hpo.compress.sparsifier import ByActivation, BySurgery, Sparsifier
from hpo.errors import NonFinite, Unsupported

PATTERNS = [Unstructured(0.5), Unstructured(0.37), Unstructured(0.8, by_row=True), NOfM(2, 4), NOfM(1, 4)]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gram(columns: int, seed: int = 1) -> Tensor:
    """Of inputs that go together, as those of a model do."""
    inputs = drawn(4 * columns, columns, seed=seed) @ (torch.eye(columns) + 0.5 * drawn(columns, columns))
    return inputs.T @ inputs


def test_the_largest_of_each_line_stay() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0], [0.5, 0.7, 0.6]])
    assert largest_of_each(scores, 2).tolist() == [[True, False, True], [False, True, True]]


def test_of_equal_scores_the_first_stay_and_the_count_is_exact() -> None:
    scores = torch.tensor([[1.0, 1.0, 1.0, 1.0], [2.0, 1.0, 1.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    mask = largest_of_each(scores, 3)
    assert mask.tolist() == [[True, True, True, False], [True, True, False, True], [True, True, True, False]]


def test_none_or_all_may_stay() -> None:
    assert largest_of_each(torch.ones(2, 3), 0).sum() == 0
    assert largest_of_each(torch.ones(2, 3), 3).sum() == 6


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(broken: float) -> None:
    with pytest.raises(NonFinite, match="NaN or infinite"):
        largest_of_each(torch.tensor([[1.0, broken]]), 1)


def test_two_of_four_neighbours_stay_in_every_row() -> None:
    rows = [[4.0, 3.0, 2.0, 1.0, 5.0, 6.0, 7.0, 8.0], [0.0, 0.0, 1.0, 0.0, 9.0, 1.0, 9.0, 2.0]]
    scores = torch.tensor(rows)
    kept = largest(scores, NOfM(2, 4)).int()
    assert kept.tolist() == [[1, 1, 0, 0, 0, 0, 1, 1], [1, 0, 1, 0, 1, 0, 1, 0]]


def test_a_matrix_is_compared_as_a_whole_or_by_row() -> None:
    scores = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert largest(scores, Unstructured(0.5)).tolist() == [[False, False], [True, True]]
    assert largest(scores, Unstructured(0.5, by_row=True)).tolist() == [[False, True], [False, True]]


def test_a_row_that_groups_do_not_divide_is_refused() -> None:
    for work in (lambda W: largest(W, NOfM(2, 4)), lambda W: updated(W, gram(6), NOfM(2, 4), 0.01, 128)):
        with pytest.raises(Unsupported, match="2:4: groups of 4 do not divide a row of 6"):
            work(drawn(3, 6))


def test_activations_choose_other_weights_than_magnitudes() -> None:
    # The second input is ten times as large: its small weight does more than the first one's large weight.
    W = torch.tensor([[1.0, -0.5], [2.0, 0.25]])
    G = torch.diag(torch.tensor([1.0, 100.0]))
    assert activations(W, G).tolist() == [[1.0, 5.0], [2.0, 2.5]]
    by_row = Unstructured(0.5, by_row=True)
    assert largest(magnitudes(W), by_row).tolist() == [[True, False], [True, False]]
    assert largest(activations(W, G), by_row).tolist() == [[False, True], [False, True]]


def test_what_stays_of_a_thinned_matrix_is_unchanged() -> None:
    W = drawn(6, 8)
    found = thinned(W, largest(magnitudes(W), Unstructured(0.5)))
    assert torch.equal(found.weight[found.mask], W[found.mask])
    assert (found.weight[~found.mask] == 0).all()


def test_the_second_weight_makes_up_for_the_first_as_worked_by_hand() -> None:
    # Without damping H = G = [[2, 1], [1, 4]], and H^-1 = [[4, -1], [-1, 2]] / 7 = U'U with
    # u11 = sqrt(4/7), u12 = -1/7 / u11, u22 = sqrt(2/7 - u12^2) = 1/2. The loss of (1, 3) costs
    # 1 / u11^2 = 1.75 or 9 / u22^2 = 36, so the first goes, and the second moves by -u12 / u11 = 1/4: what
    # least squares says, g12 / g22 times the weight that goes.
    G = torch.tensor([[2.0, 1.0], [1.0, 4.0]])
    found = updated(torch.tensor([[1.0, 3.0]]), G, Unstructured(0.5), damping=1e-12, slice_columns=2)
    torch.testing.assert_close(found.weight, torch.tensor([[0.0, 3.25]], dtype=torch.float64))
    assert found.mask.tolist() == [[False, True]]


def test_nothing_makes_up_for_the_last_weight() -> None:
    G = torch.tensor([[2.0, 1.0], [1.0, 4.0]])
    found = updated(torch.tensor([[3.0, 0.5]]), G, Unstructured(0.5), damping=1e-12, slice_columns=2)
    assert found.weight.tolist() == [[3.0, 0.0]]


def test_damping_weakens_what_is_made_up() -> None:
    # H = G + 0.5 * 3 on the diagonal = [[3.5, 1], [1, 5.5]]: the second weight moves by 1 / 5.5.
    G = torch.tensor([[2.0, 1.0], [1.0, 4.0]])
    found = updated(torch.tensor([[1.0, 3.0]]), G, Unstructured(0.5), damping=0.5, slice_columns=2)
    torch.testing.assert_close(found.weight, torch.tensor([[0.0, 3 + 1 / 5.5]], dtype=torch.float64))


def test_a_slice_that_begins_later_sees_what_was_made_up() -> None:
    # Slices of one column over two rows: in each column one weight goes. In the first that of the first
    # row, whose second weight grows from 1.0 to 2.0 and stays; as it was it would have gone.
    G = torch.tensor([[4.0, 2.0], [2.0, 4.0]])
    W = torch.tensor([[2.0, 1.0], [3.0, 1.5]])
    found = updated(W, G, Unstructured(0.5), damping=1e-12, slice_columns=1)
    assert found.mask.tolist() == [[False, True], [True, False]]
    torch.testing.assert_close(found.weight, torch.tensor([[0.0, 2.0], [3.0, 0.0]], dtype=torch.float64))


def test_weights_of_inputs_that_never_come_go_first_and_change_nothing() -> None:
    G = gram(6)
    G[2], G[:, 2] = 0, 0
    W = drawn(4, 6)
    W[:, 2] = 50.0
    found = updated(W, G, Unstructured(0.25), damping=0.01, slice_columns=128)
    assert (found.weight[:, 2] == 0).all()
    rest = [0, 1, 3, 4, 5]
    alone = updated(W[:, rest], G[rest][:, rest], Unstructured(0.1), damping=0.01 * 5 / 6, slice_columns=128)
    torch.testing.assert_close(found.weight[:, rest], alone.weight)


def test_all_inputs_may_be_zero() -> None:
    found = updated(drawn(4, 8), torch.zeros(8, 8), NOfM(2, 4), damping=0.01, slice_columns=128)
    assert torch.isfinite(found.weight).all()
    assert found.mask.sum() == 16


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_making_up_for_zeros_costs_less_than_leaving_them(pattern: Pattern) -> None:
    W, G = drawn(24, 64), gram(64)
    plain = thinned(W, largest(magnitudes(W), pattern))
    wanda = thinned(W, largest(activations(W, G), pattern))
    surgery = updated(W, G, pattern, damping=0.01, slice_columns=16)
    errors = [weighted_error(W - found.weight, G) for found in (surgery, wanda, plain)]
    assert errors[0] < min(errors[1:])


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 9),
    groups=st.integers(1, 9),
    sparsity=st.floats(0, 0.9999),
    slice_columns=st.integers(1, 40),
    distinct=st.booleans(),
)
def test_exactly_as_many_weights_stay_as_the_pattern_says(
    rows: int, groups: int, sparsity: float, slice_columns: int, distinct: bool
) -> None:
    columns = 4 * groups
    W = drawn(rows, columns) if distinct else torch.randint(-1, 2, (rows, columns)).double()
    G = gram(columns)
    for pattern in (Unstructured(sparsity), Unstructured(sparsity, by_row=True), NOfM(2, 4), NOfM(1, 4)):
        count = pattern.non_zeros(rows, columns)
        assert 0 < count <= rows * columns
        by_score = thinned(W, largest(magnitudes(W), pattern))
        for found in (by_score, updated(W, G, pattern, damping=0.01, slice_columns=slice_columns)):
            assert found.mask.sum() == count
            assert (found.weight[~found.mask] == 0).all()
            if isinstance(pattern, NOfM):
                assert (found.mask.reshape(rows, -1, 4).sum(-1) == pattern.kept).all()
            elif pattern.by_row:
                assert (found.mask.sum(1) == count // rows).all()


@pytest.mark.parametrize("which", ["weight", "Gram matrix"])
def test_what_is_not_finite_is_refused_by_name(which: str) -> None:
    W, G = drawn(4, 8), gram(8)
    (W if which == "weight" else G)[0, 0] = float("nan")
    with pytest.raises(NonFinite, match=f"the {which} holds NaN"):
        updated(W, G, Unstructured(0.5), damping=0.01, slice_columns=128)


@pytest.mark.parametrize("sparsifier", [ByActivation(), BySurgery(0.01, 8)], ids=lambda one: one.key)
def test_without_inputs_all_of_them_count_alike(sparsifier: Sparsifier) -> None:
    W = drawn(6, 16)
    found = sparsifier.thin(W, None, NOfM(2, 4))
    assert torch.equal(found.mask, largest(magnitudes(W), NOfM(2, 4)))
    torch.testing.assert_close(found.weight, torch.where(found.mask, W, 0))
