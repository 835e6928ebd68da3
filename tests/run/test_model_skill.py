"""How good the search's model is goes into the store while a study runs."""

from hpo.skill import Skill
from hpo.store.store import Store
from hpo.store.values import EventKind
from tests.run import benches
from tests.run.conftest import coordinate, in_process


def test_the_model_is_judged_whenever_the_study_has_grown_by_a_tenth(store: Store) -> None:
    study = benches.study(20, search={"sampler": "bayesian", "initial": 4})
    coordinate(store, study, in_process(study))
    events = [e for e in store.events("toy") if e.kind is EventKind.MODEL]
    counts = [event.payload["skills"][0]["trials"] for event in events]
    assert counts == sorted(counts)
    assert 5 <= counts[0] < counts[-1] <= 20
    assert len(events) <= 12
    (skill,) = store.skills("toy")
    assert skill == Skill.from_mapping(events[-1].payload["skills"][0])
    assert skill.metric == "perplexity", "bytes are known exactly"
    assert skill.error < 0.3, "a parabola is learnt easily"


def test_a_search_without_a_model_leaves_nothing_to_say(store: Store) -> None:
    study = benches.study(8)
    coordinate(store, study, in_process(study))
    assert store.skills("toy") == ()
