# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes docs/reference/configuration.md: every key with its type, limits and default.

Run `python3 -m tools.configuration_page` after a change to `pipeline/farm/config.py`.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline.farm.config import Environment, Farm, Image

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "configuration.md"
FILES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("farm.yaml", Farm),
    ("environment.yaml", Environment),
    ("image.yaml", Image),
)
LIMITS = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "minProperties")
HEAD = """# Every key of the configuration

Made from the models in `pipeline/farm/config.py`; what the keys mean is in
[farm.yaml, environment.yaml, image.yaml](farm-yaml.md). A key without a default must be given.
"""


def page() -> str:
    """Return the text of the page."""
    parts = [HEAD]
    for name, model in FILES:
        schema = model.model_json_schema()
        parts += _table(f"`{name}`", schema)
        for inner, part in sorted(schema.get("$defs", {}).items()):
            parts += _table(f"`{name}`: {inner.strip('_')}", part)
    return "\n".join(parts)


def _table(title: str, schema: Mapping[str, Any]) -> Iterator[str]:
    if "properties" not in schema:
        return
    needed = schema.get("required", [])
    yield f"## {title}\n\n| key | type | default |\n|---|---|---|"
    for key, field in schema["properties"].items():
        default = "" if key in needed else _code(json.dumps(field.get("default", {})))
        yield f"| `{key}` | {_type(field)} | {default} |"
    yield ""


def _type(field: Mapping[str, Any]) -> str:
    """Describe a schema in words, as `a list (maxItems 100) of text`."""
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2].strip("_")
    choices = field.get("anyOf") or field.get("oneOf")
    if choices:
        return " or ".join(map(_type, choices))
    if "enum" in field or "const" in field:
        return " or ".join(_code(str(v)) for v in field.get("enum", [field.get("const")]))
    limits = [f"{name} {field[name]}" for name in LIMITS if name in field]
    if "pattern" in field:
        limits.append(_code(field["pattern"]))
    kind = str(field.get("format") or field.get("type", "anything"))
    words = f"{kind} ({', '.join(limits)})" if limits else kind
    inner = field.get("items") or field.get("additionalProperties")
    return f"{words} of {_type(inner)}" if isinstance(inner, dict) and inner else words


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"


if __name__ == "__main__":
    PAGE.write_text(page())
