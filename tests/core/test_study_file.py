"""Study files: lines in messages, spaces by name, path and inline, what is no study, what is shipped."""

from importlib.resources import files
from pathlib import Path

import pytest

from hpo.errors import InvalidStudy, NotFound
from hpo.run.launch import check_study
from hpo.space import Choice, Float
from hpo.study_file import locate, parse, question, read_study, shipped
from hpo.trial import Limit, Objective
from tests.core.study_files import SPACE, STUDY, Write, refusal

# What a study says of itself


def test_a_study_is_read_from_a_path_with_its_space_beside_it(write: Write) -> None:
    study = read_study(write(STUDY))
    assert study.name == "mine"
    assert study.objectives[1] == Objective(metric="weight_memory", limit=Limit(value=1e6))
    assert study.space.parameters == {
        "factorise": Choice(choices=("svd", "mpo")),
        "factorise.keep_ratio": Float(low=0.1, high=0.9, when={"factorise": ("svd",)}),
    }


def test_a_space_is_found_by_name_by_path_and_inline(write: Write, folder: Path) -> None:
    by_path = read_study(write(STUDY))
    absolute = read_study(write(STUDY.replace("space: small", f"space: {folder}/small.yaml")))
    inline = SPACE.partition("parameters:\n")[2]
    written_out = read_study(write(STUDY.replace("space: small\n", f"space:\n{inline}")))
    assert by_path == absolute == written_out
    assert by_path.hash == written_out.hash
    named = read_study(write(STUDY.replace("space: small", "space: svd")))
    assert set(named.space.parameters) == {"factorise", "factorise.keep_ratio", "factorise.allocation"}


def test_a_study_without_a_name_is_called_like_its_file(write: Write) -> None:
    assert read_study(write(STUDY.replace("name: mine\n", ""))).name == "mine"


def test_a_name_given_on_the_command_line_wins(write: Write) -> None:
    assert read_study(write(STUDY), name="other").name == "other"


def test_a_bad_name_given_on_the_command_line_is_not_blamed_on_the_file(write: Write) -> None:
    error = refusal(write(STUDY), name="a b")
    assert error.message == "--name: the name is 'a b'"


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", "0.1e-2", "+1e-3", "0.001"])
def test_a_number_with_an_exponent_is_a_number_with_or_without_a_point(text: str) -> None:
    assert parse("x.yaml", f"a: {text}").data == {"a": 0.001}


@pytest.mark.parametrize("text", ["e3", "1e", "1-3", "1e3x", "v1e3"])
def test_what_only_looks_like_an_exponent_stays_a_word(text: str) -> None:
    assert parse("x.yaml", f"a: {text}").data == {"a": text}


# Lines


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("version: 1", "version: 2", 1, "version is 2"),
        ("name: mine", "nmae: mine", 2, "unknown key 'nmae'"),
        ("model: reference", "model:\n  sorce: x", 4, "model.sorce: unknown key 'sorce' (and 1 more)"),
        ("  - perplexity", "  - perplexiti", 5, "objectives.0.metric: unknown metric 'perplexiti'"),
        ("limit: 1e6", "limti: 1", 6, "objectives.1.limti: unknown key 'limti'"),
        ("- {metric: weight_memory, limit: 1e6}", "-\n    metric: nll\n    limit: {}", 8,
         "objectives.1.limit: give either value or ratio_to_dense"),
        ("space: small", "space: {}", 7, "the search space is empty"),
        ("space: small", "space:\n  heal: {type: int, low: 3, high: 1}", 8,
         "space.heal: low (3) is above high (1)"),
        ("space: small", "space:\n  heal:\n    type: nit", 9, "space.heal.type: parameter 'heal' has the "
         "unknown type 'nit'"),
        ("space: small", "space: smal", 7, "there is no space 'smal'"),
        ("trials: 5", "trials: 0", 9, "budget.trials is 0"),
        ("trials: 5", "trails: 5", 9, "budget.trails: unknown key 'trails'"),
        ("  trials: 5", "  {}", 8, "budget: give at least one of trials, hours, gpu_hours, joules"),
        ("budget:\n  trials: 5\n", "", 1, "the key 'budget' is missing"),
    ],
)  # fmt: skip
def test_an_error_begins_with_file_and_line(
    write: Write, old: str, new: str, line: int, message: str
) -> None:
    assert old in STUDY
    path = write(STUDY.replace(old, new))
    assert refusal(path).message == f"{path}:{line}: {message}"


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("version: 1", "version: 2", 1, "a search space needs version: 1"),
        ("version: 1\n", "", 1, "a search space needs version: 1"),
        ("question", "qestion", 2, "unknown key 'qestion'"),
        ("low: 1e-1", "low: 2", 7, "parameters.factorise.keep_ratio: low (2) is above high (0.9)"),
        ("low: 1e-1", "lwo: 2", 9, "parameters.factorise.keep_ratio.lwo: unknown key 'lwo'"),
        ("type: float", "type: flaot", 8, "the unknown type 'flaot'"),
        ("{factorise: svd}", "{factorise: sdv}", 11, "conditional on factorise='sdv'"),
        ("{factorise: svd}", "{factorize: svd}", 11, "the unknown parameter 'factorize'"),
        ("parameters:", "parameters: 3\nquestion_: ", 6, "unknown key 'question_'"),
    ],
)
def test_an_error_in_a_space_file_names_that_file_and_its_line(
    write: Write, folder: Path, old: str, new: str, line: int, message: str
) -> None:
    assert old in SPACE
    path = write(STUDY)
    space = folder / "small.yaml"
    space.write_text(SPACE.replace(old, new, 1))
    error = refusal(path)
    assert error.message.startswith(f"{space}:{line}: ")
    assert message in error.message


