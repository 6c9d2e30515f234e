"""Extension of griffe: the `dataclass` of `tilesync.values` is documented as the standard library's."""

from typing import Any

import griffe


class ValueClasses(griffe.Extension):
    """Names the decorator of each dataclass as the standard library does, before griffe looks for it."""

    def on_class_instance(self, *, cls: griffe.Class, **_: Any) -> None:
        """Rename the decorator, and label the class."""
        for decorator in cls.decorators:
            value = decorator.value
            name = value.function if isinstance(value, griffe.ExprCall) else value
            if isinstance(name, griffe.ExprName) and name.canonical_path == "tilesync.values.dataclass":
                name.name, name.parent = "dataclasses.dataclass", None
                cls.labels.add("dataclass")
