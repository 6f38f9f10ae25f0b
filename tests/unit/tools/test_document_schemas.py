# SPDX-License-Identifier: GPL-3.0-or-later
"""The schemas of published documents are those of their readers, and fit what 0.1 and 1.0 write."""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import jsonschema
import pytest

from pipeline.base import dsse
from pipeline.documents.fields import Fields
from pipeline.documents.json_form import json_bytes, parse_json
from pipeline.documents.kit_control import control_bytes
from pipeline.documents.malformed import Malformed
from pipeline.documents.upgrade_file import UpgradeFile
from pipeline.kits.install.format import open_kit
from tests.unit.documents import test_kit_control, test_upgrade_description, test_verdict
from tests.unit.documents.test_release_documents import INDEX
from tests.unit.farm import test_job
from tests.unit.test_from_0_1 import DIFFERED, KIT, MATCHED, PUBLIC
from tools.document_schemas import DOCUMENTS, FOLDER, schemas


def statement(path: str) -> Any:
    return dsse.unverified_payload(json.loads((PUBLIC / path).read_bytes()))


def control() -> Any:
    with (PUBLIC / "3.2" / KIT).open("rb") as stream:
        return parse_json(control_bytes(open_kit(stream, KIT).control))


def upgrade(tag: str) -> Any:
    envelope = UpgradeFile.of((PUBLIC / "upgrades" / f"{tag}.json").read_bytes()).description
    return parse_json(envelope.payload)


def of_0_1() -> Iterator[tuple[str, Any]]:
    """Give documents that 0.1 has written, with the names of their schemas."""
    yield "index", json.loads((PUBLIC / "index.json").read_bytes())
    yield "job", json.loads((MATCHED.environment("alpha") / "job.json").read_bytes())
    for verdict in (MATCHED.verdict_json, DIFFERED.verdict_json, PUBLIC / "3.2" / "verdict.json"):
        yield "verdict", json.loads(verdict.read_bytes())
    for path in ("3.2/statements/alpha.json", "3.2/statements/beta.json"):
        yield "envelope", json.loads((PUBLIC / path).read_bytes())
        yield "statement", statement(path)
    for tag in ("3.1", "3.2"):
        yield "envelope", json.loads((PUBLIC / "upgrades" / f"{tag}.json").read_bytes())
        yield "upgrade", upgrade(tag)
    yield "kit-control", control()


def of_now() -> Iterator[tuple[str, Any]]:
    """Give documents as this version writes them."""
    yield "index", parse_json(json_bytes(INDEX.document()))
    yield "job", parse_json(test_job.WRITTEN)
    yield "verdict", parse_json(json_bytes(test_verdict.DIFFER.document()))
    yield "kit-control", parse_json(test_kit_control.WRITTEN)
    yield "upgrade", parse_json(test_upgrade_description.WRITTEN)
    yield "renewal", parse_json(test_upgrade_description.RENEWAL)


NOW = list(of_now())
WRITTEN = [*of_0_1(), *NOW]
FORMS = {
    name: jsonschema.validators.validator_for(schema)(schema)
    for name in DOCUMENTS
    for schema in [json.loads((FOLDER / f"{name}.schema.json").read_bytes())]
}
ODD: tuple[Any, ...] = (None, -1, True, "x", "\x00", "x" * 30_000, [], {})


def test_the_schemas_are_those_of_the_readers() -> None:
    """If not: `python3 -m tools.document_schemas`."""
    assert {path.name: path.read_bytes() for path in FOLDER.iterdir()} == schemas()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_they_are_schemas_and_each_has_an_example(name: str) -> None:
    FORMS[name].check_schema(FORMS[name].schema)
    assert name in {kind for kind, _ in WRITTEN}


@pytest.mark.parametrize(("name", "document"), WRITTEN)
def test_what_was_written_is_valid(name: str, document: Any) -> None:
    FORMS[name].validate(document)


@pytest.mark.parametrize(("name", "document"), WRITTEN)
def test_what_is_broken_is_not(name: str, document: Any) -> None:
    broken = [{**document, field: {"odd": -1}} for field in document.keys() - {"renewal"}]
    broken += [{k: v for k, v in document.items() if k != field} for field in document]
    broken += [{**document, "more": 1}] * (name != "envelope")
    optional = {"envelope": ["renewal"], "verdict": ["expected", "only_expected"]}.get(name, [])
    for each in broken:
        if not any(field not in each for field in optional if field in document):
            with pytest.raises(jsonschema.ValidationError):
                FORMS[name].validate(each)


@pytest.mark.parametrize(("name", "document"), NOW)
def test_a_schema_refuses_nothing_that_the_reader_takes(name: str, document: Any) -> None:
    refused = 0
    for changed in changes(document):
        try:
            DOCUMENTS[name][1](Fields(changed))
        except Malformed:
            refused += not FORMS[name].is_valid(changed)
        else:
            FORMS[name].validate(changed)
    assert refused > 5 * len(document)


def changes(document: Any) -> Iterator[Any]:
    """Give copies with one value that is odd."""
    for path in places(document):
        for value in ODD:
            made = inner = deepcopy(document)
            for step in path[:-1]:
                inner = inner[step]
            inner[path[-1]] = value
            yield made


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for name, each in inner:
        yield (*path, name)
        if isinstance(each, dict | list):
            yield from places(each, (*path, name))