def test_a_space_file_without_parameters_says_so(write: Write, folder: Path) -> None:
    path = write(STUDY)
    (folder / "small.yaml").write_text("version: 1\n")
    assert refusal(path).message == f"{folder}/small.yaml:1: the key 'parameters' is missing"


def test_a_space_file_with_empty_parameters_points_at_them(write: Write, folder: Path) -> None:
    path = write(STUDY)
    (folder / "small.yaml").write_text("version: 1\nparameters: {}\n")
    assert refusal(path).message == f"{folder}/small.yaml:2: parameters: the search space is empty"


def test_an_error_found_later_gets_the_line_of_the_file_it_is_about(write: Write, folder: Path) -> None:
    path = write(STUDY)
    in_study = locate(InvalidStudy("too few", "more", ("budget", "trials")), path)
    assert in_study.message == f"{path}:9: budget.trials: too few"
    in_space = locate(InvalidStudy("no such knob", "", ("space", "factorise.keep_ratio")), path)
    assert in_space.message == f"{folder}/small.yaml:7: parameters.factorise.keep_ratio: no such knob"


def test_a_place_that_is_not_in_the_file_has_the_line_of_its_nearest_parent() -> None:
    document = parse("x.yaml", "a: 1\nb:\n  c: 2\n")
    assert document.line(("b", "c")) == 3
    assert document.line(("b", "z", 0)) == 2
    assert document.line(("z",)) == 1


def test_what_an_alias_repeats_has_the_line_of_the_key_that_repeats_it() -> None:
    document = parse("x.yaml", "a: &a\n  low: 1\nb: *a\n")
    assert document.data == {"a": {"low": 1}, "b": {"low": 1}}
    assert document.line(("a", "low")) == 2
    assert document.line(("b", "low")) == 3


# What is no study file at all


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.yaml:1: the file is empty"),
        ("# nothing\n", "mine.yaml:1: the file is empty"),
        ("- a\n- b\n", "mine.yaml:1: the file is a list"),
        ("hello", "mine.yaml:1: the file is a str"),
        ("a: 1\nb: [1\nc: 2\n", "mine.yaml:3: this is no YAML: "),
        ("a:\n\t- b\n", "mine.yaml:2: this is no YAML: found character '\\t'"),
        ("a: 1\n---\nb: 2\n", "mine.yaml:2: this is no YAML: but found another document"),
        ("a: 1\nb: 2026-99-99\n", "mine.yaml:2: this is no YAML: '2026-99-99' is no timestamp"),
        ("a: 1\nb: !!timestamp x\n", "mine.yaml:2: this is no YAML: 'x' is no timestamp"),
        ("a: 1\nb: !!bool x\n", "mine.yaml:2: this is no YAML: 'x' is no bool"),
        ("a: 1\nb: !!int ''\n", "mine.yaml:2: this is no YAML: '' is no int"),
        ("a: 1\nb: 1" + ":59" * 200 + ".0\n", "mine.yaml:2: this is no YAML: '1:59"),
        ("a: 1\nb: !!python/object:os.system x\n", "mine.yaml:2: this is no YAML: could not determine"),
        ("a: *b\n", "mine.yaml:1: this is no YAML: found undefined alias"),
        ("a: \x01\n", "mine.yaml:1: this is no YAML: "),
        ("a: " + "[" * 3000, "mine.yaml:1: this is nested too deeply"),
        ("a: 1\nb: 2\na: 3\n", "mine.yaml:3: the key 'a' stands twice"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", "mine.yaml:4: the key 'b' stands twice"),
        ("a:\n  - b: 1\n    b: 3\n", "mine.yaml:3: the key 'b' stands twice"),
        ("x: &a [*a]\n", "mine.yaml:1: an alias in this file stands for what it stands in"),
        ("a: 1\n3: 1\n", "mine.yaml:1: unknown key 'a'"),
        ("version: 1\n3: 1\n", "mine.yaml:2: unknown key '3'"),
    ],
)
def test_a_file_that_is_no_mapping_of_plain_values_is_refused_with_its_line(
    write: Write, text: str, message: str
) -> None:
    assert message in refusal(write(text)).message


