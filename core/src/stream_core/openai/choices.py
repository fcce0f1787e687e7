"""Which values a field may have that has only a few, for the error that names them. Pure."""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import inspect

_STEP: Final = re.compile(r"\[[^\]]*\]|[^.\[]+")


def choices(kind: type[msgspec.Struct], path: str) -> list[str]:
    """List them.

    Args:
        kind: of the whole body.
        path: of the field, as msgspec's errors have it, without the `$.`: "messages[2].role".
    """
    found = list(_alternatives(inspect.type_info(kind)))
    for step in _STEP.findall(path):
        found = [deeper for each in found for deeper in _below(each, step)]
    return [str(value) for each in found if isinstance(each, inspect.LiteralType) for value in each.values]


def _below(type_: inspect.Type, step: str) -> Iterator[inspect.Type]:
    match type_:
        case inspect.ListType() if step.startswith("["):
            yield from _alternatives(type_.item_type)
        case inspect.StructType():
            yield from (
                deeper for field in type_.fields if field.encode_name == step for deeper in _alternatives(field.type)
            )
        case _:
            pass


def _alternatives(type_: Any) -> Iterator[inspect.Type]:
    if isinstance(type_, inspect.UnionType):
        for each in type_.types:
            yield from _alternatives(each)
    else:
        yield type_
