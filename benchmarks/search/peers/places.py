"""Parameters for packages that know numbers and ranges only: a choice, or a number in steps, by its place.

Packages differ in what they hold for one value (1, 1.0 and True) and in how they count steps; whole
numbers from 0 mean the same to all of them.
"""

from collections.abc import Mapping

from hpo.space import Candidate, Choice, Float, Int, SearchSpace, Value

Parameter = Float | Int | Choice


def by_place(parameter: Parameter) -> bool:
    """Whether a parameter is known by the place of its value rather than by the value itself."""
    if isinstance(parameter, Choice) or parameter.count == 1:
        return True
    return not parameter.log and parameter.count is not None


def place(parameter: Parameter, value: Value) -> Value:
    """Return a value as the package knows it."""
    if not by_place(parameter):
        return value
    count = parameter.count or 1
    return min(int(parameter.to_unit(value) * count), count - 1)


def value(parameter: Parameter, known: Value) -> Value:
    """Return what the package knows as a value of the parameter; the inverse of `place`."""
    if by_place(parameter):
        return parameter.from_unit((int(known) + 0.5) / (parameter.count or 1))
    if isinstance(parameter, Int):
        return int(known)
    return parameter.from_unit(parameter.to_unit(float(known)))  # with the digits that the space writes


def places(space: SearchSpace, candidate: Candidate) -> dict[str, Value]:
    """Return the values of a candidate of the space as the package knows them."""
    return {name: place(space.parameters[name], known) for name, known in candidate.items}


def candidate(space: SearchSpace, known: Mapping[str, Value]) -> Candidate:
    """Return the candidate of what the package knows; what is not active is dropped.

    Raises:
        InvalidStudy: an active parameter has no value, or one from outside its range.
    """
    return space.candidate({n: value(p, known[n]) for n, p in space.parameters.items() if n in known})