def test_a_key_that_stands_twice_names_both_lines(write: Write) -> None:
    error = refusal(write("a: 1\nb: 2\na: 3\n"))
    assert error.hint == "first on line 1"


def test_aliases_that_multiply_are_read_in_no_time(write: Write) -> None:
    rows = [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60)]
    error = refusal(write(STUDY + "a0: &a0 [x, x]\n" + "".join(rows)))
    assert "stands for more than 100,000 values" in error.message


def test_a_file_that_is_not_utf_8_is_refused(folder: Path) -> None:
    path = folder / "mine.yaml"
    path.write_bytes(STUDY.encode() + b"question: \xff\n")
    error = refusal(str(path))
    assert error.message.startswith(f"{path} cannot be read: 'utf-8' codec")
    assert error.hint == "it must be a UTF-8 text file"


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(folder: Path) -> None:
    path = folder / "mine.yaml"
    text = STUDY.replace("small", "svd").replace("\n", "\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_study(str(path)).name == "mine"
    path.write_bytes(text.replace("trials: 5", "trials: 0").encode())
    assert refusal(str(path)).message.startswith(f"{path}:9: ")


def test_a_file_that_may_not_be_read_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    path = write(STUDY)
    monkeypatch.setattr(Path, "read_text", forbidden)
    assert refusal(path).message == f"{path} cannot be read: [Errno 13] Permission denied"


# Names


def test_an_unknown_study_is_refused_with_the_nearest_spelling() -> None:
    with pytest.raises(NotFound, match="there is no study 'quikstart'") as caught:
        read_study("quikstart")
    assert caught.value.hint.startswith("did you mean 'quickstart'?")
    assert caught.value.hint.endswith("or a path to a .yaml file")


def test_an_unknown_space_is_refused_with_the_nearest_spelling_and_its_line(write: Write) -> None:
    path = write(STUDY.replace("space: small", "space: low_rnk"))
    error = refusal(path)
    assert error.message == f"{path}:7: there is no space 'low_rnk'"
    assert error.hint.startswith("did you mean 'low_rank'? allowed: ")


@pytest.mark.parametrize("reference", ["nowhere/mine.yaml", "mine.yml"])
def test_a_path_to_nothing_is_refused(reference: str) -> None:
    with pytest.raises(NotFound, match="there is no file"):
        read_study(reference)


@pytest.mark.parametrize("reference", ["", ".", "/", "a\0b", "../studies/quickstart", "x" * 5000])
def test_a_reference_that_no_file_can_have_is_refused(reference: str) -> None:
    with pytest.raises(NotFound):
        read_study(reference)


def test_a_space_of_an_impossible_name_is_refused_at_its_line(write: Write) -> None:
    path = write(STUDY.replace("space: small", f"space: {'x' * 300}"))
    assert refusal(path).message.startswith(f"{path}:7: space: ")


@pytest.mark.parametrize("name", shipped("study"))
def test_every_shipped_study_loads_and_says_what_it_asks(name: str) -> None:
    study = read_study(name)
    assert study.name == name
    assert study.question.strip().endswith("?")
    assert question("study", name).endswith("?")
    check_study(study)


@pytest.mark.parametrize("name", shipped("space"))
def test_every_shipped_space_loads_and_says_what_it_asks(name: str) -> None:
    study = read_study("quickstart", [f"space={name}", "search.first=[]"])
    assert question("space", name).endswith("?")
    check_study(study)
    assert len({study.space.from_unit([u] * len(study.space)).key for u in (0.1, 0.5, 0.9)}) == 3


@pytest.mark.parametrize("folder_name", ["studies", "search_spaces"])
def test_every_shipped_file_opens_with_version_and_carries_its_question(folder_name: str) -> None:
    texts = {
        file.name: file.read_text(encoding="utf-8")
        for file in files(folder_name).iterdir()
        if file.name.endswith(".yaml")
    }
    assert texts
    for name, text in texts.items():
        document = parse(name, text)
        assert document.data["version"] == 1, name
        assert document.line(("version",)) == 1, name
        assert document.line(("question",)) <= 3, name
        assert "# Tried on" in text or "# Needs no" in text, f"{name} does not say where it was tried"


def test_names_of_what_is_shipped_are_sorted() -> None:
    assert list(shipped("space")) == sorted(shipped("space"))
    assert "quickstart" in shipped("study")
