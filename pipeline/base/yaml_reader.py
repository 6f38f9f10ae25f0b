# SPDX-License-Identifier: GPL-3.0-or-later
"""The one reader of YAML: plain mappings, lists and scalars; anything ambiguous is refused.

A configuration decides who may release, so a person and the parser must understand it alike. With a
repeated key, a merge key or a tag they may not. (YAML 1.2.2, 3.2.1.3: the keys of a mapping are
unique; PyYAML takes the last one.) Aliases are accepted, as programs that write YAML use them, but
their values count each time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from pipeline.base.errors import UsageError
from pipeline.base.plain import plain

SIZE_LIMIT = 256 * 1024  # PyYAML takes five seconds for the worst document of this size
NUMBER_LIMIT = 20  # characters: the digits of 2**64
DEPTH_LIMIT = 20
VALUES_LIMIT = 200_000  # with aliases expanded; without aliases a document cannot have so many
MERGE = "tag:yaml.org,2002:merge"
NUMBER = "tag:yaml.org,2002:int"
FRACTION = "tag:yaml.org,2002:float"
SYNTAX = "is not YAML"
DIALECT = "is not YAML as it is read here"


class _Refused(yaml.MarkedYAMLError):
    """YAML that is valid, but refused here."""

    def __init__(self, place: Any, problem: str) -> None:
        super().__init__(problem=problem, problem_mark=place.start_mark)


class _Loader(yaml.SafeLoader):
    """Loads YAML, but keeps fractions as strings: 3.10 is a version, and not the same as 3.1."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._counts: dict[int, int] = {}  # number of values in a node, by its id()

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise _Refused(event, f"remove the tag {event.tag!r:.60}")
        if self._depth >= DEPTH_LIMIT:
            raise _Refused(event, f"lists and mappings more than {DEPTH_LIMIT} deep")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._counts:
                raise _Refused(event, "an alias stands inside of what it stands for")
        else:
            self._counts[id(node)] = count = 1 + sum(self._counts[id(n)] for n in _inner(node))
            if count > VALUES_LIMIT:
                raise _Refused(event, f"aliases stand for more than {VALUES_LIMIT} values")
        return node

    def construct_scalar(self, node: ScalarNode | MappingNode) -> Any:
        value = super().construct_scalar(node)
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise _Refused(node, "an escape stands for no character of text")
        return value

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        self._refuse_keys(node)
        return super().construct_mapping(node, deep=deep)

    def construct_object(self, node: Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002
        if node.tag == NUMBER and len(node.value) > NUMBER_LIMIT:
            raise _Refused(node, f"a number of {len(node.value)} characters is too long")
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, OverflowError) as error:
            raise _Refused(node, f"{node.value!r:.60} is not possible: {error}") from error

    def _refuse_keys(self, node: MappingNode) -> None:
        lines: dict[Any, int] = {}
        for place, _ in node.value:
            if place.tag == MERGE:
                raise _Refused(place, "write out what the merge key << brings")
            if not isinstance(place, ScalarNode):
                raise _Refused(place, "a key is a word")
            key = self.construct_object(place)
            if key in lines:
                first = f"first in line {lines[key]}; keep one of them"
                raise _Refused(place, f"the key {place.value!r:.80} stands twice, {first}")
            lines[key] = place.start_mark.line + 1


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, form) for tag, form in resolvers if tag != FRACTION]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _inner(node: Node | None) -> list[Node]:
    """Return the direct children of a node."""
    if isinstance(node, MappingNode):
        return [inner for pair in node.value for inner in pair]
    return node.value if isinstance(node, SequenceNode) else []


def parse_yaml(content: bytes, path: str) -> Any:
    """Return the one document in `content`, which has at most SIZE_LIMIT bytes.

    It consists of mappings, lists, strings, integers, booleans, null, dates and times; a fraction
    is a string. Raise UsageError, which names `path` and the line.
    """
    if len(content) > SIZE_LIMIT:
        raise UsageError(f"{path} is larger than {SIZE_LIMIT} bytes")
    try:
        loader = _Loader(content.decode())
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise _error(path, SYNTAX, error) from error
    try:
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else path
        kind = DIALECT if isinstance(error, _Refused) else SYNTAX
        raise _error(where, kind, error.problem or error.context) from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        # Raised by the scanner: an escape beyond Unicode, a huge number in a directive, nesting.
        raise _error(f"{path}:{loader.line + 1}", SYNTAX, error) from error
    finally:
        loader.dispose()


@dataclass(frozen=True)
class ValuePlace:
    """The place of a value in a document: the offsets of its start and end, and its column.

    Comments and empty lines after it are not part of it. `inner` are the values of a mapping.
    """

    start: int
    end: int
    column: int
    is_mapping: bool
    is_flow: bool  # flow style, in brackets
    inner: Mapping[str, "ValuePlace"] = field(default_factory=dict)


def places(content: bytes, path: str) -> ValuePlace:
    """Return the places of a document's values; raise UsageError as `parse_yaml` does."""
    parse_yaml(content, path)
    loader = _Loader(content.decode())
    try:
        return _place(loader.get_single_node())
    finally:
        loader.dispose()


def _place(node: Any) -> ValuePlace:
    is_mapping = isinstance(node, MappingNode)
    inner = {key.value: _place(value) for key, value in node.value} if is_mapping else {}
    is_flow, end = bool(getattr(node, "flow_style", False)), node.end_mark.index
    if not is_flow and not isinstance(node, ScalarNode) and node.value:
        last = node.value[-1]
        end = _place(last[1] if is_mapping else last).end
    start = node.start_mark
    return ValuePlace(start.index, end, start.column, is_mapping, is_flow, inner)


def _error(where: str, kind: str, why: object) -> UsageError:
    return UsageError(plain(f"{where} {kind}: {' '.join(str(why).split())}"))
