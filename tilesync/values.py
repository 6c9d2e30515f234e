"""Value classes: `dataclass` as that of the standard library, without compiling the methods of each class.

The standard library writes and compiles up to seven methods for a class when its module is loaded: 0.8 ms for a frozen
class, a quarter of the time in which a command started. Here all classes share the same methods, which read the fields
of the class: 0.08 ms for a class, and some microseconds more for an instance. Classes of which there is one instance
for each file take the standard library's.

What differs besides: `init=False` of a field is not supported, `__post_init__` is not called, and a class of the
standard library's `dataclass` cannot be both frozen and derived from one of these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls: type[T] | None = None, /, **options: bool) -> Any:
        """Make a class a dataclass. `options`: frozen, eq, repr, slots and kw_only, as in the standard library."""

        def decorate(cls: type[T]) -> type[T]:
            for name, method in _list_methods(**options):
                if name not in cls.__dict__:
                    setattr(cls, name, method)
            layout = {name: options.get(name, False) for name in ("slots", "kw_only")}
            return dataclasses.dataclass(init=False, repr=False, eq=False, **layout)(cls)

        return decorate if cls is None else decorate(cls)


def _list_methods(
    *,
    frozen: bool = False,
    eq: bool = True,
    repr: bool = True,  # noqa: A002 - the name that the standard library uses
    slots: bool = False,
    kw_only: bool = False,
) -> Iterator[tuple[str, object]]:
    """Yield the methods of a class by name. Slots and the order of arguments do not matter to them."""
    yield "__init__", _set_fields
    yield "__signature__", _FieldSignature()
    if repr:
        yield "__repr__", _format_fields
    if eq:
        yield "__eq__", _equals
        yield "__hash__", _hash_fields if frozen else None  # None: not hashable
    if frozen:
        yield "__setattr__", _refuse_assignment
        yield "__delattr__", _refuse_deletion
        yield "__getstate__", _list_values  # to pickle a class with slots
        yield "__setstate__", _restore_values


def _set_fields(self: Any, /, *args: object, **named: object) -> None:
    """Set each field to its argument, or its default."""
    kind = type(self)
    if len(args) > len(kind.__match_args__):
        raise TypeError(f"{kind.__name__} takes {len(kind.__match_args__)} positional arguments, not {len(args)}")
    for name, value in zip(kind.__match_args__, args, strict=False):
        if name in named:
            raise TypeError(f"{kind.__name__} got multiple values for argument {name!r}")
        named[name] = value
    for field in dataclasses.fields(self):
        if field.name in named:
            value = named.pop(field.name)
        elif field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            raise TypeError(f"{kind.__name__} is missing the argument {field.name!r}")
        object.__setattr__(self, field.name, value)
    if named:
        raise TypeError(f"{kind.__name__} got an unexpected argument {next(iter(named))!r}")


def _format_fields(self: Any) -> str:
    shown = (f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _equals(self: Any, other: Any) -> Any:
    if type(other) is not type(self):
        return NotImplemented
    names = [field.name for field in dataclasses.fields(self) if field.compare]
    return [getattr(self, name) for name in names] == [getattr(other, name) for name in names]


def _hash_fields(self: Any) -> int:
    hashed = (
        getattr(self, field.name)
        for field in dataclasses.fields(self)
        if (field.compare if field.hash is None else field.hash)
    )
    return hash(tuple(hashed))


def _refuse_assignment(self: object, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_deletion(self: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _list_values(self: Any) -> list[object]:
    return [getattr(self, field.name) for field in dataclasses.fields(self)]


def _restore_values(self: Any, values: list[object]) -> None:
    for field, value in zip(dataclasses.fields(self), values, strict=True):
        object.__setattr__(self, field.name, value)


class _FieldSignature:
    """Signature of the class for `help` and notebooks, made when it is looked at."""

    def __get__(self, instance: object, owner: Any) -> Any:
        from inspect import Parameter, Signature

        def parameter(field: dataclasses.Field[Any]) -> Parameter:
            is_required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            return Parameter(
                field.name,
                Parameter.KEYWORD_ONLY if field.kw_only else Parameter.POSITIONAL_OR_KEYWORD,
                default=Parameter.empty if is_required else field.default,
                annotation=field.type,
            )

        parameters = [parameter(field) for field in dataclasses.fields(owner)]
        return Signature(sorted(parameters, key=lambda parameter: parameter.kind))
