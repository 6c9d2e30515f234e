"""Test the dataclasses whose methods are not compiled, beside those of the standard library."""

import copy
import dataclasses
import inspect
import pickle
from dataclasses import FrozenInstanceError, asdict, field, replace
from typing import Any, ClassVar

import pytest

from tilesync.values import dataclass

STANDARD: Any = dataclasses.dataclass
OURS: Any = dataclass


def make_class(decorator: Any, **options: bool) -> Any:
    """Make a dataclass with every kind of field."""

    class Example:
        """Example."""

        kind: ClassVar[str] = "example"
        number: int
        text: str = "none"
        items: list[int] = field(default_factory=list, hash=False)
        secret: str = field(default="", repr=False, compare=False)

    return decorator(**options)(Example)


@dataclass(frozen=True, slots=True)
class Slotted:
    """Frozen value with slots."""

    number: int
    text: str = "none"


@dataclass(frozen=True, slots=True)
class Derived(Slotted):
    """Frozen value with a field more."""

    more: int = 3


@dataclass(frozen=True)
class Described:
    """Value with a text of its own."""

    number: int

    def __repr__(self) -> str:
        return "described"


CALLS = [
    ((1,), {}),
    ((1, "a", [2], "b"), {}),
    ((), {"number": 1, "items": [2]}),
    ((1,), {"text": "a"}),
    ((), {}),
    ((1,), {"number": 1}),
    ((1,), {"unknown": 1}),
    ((1, "a", [2], "b", 5), {}),
]


def call(make: Any, args: Any, named: Any) -> Any:
    """Return the fields of an instance and its text, or the name of the error."""
    try:
        made = make(*args, **named)
    except TypeError:
        return "TypeError"
    return asdict(made), repr(made)


@pytest.mark.parametrize("options", [{}, {"frozen": True}, {"slots": True}, {"frozen": True, "slots": True}])
@pytest.mark.parametrize(("args", "named"), CALLS)
def test_arguments_are_accepted_and_refused_as_in_the_standard_library(options: Any, args: Any, named: Any) -> None:
    """The same calls succeed, with the same fields and texts, and the same calls raise TypeError."""
    assert call(make_class(OURS, **options), args, named) == call(make_class(STANDARD, **options), args, named)


@pytest.mark.parametrize("args", [(), (1,), (1, 2)])
def test_arguments_are_given_by_name_where_the_class_demands_it(args: Any) -> None:
    """`kw_only` refuses arguments by position."""
    ours, standard = (make_class(each, kw_only=True) for each in (OURS, STANDARD))
    assert call(ours, args, {"text": "a"}) == call(standard, args, {"text": "a"}) == "TypeError"
    assert call(ours, (), {"number": 1}) == call(standard, (), {"number": 1})


def test_each_instance_has_a_default_of_its_own() -> None:
    """A `default_factory` is called for each instance."""
    first, second = make_class(OURS)(1), make_class(OURS)(1)
    first.items.append(2)
    assert second.items == []


@pytest.mark.parametrize("decorator", [OURS, STANDARD])
def test_values_are_compared_by_their_fields(decorator: Any) -> None:
    """Equality, hashes and copies look at the fields that count, as in the standard library."""
    make = make_class(decorator, frozen=True)
    assert make(1, secret="a") == make(1, secret="b") != make(2)
    assert make(1) != make_class(decorator, frozen=True)(1), "another class"
    assert hash(make(1, items=[1])) == hash(make(1, items=[2]))
    assert replace(make(1), text="a") == make(1, "a")
    assert make_class(decorator).__hash__ is None
    assert make_class(decorator, eq=False)(1) != make_class(decorator, eq=False)(1)
    assert "Example(" not in repr(make_class(decorator, repr=False)(1))


@pytest.mark.parametrize("made", [Slotted(1), Derived(1, "a", 2), make_class(OURS, frozen=True)(1)])
def test_a_frozen_value_stays_as_it_is(made: Any) -> None:
    """Assigning and deleting a field raises FrozenInstanceError; other names are refused too."""
    before = asdict(made)
    with pytest.raises(FrozenInstanceError):
        made.number = 2
    with pytest.raises(FrozenInstanceError):
        made.other = 2
    with pytest.raises(FrozenInstanceError):
        del made.number
    assert asdict(made) == before


def test_a_value_that_is_not_frozen_changes() -> None:
    """Without `frozen`, fields can be assigned."""
    made = make_class(OURS)(1)
    made.number = 2
    assert made == make_class(OURS)(2) or made.number == 2


@pytest.mark.parametrize("made", [Slotted(1, "a"), Derived(1, "a", 2), Described(4)])
def test_values_go_to_other_processes(made: Any) -> None:
    """A value can be pickled and copied, with slots or without."""
    assert pickle.loads(pickle.dumps(made)) == made == copy.copy(made) == copy.deepcopy(made)


def test_methods_of_the_class_are_kept() -> None:
    """A method that the class defines is not replaced."""
    assert repr(Described(1)) == "described"
    assert Described(1) == Described(1) != Described(2)


def test_the_signature_names_the_fields() -> None:
    """`help` and notebooks show the fields, in the order in which they are given."""
    ours, standard = (inspect.signature(make_class(each)) for each in (OURS, STANDARD))
    assert [(name, each.kind) for name, each in ours.parameters.items()] == [
        (name, each.kind) for name, each in standard.parameters.items()
    ]
    assert ours.parameters["text"].default == "none"
    assert ours.parameters["number"].default is inspect.Parameter.empty
    assert inspect.signature(Derived).parameters.keys() == {"number", "text", "more"}


def test_classes_share_their_methods() -> None:
    """No method is compiled for a class: that is why these classes load fast."""
    methods = ["__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__"]
    assert all(getattr(Slotted, name) is getattr(Derived, name) for name in methods)
    assert all(name not in vars(Slotted) or vars(Slotted)[name] is vars(Derived)[name] for name in methods)
