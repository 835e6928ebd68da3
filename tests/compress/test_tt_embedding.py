"""Embeddings as tensor trains in small random models: tied and untied, alone and with factorised layers."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpo.compress.applying import compressed
from hpo.compress.layer_plan import Dense
from hpo.compress.layers import KINDS, Compressed, TtEmbedding, TtHead
from hpo.compress.mpo_sites import balanced_sites
from hpo.compress.plan import Plan
from hpo.compress.planner import plan_of, preparations_of
from hpo.compress.profiling import Profiler
from hpo.compress.surgery import count_macs, shared_copy
from hpo.compress.surgery import replace as put
from hpo.compress.tt_embedding import TensorTrainEmbedding
from hpo.compress.tt_embedding_plan import TtEmbedding as TtPlan
from hpo.compress.tt_embedding_plan import TtTable, row_sites, with_bond
from hpo.errors import Unsupported
from hpo.measure.memory import Held
from hpo.models.dense import DenseModel
from hpo.space import Candidate, Value
from tests.compress import small

TIED = {"gpt2", "opt"}


def tied_llama() -> DenseModel:
    torch.manual_seed(1)
    module = small.llama(2, tied=True).eval().requires_grad_(False)
    return replace(small.dense_model("llama"), module=module, digest="test-llama-tied")


def candidate(**knobs: Any) -> Candidate:
    return Candidate.of(
        {"embed": "tt_embedding", **{f"embed.{name}": value for name, value in knobs.items()}}
    )


def planned(dense: DenseModel, asked: Candidate) -> tuple[Profiler, Plan]:
    profiler = Profiler(dense, small.corpus(), small.CONTEXT)
    return profiler, plan_of(profiler.profile(preparations_of(asked)), asked)


def applied(dense: DenseModel, **knobs: Any) -> tuple[Any, Plan]:
    asked = candidate(**knobs)
    profiler, plan = planned(dense, asked)
    return compressed(profiler, asked, plan), plan


def check_counts(model: nn.Module, plan: Plan, dense: DenseModel) -> None:
    small.logits(model)  # a table that is kept is built by the first forward
    held, before = Held.by(model), Held.by(dense.module)
    assert held.parameters == plan.parameters
    assert held.parameter_bytes + held.buffer_bytes - before.buffer_bytes == plan.weight_bytes
    assert count_macs(model, small.CONTEXT) == plan.prefill_macs


@pytest.mark.parametrize("contraction", ["rebuild", "chain", "cached"])
@pytest.mark.parametrize("weighting", ["none", "frequency"])
@pytest.mark.parametrize("family", list(small.FAMILIES))
def test_at_full_bonds_the_logits_are_the_dense_ones(family: str, weighting: str, contraction: str) -> None:
    dense = small.dense_model(family)
    asked = candidate(
        bond_dimension=1, sites=3, weighting=weighting, head="cores" if family not in TIED else "dense"
    )
    profiler, plan = planned(dense, asked)
    # Full cores hold more than the table, so no method plans them.
    full = with_bond(small.VOCABULARY, 32, 3, 10**6)
    embedding = TtPlan(
        table=full,
        tied=family in TIED,
        head=None if family in TIED else full,
        is_weighted=weighting == "frequency",
        contraction=contraction,  # type: ignore[arg-type] # of the list above
    )
    model = compressed(profiler, asked, small.by_hand(plan, plan.layers, embedding))
    expected = small.logits(dense.module)
    assert float((small.logits(model) - expected).norm() / expected.norm()) < 1e-4


@pytest.mark.parametrize(
    "knobs",
    [
        {"keep_ratio": 0.5},
        {"keep_ratio": 0.4, "sites": 2, "contraction": "chain"},
        {"keep_ratio": 0.6, "weighting": "none", "head": "cores"},
        {"bond_dimension": 6, "sites": 2, "head": "cores", "contraction": "chain"},
        {"bond_dimension": 5, "contraction": "cached"},
        {"bond_dimension": 5, "sites": 2, "contraction": "cached", "head": "cores"},
    ],
)
@pytest.mark.parametrize("family", ["llama", "tied_llama", "gpt2"])
def test_counts_are_those_of_the_model(family: str, knobs: dict[str, Any]) -> None:
    dense = tied_llama() if family == "tied_llama" else small.dense_model(family)
    model, plan = applied(dense, **knobs)
    assert plan.embedding is not None
    check_counts(model, plan, dense)
    kept = plan.embedding.costs.parameters / plan.embedding.dense_parameters
    assert kept <= knobs.get("keep_ratio", 1)
    assert plan.records()[0].parameters == plan.embedding.costs.parameters


def test_a_tied_output_layer_computes_with_the_cores_of_the_embedding() -> None:
    model, _ = applied(tied_llama(), keep_ratio=0.5)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert isinstance(embedding, TtEmbedding)
    assert isinstance(head, TtHead)
    assert list(head.parameters()) == []
    assert not any(name.startswith("lm_head") for name in model.state_dict())
    table = embedding(torch.arange(small.VOCABULARY))
    hidden = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(head(hidden), hidden @ table.T, rtol=1e-4, atol=1e-4)
    assert (embedding.num_embeddings, embedding.embedding_dim) == (small.VOCABULARY, 32)


def test_an_output_layer_of_its_own_stays_dense_unless_it_is_asked_for() -> None:
    llama = small.dense_model("llama")
    model, _ = applied(llama, keep_ratio=0.5)
    assert model.lm_head.weight is llama.module.get_parameter("lm_head.weight")
    model, plan = applied(llama, keep_ratio=0.5, head="cores")
    assert isinstance(model.lm_head, TtHead)
    assert isinstance(plan.embedding, TtPlan)
    first, second = model.get_input_embeddings().table, model.lm_head.rows()
    assert not torch.equal(first.whole(), second.whole())


@pytest.mark.parametrize("knob", ["dense", "cores"])
def test_what_becomes_of_a_tied_output_layer_is_no_question(knob: str) -> None:
    _, plan = applied(tied_llama(), keep_ratio=0.5, head=knob)
    assert isinstance(plan.embedding, TtPlan)
    assert plan.embedding.tied
    assert plan.embedding.head is None


def test_it_goes_with_factorised_layers() -> None:
    dense = tied_llama()
    values: dict[str, Value] = {"factorise": "whitened_svd", "factorise.keep_ratio": 0.5}
    asked = Candidate.of(values | dict(candidate(keep_ratio=0.5).values))
    profiler, plan = planned(dense, asked)
    model = compressed(profiler, asked, plan)
    check_counts(model, plan, dense)
    assert len({plan.hash, planned(dense, candidate(keep_ratio=0.5))[1].hash, "dense"}) == 3


def test_plans_of_other_weights_or_costs_have_other_hashes() -> None:
    dense = tied_llama()
    cases: list[dict[str, Any]] = [
        {"bond_dimension": 4},
        {"bond_dimension": 5},
        {"bond_dimension": 4, "sites": 2},
        {"bond_dimension": 4, "weighting": "none"},
        {"bond_dimension": 4, "contraction": "cached"},
    ]
    hashes = [planned(dense, candidate(**knobs))[1].hash for knobs in cases]
    assert len(set(hashes)) == len(cases)


def test_a_bond_that_saves_nothing_leaves_the_model_as_it_is() -> None:
    model, plan = applied(tied_llama(), bond_dimension=1000)
    assert plan.hash == "dense"
    assert isinstance(model.get_input_embeddings(), nn.Embedding)


def test_both_uses_of_the_cores_teach_them() -> None:
    model, _ = applied(tied_llama(), keep_ratio=0.5)
    factors = [p for m in model.modules() if isinstance(m, Compressed) for p in m.factors()]
    assert len(factors) == 3
    gradients = []
    for is_seen in (True, False):
        core = factors[0].requires_grad_(True)
        embedding = model.get_input_embeddings()
        hidden = embedding(torch.tensor([3])) if is_seen else torch.ones(1, 32)
        scores = model.get_output_embeddings()(hidden)
        (gradient,) = torch.autograd.grad(scores.sum() + hidden.sum() * is_seen, core)
        gradients.append(float(gradient.norm()))
    assert gradients[0] > 0
    assert gradients[1] > 0


def test_a_table_that_is_kept_follows_its_cores() -> None:
    model, _ = applied(tied_llama(), keep_ratio=0.5, contraction="cached")
    model = copy.deepcopy(model)
    before = small.logits(model)
    assert model.get_input_embeddings().table.cached_weight is not None
    with torch.no_grad():
        model.get_input_embeddings().table.cores[0].mul_(2)
    after = small.logits(model)
    assert not torch.allclose(after, before)
    model.get_input_embeddings().table.contraction = "rebuild"
    torch.testing.assert_close(small.logits(model), after, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("copied", [copy.deepcopy, shared_copy])
def test_the_output_layer_of_a_copy_reads_the_copy(copied: Any) -> None:
    model, _ = applied(tied_llama(), keep_ratio=0.5)
    other = copied(model)
    assert other.lm_head.rows() is other.get_input_embeddings().table
    assert other.lm_head.rows() is not model.get_input_embeddings().table
    torch.testing.assert_close(small.logits(other), small.logits(model), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["tied_llama", "llama", "gpt2", "opt", "neox"])
def test_a_model_put_together_from_sizes_and_a_state_dict_is_the_same(family: str) -> None:
    """As an exported one is loaded; transformers then asks for the ties of the dense model."""
    dense = tied_llama() if family == "tied_llama" else small.dense_model(family)
    head = "dense" if family in ("tied_llama", *TIED) else "cores"
    model, _ = applied(dense, keep_ratio=0.5, head=head)
    fresh: Any = copy.deepcopy(dense.module)
    for name, module in model.named_modules():
        if isinstance(module, Compressed):
            put(fresh, name, KINDS[module.kind].empty(module.size(), fresh.get_submodule(name)))
    fresh.load_state_dict(model.state_dict(), strict=True)
    for module in fresh.modules():
        if isinstance(module, Compressed):
            module.connect(fresh)
    fresh.tie_weights()
    fresh.tie_weights(missing_keys=set(), recompute_mapping=False)
    torch.testing.assert_close(small.logits(fresh), small.logits(model), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["tied_llama", "llama"])
def test_multiplied_out_it_is_the_plain_model_again(family: str) -> None:
    dense = tied_llama() if family == "tied_llama" else small.dense_model(family)
    model, _ = applied(dense, keep_ratio=0.5, head="cores")
    plain: Any = shared_copy(model)
    for name, module in model.named_modules():
        if isinstance(module, Compressed):
            put(plain, name, module.as_dense(dense.module.get_submodule(name)))
    plain.tie_weights()
    assert isinstance(plain.lm_head, nn.Linear)
    assert (plain.lm_head.weight is plain.get_input_embeddings().weight) == (family == "tied_llama")
    torch.testing.assert_close(small.logits(plain), small.logits(model), rtol=1e-3, atol=1e-3)


def test_text_can_be_generated() -> None:
    model, _ = applied(tied_llama(), keep_ratio=0.5)
    prompt = torch.tensor([[1, 2, 3]])
    ids = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=4,
        do_sample=False,
        pad_token_id=0,
    )
    expected = prompt
    for _ in range(4):
        with torch.no_grad():
            logits: Tensor = model(input_ids=expected, use_cache=False).logits
        expected = torch.cat([expected, logits[:, -1:].argmax(-1)], dim=1)
    assert ids.tolist()[0][: expected.shape[1]] == expected.tolist()[0][: ids.shape[1]]


def test_a_kronecker_product_is_reproduced_with_bonds_of_one() -> None:
    dense = tied_llama()
    rows, columns = row_sites(small.VOCABULARY, 2), balanced_sites(32, 2)
    generator = torch.Generator().manual_seed(0)
    factors = [torch.randn(rows[k], columns[k], generator=generator) for k in range(2)]
    with torch.no_grad():
        dense.module.get_parameter("model.embed_tokens.weight").copy_(torch.kron(*factors))
    dense = replace(dense, digest="test-llama-kronecker")
    model, _ = applied(dense, bond_dimension=1, sites=2, weighting="none")
    expected = small.logits(dense.module)
    assert float((small.logits(model) - expected).norm() / expected.norm()) < 1e-4


class Scaled(nn.Embedding):
    """An embedding that does more, as that of Gemma."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def test_an_embedding_that_does_more_than_look_up_is_refused() -> None:
    dense = tied_llama()
    table = dense.module.get_parameter("model.embed_tokens.weight")
    scaled = Scaled(len(table), 32, _weight=table).requires_grad_(False)
    put(dense.module, "model.embed_tokens", scaled)
    with pytest.raises(Unsupported, match=r"Scaled|no plain token embedding"):
        planned(replace(dense, digest="test-llama-scaled"), candidate(keep_ratio=0.5))


