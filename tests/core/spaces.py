"""Random search spaces, conditional ones included, for property tests."""

from hypothesis import strategies as st

from hpo.space import Candidate, Choice, Float, Int, SearchSpace, Value

words = st.text(alphabet="abcdefgh", min_size=1, max_size=6)


@st.composite
def floats(draw: st.DrawFn) -> Float:
    """A linear, stepped or logarithmic range; the span is not lost in 10 digits of the ends."""
    kind = draw(st.sampled_from(["linear", "step", "log", "point"]))
    if kind == "log":
        low = draw(st.floats(1e-9, 1e3))
        return Float(low=low, high=low * draw(st.floats(1.01, 1e6)), log=True)
    low = round(draw(st.floats(-1000, 1000)), 3)
    if kind == "point":
        return Float(low=low, high=low)
    if kind == "step":
        step = draw(st.sampled_from([0.05, 0.1, 0.25, 1.0, 3.0]))
        return Float(low=low, high=low + draw(st.floats(0.01, 20)), step=step)
    return Float(low=low, high=low + draw(st.floats(0.01, 1e6)))


@st.composite
def ints(draw: st.DrawFn) -> Int:
    log = draw(st.booleans())
    low = draw(st.integers(1, 300) if log else st.integers(-300, 300))
    high = low + draw(st.integers(0, 5000))
    return Int(low=low, high=high, log=log) if log else Int(low=low, high=high, step=draw(st.integers(1, 7)))


@st.composite
def choices(draw: st.DrawFn) -> Choice:
    values: st.SearchStrategy[Value] = st.one_of(words, st.integers(-9, 9), st.booleans(), st.floats(-9, 9))
    return Choice(choices=tuple(draw(st.lists(values, min_size=1, max_size=5, unique=True))))


parameters: st.SearchStrategy[Float | Int | Choice] = st.one_of(floats(), ints(), choices())


@st.composite
def spaces(draw: st.DrawFn, conditional: bool = True) -> SearchSpace:
    """One to six parameters, in any order, some conditional on values that their parents do take."""
    drawn: dict[str, Float | Int | Choice] = {}
    for i in range(draw(st.integers(1, 6))):
        parameter = draw(parameters)
        if conditional and drawn:
            parents = draw(st.lists(st.sampled_from(sorted(drawn)), max_size=2, unique=True))
            when = {parent: draw(some_values(drawn[parent])) for parent in parents}
            parameter = parameter.model_copy(update={"when": when})
        drawn[f"p{i}"] = parameter
    return SearchSpace(dict(draw(st.permutations(list(drawn.items())))))


def some_values(parameter: Float | Int | Choice) -> st.SearchStrategy[tuple[Value, ...]]:
    """One to three of the values a parameter may take."""
    values: st.SearchStrategy[Value] = st.floats(0, 1).map(parameter.from_unit)
    return st.lists(values, min_size=1, max_size=3).map(tuple)


@st.composite
def drawn(draw: st.DrawFn, conditional: bool = True) -> tuple[SearchSpace, Candidate]:
    """A space and a candidate out of it."""
    space = draw(spaces(conditional))
    return space, space.from_unit(draw(units(space)))


def units(space: SearchSpace) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(0, 1), min_size=len(space), max_size=len(space))
