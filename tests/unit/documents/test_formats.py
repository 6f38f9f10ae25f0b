# SPDX-License-Identifier: GPL-3.0-or-later
"""Documents of a later Twinbuild: refused by name, with what to do about it.

The message names the format that was found and the one that is read here. What only shows a run
(`show`, `runs`, the report) shows what it can read, as it does of damaged documents.
"""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import (
    InfrastructureFailed,
    InputsUnverified,
    SignatureInvalid,
    UsageError,
)
from pipeline.base.files import read_json, write_json
from pipeline.documents.fields import Fields
from pipeline.documents.formats import LaterFormat, check_format, refuse_later
from pipeline.documents.json_form import json_bytes
from pipeline.documents.malformed import Malformed
from pipeline.documents.upgrade_description import read_description
from pipeline.documents.upgrade_renewal import read_renewal
from pipeline.documents.ustar import ustar_header
from pipeline.farm.run import Request, Run
from pipeline.farm.run_documents import read_inputs, read_source, read_verdict
from pipeline.inputs import lock_file
from pipeline.kits.install import failure
from pipeline.kits.install.format import open_kit
from pipeline.machines import trees
from pipeline.published import published
from pipeline.release.statements import check_statement

LOCK = "Format: {}\nImage: mini\nArchitecture: amd64\nRequest-SHA256: " + "a" * 64 + "\n"


def of_run(reader: Callable[[Run], object]) -> Callable[[str, Path], object]:
    def read(format_: str, folder: Path) -> object:
        run = Run(folder)
        for path in (run.source_json, run.inputs_json, run.verdict_json):
            path.parent.mkdir(exist_ok=True)
            write_json(path, {"format": format_})
        return reader(run)

    return read


def a_statement(format_: str, _: Path) -> object:
    definition = {"buildType": format_}
    predicate = {"buildDefinition": definition, "runDetails": {}}
    types = {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://slsa.dev/provenance/v1",
    }
    return check_statement({**types, "predicate": predicate})


def member(name: str, content: bytes) -> bytes:
    """Return a member of a kit."""
    return ustar_header(name, len(content), 0) + content.ljust(-(-len(content) // 512) * 512, b"\0")


def a_kits_format(format_: str, _: Path) -> object:
    return open_kit(io.BytesIO(member("FORMAT", f"{format_}\n".encode())), "kit")


def a_kits_control(format_: str, _: Path) -> object:
    begin = member("FORMAT", b"twinbuild-kit/1\n")
    control = member("control.json", json_bytes({"format": format_}))
    return open_kit(io.BytesIO(begin + control), "kit")


REQUEST = {"image": "mini", "commit": "HEAD", "environments": ["alpha", "beta"]}
# The format that is read here, the reader, and the error of one that is later.
READERS: dict[str, tuple[str, Callable[[str, Path], object], type[Exception]]] = {
    "run.json": (
        "twinbuild-run/1",
        lambda f, _: Request.of({**REQUEST, "format": f}),
        UsageError,
    ),
    "source.json": ("twinbuild-source/1", of_run(read_source), UsageError),
    "inputs.json": ("twinbuild-inputs/1", of_run(read_inputs), UsageError),
    "verdict.json": ("twinbuild-verdict/1", of_run(read_verdict), UsageError),
    "job of a release": (
        "twinbuild-job/1",
        lambda f, _: published.describe("1.0", {"format": f}, {}),
        InputsUnverified,
    ),
    "lock": (
        "twinbuild-lock/1",
        lambda f, _: lock_file.load(LOCK.format(f).encode()),
        InputsUnverified,
    ),
    "index.json": (
        "twinbuild-releases/1",
        lambda f, _: published.read_index(json.dumps({"format": f, "releases": []}).encode(), "x"),
        InputsUnverified,
    ),
    "FORMAT of a kit": ("twinbuild-kit/1", a_kits_format, failure.InputsUnverified),
    "control.json of a kit": ("twinbuild-kit/1", a_kits_control, failure.InputsUnverified),
    "upgrade description": (
        "twinbuild-upgrade/2",
        lambda f, _: read_description(json_bytes({"format": f})),
        LaterFormat,
    ),
    "renewal": (
        "twinbuild-renewal/1",
        lambda f, _: read_renewal(json_bytes({"format": f})),
        LaterFormat,
    ),
    "statement": ("https://twinbuild.invalid/build/v1", a_statement, SignatureInvalid),
}


@pytest.mark.parametrize("name", READERS)
def test_a_later_format_is_refused_by_name(name: str, tmp_path: Path) -> None:
    known, read, error = READERS[name]
    later = f"{known[:-1]}{int(known[-1]) + 1}"
    with pytest.raises(error) as caught:
        read(later, tmp_path)
    message = str(caught.value)
    assert type(caught.value) is error
    assert re.search(rf"{re.escape(later)}\b", message), message
    assert re.search(rf"{re.escape(known)}\b", message), message
    assert "later Twinbuild" in message
    assert "update this one" in message
    assert "again" not in message
    assert "anew" not in message
    assert "\n" not in message


def test_a_run_of_0_1_has_no_format_in_its_request_and_is_read() -> None:
    assert Request.of(REQUEST) == Request.of({**REQUEST, "format": "twinbuild-run/1"})


def test_a_request_of_an_unknown_format_is_refused() -> None:
    with pytest.raises(UsageError, match="format is 'twinbuild-x/1', not twinbuild-run/1"):
        Request.of({**REQUEST, "format": "twinbuild-x/1"})


def test_kept_trees_of_a_later_format_are_not_used() -> None:
    document = {"format": "twinbuild-trees/1", "layers": []}
    assert trees._Index.model_validate(document).layers == []
    with pytest.raises(ValueError, match="twinbuild-trees/1"):
        trees._Index.model_validate({**document, "format": "twinbuild-trees/2"})


@pytest.mark.parametrize("known", ["twinbuild-source/1", ""])
def test_a_json_document_of_a_later_format(known: str, tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    write_json(path, {"format": "twinbuild-source/2"})
    if known:
        with pytest.raises(InfrastructureFailed, match=r"later Twinbuild.*source/1; update this"):
            read_json(path, failure=InfrastructureFailed, known=known)
    else:
        assert read_json(path, failure=InfrastructureFailed) == {"format": "twinbuild-source/2"}


@pytest.mark.parametrize("found", ["twinbuild-x/2", "twinbuild-x/1"])
def test_of_several_formats_each_is_read(found: str) -> None:
    assert check_format(found, "twinbuild-x/2", "twinbuild-x/1") == found


@pytest.mark.parametrize(
    "found",
    [
        None,
        1,
        [],
        "",
        "twinbuild-x/0",
        "twinbuild-x/01",
        "twinbuild-x/1 ",
        "twinbuild-y/3",
        "twinbuild-x/" + "9" * 5000,
        "twinbuild-x/\u00b2",
    ],
)
def test_what_is_no_later_format_is_malformed(found: Any) -> None:
    refuse_later(found, "twinbuild-x/1")
    with pytest.raises(Malformed, match="not twinbuild-x/1") as caught:
        check_format(found, "twinbuild-x/1")
    assert not isinstance(caught.value, LaterFormat)
    assert len(str(caught.value)) < 200


def test_a_field_named_format_is_judged_so_as_well() -> None:
    fields = Fields(json.loads('{"format": "twinbuild-x/3"}'))
    with pytest.raises(LaterFormat, match="twinbuild-x/3, written by a later"):
        fields.format("twinbuild-x/1", "twinbuild-x/2")