def test_a_model_without_a_plain_embedding_is_refused() -> None:
    profile = Profiler(small.dense_model("llama"), small.corpus(), small.CONTEXT).profile([])
    bare = replace(profile, architecture=replace(profile.architecture, embedding=None))
    with pytest.raises(Unsupported, match="no plain token embedding"):
        plan_of(bare, candidate(bond_dimension=4))
    shape = profile.architecture.embedding
    assert shape is not None
    odd = replace(profile, architecture=replace(profile.architecture, embedding=replace(shape, head="")))
    with pytest.raises(Unsupported, match="allowed: head: dense"):
        plan_of(odd, candidate(bond_dimension=4, head="cores"))


def test_a_plan_of_another_kind_is_refused() -> None:
    dense = tied_llama()
    asked = candidate(bond_dimension=4)
    profiler, plan = planned(dense, asked)
    method, materials = TensorTrainEmbedding(), profiler.materials(preparations_of(asked))
    foreign: Any = Dense(64, 32)
    with pytest.raises(Unsupported, match="dense in a plan of tensor trains"):
        method.apply(shared_copy(dense.module), replace(plan, embedding=foreign), materials)


@pytest.mark.parametrize(
    ("knobs", "named"),
    [
        ({}, "exactly one of keep_ratio, bond_dimension"),
        ({"keep_ratio": 0.5, "bond_dimension": 3}, "exactly one"),
        ({"keep_ratio": 0.5, "sites": 4}, "sites"),
        ({"keep_ratio": 0.5, "head": "tied"}, "head"),
        ({"keep_ratio": 0.001}, "its cores need"),
    ],
)
def test_wrong_knobs_are_refused(knobs: dict[str, Any], named: str) -> None:
    dense = tied_llama()
    needed = preparations_of(candidate(keep_ratio=0.5))
    profile = Profiler(dense, small.corpus(), small.CONTEXT).profile(needed)
    with pytest.raises(Unsupported, match=named):
        plan_of(profile, candidate(**knobs))


def test_the_table_of_a_plan_is_that_of_the_module() -> None:
    model, plan = applied(tied_llama(), keep_ratio=0.5)
    assert isinstance(plan.embedding, TtPlan)
    table: TtTable = plan.embedding.table
    assert tuple(tuple(core.shape) for core in model.get_input_embeddings().table.cores) == table.links
