"""Any text at all, as a study or as an override: it reads, or it is refused by an error of ours."""

from importlib.resources import files
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpo.errors import HpoError
from hpo.study import Study
from hpo.study_file import read_study

QUICKSTART = files("studies").joinpath("quickstart.yaml").read_text(encoding="utf-8")


def _reads_or_refuses(reference: str, *overrides: str) -> bool:
    """Whether all is well: it is refused by an error of ours, or it reads and survives its document."""
    try:
        study = read_study(reference, overrides)
    except HpoError:
        return True
    return Study.from_mapping(study.to_mapping()) == study


def _written(folder: Path, text: str) -> str:
    path = folder / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return str(path)


shared_folder = settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@shared_folder
@given(
    text=st.text(st.characters(codec=None), max_size=60)
    | st.text("ab:-[]{}&*!?#'\"|>%@`,\n\t 01.~<=", max_size=60)
)
def test_any_text_either_reads_or_is_refused(folder: Path, text: str) -> None:
    assert _reads_or_refuses(_written(folder, text))


LINES = QUICKSTART.splitlines()
SNIPPETS = (
    "", "null", "[]", "{}", "true", "-1", "0", ".nan", ".inf", "1e999", "'", "- x", "*a", "&a", "!!set", "\t",
    "2026-01-01", "{1: 2}", "{~: 1}", "{type: [int]}", "{type: int, low: 1, high: 0}", "[[1], {a: b}]", "? a",
    "9" * 400, "x" * 300, "!!binary aGk=", "<<: 3", "\ud800", '"\\ud800"', "space", "reference",
)  # fmt: skip


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """Return the quickstart with lines lost, doubled, swapped, cut, and values and letters replaced."""
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 4))):
        i = draw(st.integers(0, len(lines) - 1)) if lines else 0
        kind = draw(st.sampled_from(["lose", "double", "move", "cut", "value", "letter", "indent"]))
        if not lines:
            break
        line = lines[i]
        place = draw(st.integers(0, len(line)))
        snippet = draw(st.sampled_from(SNIPPETS))
        if kind == "lose":
            del lines[i]
        elif kind == "double":
            lines.insert(i, line)
        elif kind == "move":
            lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(i))
        elif kind == "cut":
            lines[i] = line[:place]
        elif kind == "value":
            lines[i] = line.partition(":")[0] + ": " + snippet
        elif kind == "letter":
            lines[i] = line[:place] + snippet + line[place + 1 :]
        else:
            lines[i] = "  " + line
    return "\n".join(lines)


@shared_folder
@given(text=mutations())
def test_a_damaged_study_either_reads_or_is_refused(folder: Path, text: str) -> None:
    assert _reads_or_refuses(_written(folder, text))


@shared_folder
@given(
    override=st.builds(
        "{}={}".format,
        st.sampled_from(
            ["budget", "budget.trials", "model", "data.calibration", "objectives.0.limit", "name"]
        )
        | st.sampled_from(
            ["space", "space.heal", "space.factorise.rank", "space.factorise.rank.low", "run.x"]
        ),
        st.sampled_from(SNIPPETS) | st.text(max_size=8),
    )
)
def test_any_override_either_reads_or_is_refused(override: str) -> None:
    assert _reads_or_refuses("quickstart", override)
