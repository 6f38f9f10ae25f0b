# SPDX-License-Identifier: GPL-3.0-or-later
"""Which earlier releases have kits: from real signed releases, at a folder and at an address."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.base import dsse
from pipeline.base.errors import InputsUnverified, SignatureInvalid, UsageError
from pipeline.base.store import Store
from pipeline.documents.job import KitRequest
from pipeline.farm.config import Image, parse_image
from pipeline.inputs import earlier
from pipeline.published.published import Location
from pipeline.release.index import write_index
from tests.archive_server import archive_server
from tests.gpg_home import GpgHome, made_home
from tests.releases import ENVIRONMENTS, FakeRun, publish_by_hand
from tests.unit.inputs.conftest import IMAGE_YAML, Workshop

pytestmark = pytest.mark.tools

Artifacts = Mapping[str, bytes]


def usb(tag: str, image: str = "mini") -> Artifacts:
    """Return what a release needs so that it can be upgraded."""
    stem = f"{image}-amd64-{tag}"
    return {f"{stem}.img": f"usb {tag}".encode(), f"{stem}.partition": f"{tag}\n".encode()}


# The releases of the test: tag, image, artifacts beside ISO, packages and ledger, more of the job.
RELEASES: list[tuple[str, str, Artifacts, Mapping[str, object]]] = [
    ("2.9", "mini", usb("2.9"), {}),
    ("3.0", "mini", {}, {}),  # from before there were USB images
    ("3.1", "mini", usb("3.1"), {"upgrade": True}),
    ("3.2", "mini", usb("3.2"), {"upgrade": False}),
    ("3.3", "mini", {"mini-amd64-3.3.img": b"usb 3.3"}, {}),  # nobody knows what is in it
    ("3.4", "kiosk", usb("3.4", "kiosk"), {}),
    ("3.5", "mini", usb("3.5"), {}),
]


@dataclass(frozen=True)
class Releases:
    """A public tree and the key that it is signed with."""

    public: Path
    keyring: bytes
    fingerprint: str

    def at(self, address: object) -> Location:
        return Location(str(address), self.keyring, self.fingerprint)


@pytest.fixture(scope="session")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Releases]:
    with made_home() as gpg:
        yield _signed(tmp_path_factory.mktemp("releases"), gpg)


def _signed(folder: Path, gpg: GpgHome) -> Releases:
    fingerprint = gpg.make("Release <release@example.org>", expires="never")
    keys = {}
    for name in ENVIRONMENTS:
        dsse.make_key(folder / f"{name}.pem")
        keys[name] = dsse.load_key(folder / f"{name}.pem")
    for tag, image, artifacts, job in RELEASES:
        fake = FakeRun(folder / "runs", keys, tag, image)
        always = (".iso", ".packages", ".ledger.jsonl.gz")
        fake.artifacts = {n: c for n, c in fake.artifacts.items() if n.endswith(always)}
        fake.artifacts |= artifacts
        for name in ENVIRONMENTS:
            fake.write_statement(name, job={**fake.job(), **job})
        publish_by_hand(folder / "public", fake, gpg, fingerprint)  # older farms published these
    write_index(folder / "public")
    return Releases(folder / "public", gpg.export(fingerprint), fingerprint)


@pytest.fixture
def releases(signed: Releases, tmp_path: Path) -> Releases:
    """The same, to be spoilt."""
    shutil.copytree(signed.public, tmp_path / "public", copy_function=os.link)
    return Releases(tmp_path / "public", signed.keyring, signed.fingerprint)


@pytest.fixture(params=["folder", "address"])
def location(request: pytest.FixtureRequest, releases: Releases) -> Iterator[Location]:
    if request.param == "folder":
        yield releases.at(releases.public)
        return
    with archive_server(releases.public) as server:
        yield releases.at(server.url)


def image(upgrades: object) -> Image:
    return parse_image(f"{IMAGE_YAML}upgrades: {json.dumps({'from': upgrades})}\n".encode(), "x")


def choose(
    location: Location, upgrades: object, version: str = "3.10", name: str = "mini"
) -> tuple[list[str], list[str]]:
    """Return the releases that were chosen, and the messages."""
    messages: list[str] = []
    kits = earlier.choose(location, name, image(upgrades), version, messages.append)
    return [kit.start for kit in kits], messages


def test_no_kits_are_the_default(location: Location) -> None:
    assert choose(location, "none") == ([], [])


def test_those_of_the_same_major_version(location: Location) -> None:
    chosen, messages = choose(location, "same-major")
    assert chosen == ["3.1", "3.3", "3.5"]
    assert messages == [
        "no kit from 3.0: it has no USB image",
        "a kit from 3.1",
        "no kit from 3.2: it asked not to be upgraded",
        "a kit from 3.3 (it has no ledger: from its USB image, which is slower)",
        "a kit from 3.5",
    ]


@pytest.mark.parametrize(
    ("version", "chosen"),
    [("3.5", ["3.1", "3.3"]), ("3.5-rc1", ["3.1", "3.3"]), ("4.0", []), ("2.10", ["2.9"])],
)
def test_only_earlier_ones(location: Location, version: str, chosen: list[str]) -> None:
    assert choose(location, "same-major", version)[0] == chosen


def test_only_those_of_the_image(location: Location) -> None:
    assert choose(location, "same-major", name="kiosk")[0] == ["3.4"]


def test_just_those_that_are_listed(location: Location) -> None:
    assert choose(location, ["3.5", "2.9", "3.2"], "4.0")[0] == ["2.9", "3.5"]


def test_what_a_kit_is_made_from(location: Location, releases: Releases) -> None:
    kits = earlier.choose(location, "mini", image(["3.1", "3.3"]), "3.10", lambda _: None)
    files = {
        name: digest
        for tag in ("3.1", "3.3")
        for digest, name in (
            line.split("  ")
            for line in (releases.public / tag / "SHA256SUMS").read_text().splitlines()
        )
    }
    assert kits == (
        KitRequest(
            start="3.1",
            ledger_sha256=files["mini-amd64-3.1.ledger.jsonl.gz"],
            partition_sha256=files["mini-amd64-3.1.partition"],
            image_sha256=None,
        ),
        KitRequest(
            start="3.3",
            ledger_sha256=None,
            partition_sha256=None,
            image_sha256=files["mini-amd64-3.3.img"],
        ),
    )


def test_all_of_it_comes_into_the_store(location: Location, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    kits = earlier.choose(location, "mini", image(["3.1", "3.3"]), "3.10", lambda _: None)
    earlier.keep(location, kits, store)
    wanted = {digest for kit in kits for digest in kit.files().values()}
    assert len(wanted) == 3
    assert wanted == {path.name for path in store.root.glob("sha256/*/*")}
    earlier.keep(Location("nowhere", b""), kits, store)  # nobody is asked again


@pytest.mark.parametrize(
    ("listed", "version", "error"),
    [
        (["3.6"], "3.10", InputsUnverified),  # not published
        (["3.10"], "3.10", UsageError),
        (["3.11"], "3.10", UsageError),
        (["3.4"], "3.10", UsageError),  # of another image
    ],
)
def test_a_list_that_cannot_be_met(
    location: Location, listed: list[str], version: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match=listed[0]):
        choose(location, listed, version)


def rewrite(path: Path, content: bytes) -> None:
    path.unlink()  # a second name of the same file
    path.write_bytes(content)


@pytest.mark.parametrize("upgrades", ["same-major", ["3.1"]])
def test_a_release_with_a_bad_manifest_is_refused(
    location: Location, releases: Releases, upgrades: object
) -> None:
    manifest = releases.public / "3.1" / "SHA256SUMS"
    rewrite(manifest, manifest.read_bytes().replace(b"0", b"1"))
    with pytest.raises(SignatureInvalid, match=r"the release 3\.1 at .* bad"):
        choose(location, upgrades)


def test_a_release_that_is_listed_and_is_not_there(location: Location, releases: Releases) -> None:
    (releases.public / "3.1" / "lock").unlink()  # which nobody needs here
    assert "3.1" in choose(location, "same-major")[0]
    (releases.public / "3.1" / "statements" / "beta.json").unlink()
    with pytest.raises(InputsUnverified, match=r"statements/beta\.json of the release 3\.1"):
        choose(location, "same-major")


def test_a_file_that_is_not_what_the_manifest_says(
    location: Location, releases: Releases, tmp_path: Path
) -> None:
    kits = earlier.choose(location, "mini", image(["3.1"]), "3.10", lambda _: None)
    rewrite(releases.public / "3.1" / "mini-amd64-3.1.partition", b"3.0\n")
    with pytest.raises(InputsUnverified, match=r"mini-amd64-3\.1\.partition"):
        earlier.keep(location, kits, Store(tmp_path / "store"))


def test_a_release_that_became_another(
    location: Location, releases: Releases, tmp_path: Path
) -> None:
    kits = earlier.choose(location, "mini", image(["3.1"]), "3.10", lambda _: None)
    before = replace(kits[0], partition_sha256="0" * 64)
    with pytest.raises(InputsUnverified, match="not the one chosen before"):
        earlier.keep(location, [before], Store(tmp_path / "store"))


# --- in the stage


def tagged(workshop: Workshop, version: str, upgrades: object) -> Any:
    """Return a run of a tag whose image asks for kits."""
    path = workshop.tree / "images/live/mini/image.yaml"
    path.write_text(f"{IMAGE_YAML}upgrades: {json.dumps({'from': upgrades})}\n")
    workshop.locked()
    run = workshop.run(tag=version)
    source = json.loads(run.source_json.read_text())
    run.source_json.write_text(json.dumps({**source, "version": version}))
    return run


def kits_of(run: Any) -> list[str]:
    return [kit["from"] for kit in json.loads(run.inputs_json.read_text())["kits"]]


def test_the_stage_settles_kits_once(workshop: Workshop, releases: Releases) -> None:
    run = tagged(workshop, "3.10", "same-major")
    shutil.move(releases.public / "3.5", releases.public.parent / "kept")
    messages = workshop.stage(run, locate=lambda: releases.at(releases.public))
    assert "a kit from 3.1" in messages
    assert kits_of(run) == ["3.1", "3.3"]
    shutil.move(releases.public.parent / "kept", releases.public / "3.5")
    for _ in range(2):
        again = workshop.stage(run, locate=lambda: releases.at(releases.public))
        assert kits_of(run) == ["3.1", "3.3"]
    assert again == ["the inputs are complete and unchanged"]
    shutil.rmtree(workshop.store.root)  # the same run on another machine
    with archive_server(releases.public) as server:
        workshop.stage(run, locate=lambda: releases.at(server.url))
        assert not any(path.startswith("/3.5/") for path in server.asked)
    assert kits_of(run) == ["3.1", "3.3"]


def test_another_release_key_has_the_releases_verified_again(
    workshop: Workshop, releases: Releases
) -> None:
    """The farm has replaced its key: what the old one signed makes no kit any more."""
    run = tagged(workshop, "3.10", "same-major")
    workshop.stage(run, locate=lambda: releases.at(releases.public))
    other = Location(str(releases.public), releases.keyring, "A" * 40)
    with pytest.raises(SignatureInvalid, match=f"not by {'A' * 40}"):
        workshop.stage(run, locate=lambda: other)


def test_only_a_tag_has_kits(workshop: Workshop) -> None:
    tagged(workshop, "3.10", "same-major")
    run = workshop.run()
    workshop.stage(run, locate=lambda: pytest.fail("it asked for releases"))
    assert kits_of(run) == []


def test_nothing_is_published_yet(workshop: Workshop, tmp_path: Path) -> None:
    run = tagged(workshop, "3.1", "same-major")
    workshop.stage(run, locate=lambda: Location(str(tmp_path / "public"), b""))
    assert kits_of(run) == []


def test_a_record_from_before_there_were_kits(workshop: Workshop, releases: Releases) -> None:
    run = tagged(workshop, "3.10", ["3.1"])
    workshop.stage(run, locate=lambda: releases.at(releases.public))
    document = json.loads(run.inputs_json.read_text())
    del document["kits"]
    run.inputs_json.write_text(json.dumps(document))
    record = json.loads((run.folder / "stages/inputs.json").read_text())
    run.complete("inputs", record["reads"], [run.inputs_json])
    messages = workshop.stage(run, locate=lambda: releases.at(releases.public))
    assert messages[0] == "inputs: it says nothing of kits"
    assert kits_of(run) == ["3.1"]
