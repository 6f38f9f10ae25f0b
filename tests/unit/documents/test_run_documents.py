# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents of a run: each is read as it was written, and what is malformed is named."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from pipeline.documents.inputs import Inputs
from pipeline.documents.job import Job
from pipeline.documents.json_form import parse_json
from pipeline.documents.kit_plan import KitPlan
from pipeline.documents.machine import Settings
from pipeline.documents.malformed import Malformed
from pipeline.documents.source import Source
from pipeline.documents.timings import Timings
from tests import machine_settings
from tests.unit.farm.test_job import INPUTS, SOURCE, WRITTEN

JOB = parse_json(WRITTEN)
PACKAGE: dict[str, object] = {
    "name": "xz",
    "version": "1:2",
    "architecture": "all",
    "file": "xz_1%3a2_all.deb",
    "size": 9,
    "sha256": "2" * 64,
    "used_by": ["builder", "image"],
}
WHOLE = {**INPUTS, "packages": [PACKAGE]}
TIMINGS: dict[str, Any] = {"steps": {"20-bootstrap": 98.2}, "ledger": 1.4, "by_hand": {}}
KIT_PLAN: dict[str, Any] = {
    "earlier": {"version": "3.1", "ledger": "/a b/\udcff", "partition": "/p"},
    "later": {
        "image": "mini",
        "architecture": "amd64",
        "version": "3.3",
        "epoch": 9,
        "compression": "fast",
        "ledger": "/l",
        "partition": "/p",
        "tree": "/t",
        "files": "/f",
    },
    "kit": "/k",
    "work": "/w",
    "processors": 2,
    "proven": False,
}
MAY_BE_NEGATIVE = ("clock_offset_days", "clock_offset_minutes")
READERS: list[tuple[Callable[[Any], Any], dict[str, Any]]] = [
    (Source.of, SOURCE),
    (Source.of, {**SOURCE, "tag": None}),
    (Inputs.of, WHOLE),
    (Inputs.of, {**INPUTS, "local": None, "snapshot": "3.3"}),
    (Job.of, JOB),
    (Job.of, {**JOB, "local": None}),
    (Timings.of, TIMINGS),
    (Settings.of, machine_settings.DOCUMENT),
    (KitPlan.of, KIT_PLAN),
]


@pytest.mark.parametrize(("read", "document"), READERS)
def test_it_is_written_as_it_was_read(read: Callable[[Any], Any], document: dict[str, Any]) -> None:
    assert read(document).document() == document


@pytest.mark.parametrize(("read", "document"), READERS)
def test_every_field_is_needed_and_checked(
    read: Callable[[Any], Any], document: dict[str, Any]
) -> None:
    with pytest.raises(Malformed, match="more does not belong there"):
        read({**document, "more": 1})
    for name in document:
        with pytest.raises(Malformed, match=f"{name} is missing"):
            read({key: value for key, value in document.items() if key != name})
        negative = -(2**20) if name in MAY_BE_NEGATIVE else -1
        for odd in (negative, "\x00", ["\x00"], {"x": "y"}):
            with pytest.raises(Malformed, match=f"^{name}"):
                read({**document, name: odd})


def changed(document: dict[str, Any], value: object, *path: Any) -> dict[str, Any]:
    whole: Any = deepcopy(document)
    inner = whole
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return dict(whole)


@pytest.mark.parametrize(
    ("path", "odd", "where"),
    [
        (("kits", 0, "from"), "../3.1", "kits[0].from"),
        (("kits", 1, "image_sha256"), "E" * 64, "kits[1].image_sha256"),
        (("local", "sources", 1, "dsc"), "../x.dsc", "local.sources[1].dsc"),
        (("local", "sources", 1, "files", 0, "name"), ".x", "local.sources[1].files[0].name"),
        (("local", "packages", 0, "name"), "-x", "local.packages[0].name"),
        (("local", "packages", 1, "file"), "a/b.deb", "local.packages[1].file"),
        (("local", "packages", 1, "wanted"), 1, "local.packages[1].wanted"),
        (("expected_differences", 0, "until"), "soon", "expected_differences[0].until"),
        (("image",), "../x", "image"),
        (("kernel_parameters",), "quiet\n", "kernel_parameters"),
        (("epoch",), True, "epoch"),
        (("format",), "twinbuild-job/2", "format"),
    ],
)
def test_the_field_of_a_job_is_named(path: tuple[Any, ...], odd: object, where: str) -> None:
    with pytest.raises(Malformed) as caught:
        Job.of(changed(JOB, odd, *path))
    assert str(caught.value).startswith(f"{where} is ")


def test_the_field_of_a_package_is_named() -> None:
    with pytest.raises(Malformed, match=r"^packages\[0\]\.used_by\[1\] is malformed"):
        Inputs.of(changed(WHOLE, ["image", "nobody"], "packages", 0, "used_by"))
    with pytest.raises(Malformed, match=r"^packages\[0\]\.file is 'xz.deb', not xz_1%3a2_all"):
        Inputs.of(changed(WHOLE, "xz.deb", "packages", 0, "file"))


def test_the_store_must_have_all_that_the_inputs_name() -> None:
    wanted = Inputs.of(WHOLE).digests()
    assert wanted["2" * 64] == 9
    assert wanted.keys() == {"9" * 64, "2" * 64, "6" * 64, "b" * 64, "e" * 64, "5" * 64}


def test_a_job_names_what_is_made_from_it() -> None:
    job = Job.of(JOB)
    assert job.names.iso == "mini-amd64-3.3.iso"
    assert job.names.kits == ("mini-amd64-3.1-to-3.3.iuk", "mini-amd64-3.2-to-3.3.iuk")
    assert job.names.built == ("greeter_1.2-3_amd64.deb",)
    assert job.kits[0].files() == {
        "earlier/3.1/ledger.jsonl.gz": "6" * 64,
        "earlier/3.1/partition": "b" * 64,
    }
    assert job.kits[1].files() == {"earlier/3.2/image.img": "e" * 64}
    assert job.own.source_files() == {f"sources/{'5' * 64}": "5" * 64}
