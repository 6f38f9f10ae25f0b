# SPDX-License-Identifier: GPL-3.0-or-later
"""Source packages that a commit names by hash: had from an archive's pool, or from elsewhere."""

import gzip
import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import InfrastructureFailed, InputsUnverified, UsageError
from pipeline.base.store import Store
from pipeline.inputs.fetched_source import read_debian, read_dsc
from pipeline.inputs.local_packages import read_local
from pipeline.inputs.request import PackageRequest, read_request
from tests.debian_archive import sha256
from tests.hostile_server import FOUND, answering, hostile_server, moved
from tests.unit.inputs.conftest import Workshop
from tests.unit.inputs.test_local_packages import CHANGELOG, CONTROL

POOL = "pool/main/g/greeter"
DSC = """Format: 3.0 (native)
Source: greeter
Binary: greeter, greeter-data, greeter-unused
Architecture: any all
Version: 1.2
Checksums-Sha256:
 %s %d %s
"""


def source_tar(folder: str = "greeter-1.2/", version: str = "1.2") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        texts = {"debian/control": CONTROL, "debian/changelog": CHANGELOG % version}
        for name, text in {"main.c": "int main;\n", **texts}.items():
            member = tarfile.TarInfo(folder + name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return gzip.compress(packed.getvalue(), mtime=0)


def dsc_of(content: bytes, name: str = "greeter_1.2.tar.gz") -> str:
    return DSC % (sha256(content), len(content), name)


@pytest.fixture
def shop(workshop: Workshop) -> Workshop:
    """A workshop whose image names a source package that its archive has."""
    workshop.archive.add("build-essential")
    workshop.archive.add("debhelper", Provides="debhelper-compat (= 13)")
    workshop.archive.publish()
    packages(workshop).mkdir()
    offer(workshop, source_tar())
    workshop.ask_for("live-boot", "greeter")
    return workshop


def packages(shop: Workshop) -> Path:
    return shop.tree / "images/live/mini/packages"


def offer(shop: Workshop, content: bytes, folder: str = f"debian/{POOL}") -> None:
    path = shop.server.root / folder / "greeter_1.2.tar.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    (packages(shop) / "greeter_1.2.dsc").write_text(dsc_of(content))


def ask(shop: Workshop) -> PackageRequest:
    return read_request(shop.tree, "mini", shop.farm, shop.builder_lists, shop.store)


def test_it_is_locked_and_goes_to_the_build_as_one_in_the_tree(shop: Workshop) -> None:
    lock = shop.lock()
    assert "debhelper" in {package.name for package in lock.used_by("build")}
    run = shop.run()
    shop.stage(run)
    (source,) = json.loads(run.inputs_json.read_text())["local"]["sources"]
    assert (source["dsc"], source["epoch"]) == ("greeter_1.2.dsc", 1_700_000_000)
    (file,) = source["files"]
    assert file == {
        "name": "greeter_1.2.tar.gz",
        "size": len(source_tar()),
        "sha256": sha256(source_tar()),
    }
    assert not shop.store.damaged(file["sha256"])


def test_it_may_lie_elsewhere(shop: Workshop) -> None:
    shutil.rmtree(shop.server.root / f"debian/{POOL}")
    with pytest.raises(InfrastructureFailed, match=r"greeter_1\.2\.tar\.gz"):
        ask(shop)
    offer(shop, source_tar(), "ours")
    (packages(shop) / "greeter_1.2.urls").write_text(f"{shop.server.url}/ours/\n")
    assert ask(shop).local.sources[0].name == "greeter"


def test_its_urls_reach_no_service_of_this_machine(shop: Workshop) -> None:
    """The attacker's commit has a .urls with a service that listens on loopback."""
    shutil.rmtree(shop.server.root / f"debian/{POOL}")
    with hostile_server(answering(FOUND)) as victim:
        (packages(shop) / "greeter_1.2.urls").write_text(f"{victim.url}/ours/\n")
        with pytest.raises(InfrastructureFailed) as caught:
            ask(shop)
        assert not victim.asked
    assert "127.0.0.1 is 127.0.0.1, which is no public address" in caught.value.detail


def test_a_mirrors_redirect_reaches_no_service_of_this_machine(shop: Workshop) -> None:
    """The attacker holds a mirror that farm.yaml names, on a private network, too."""
    with hostile_server(answering(FOUND)) as victim:
        with hostile_server(answering(moved(f"{victim.url}/x".encode()))) as mirror:
            urls = shop.farm.archives["debian"].urls
            assert urls is not None
            urls[:] = [mirror.url]
            with pytest.raises(InfrastructureFailed):
                shop.make()
            assert mirror.asked
        assert not victim.asked


def test_what_is_not_what_the_dsc_says_never_enters_the_store(shop: Workshop) -> None:
    path = shop.server.root / f"debian/{POOL}/greeter_1.2.tar.gz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(InputsUnverified, match=r"greeter_1\.2\.tar\.gz"):
        ask(shop)
    assert not shop.stored()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (source_tar(version="1.3"), "its debian/changelog says greeter 1.3"),
        (source_tar("a/b/c/"), "has no debian/control and debian/changelog"),
        (b"no archive", "cannot be read"),
    ],
)
def test_what_is_no_source_package_is_reported(shop: Workshop, content: bytes, what: str) -> None:
    offer(shop, content)
    with pytest.raises((UsageError, InputsUnverified), match=what):
        ask(shop)


def test_without_its_files_its_names_are_known(shop: Workshop) -> None:
    found = read_local(packages(shop).parent, "amd64").binaries
    assert [(p.name, p.version) for p in found] == [
        ("greeter", "1.2"),
        ("greeter-data", "1.2"),
        ("greeter-unused", "1.2"),
    ]
    assert not shop.server.asked


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ("greeter_1.2.tar.gz", "../x.tar.gz", "names files that cannot be"),
        ("greeter_1.2.tar.gz", "a/b.tar.gz", "names files that cannot be"),
        ("Version: 1.2", "Version: $(id)", "says that it is"),
        ("Source: greeter", "Source: ..", "says that it is"),
        ("Checksums-Sha256", "Checksums-Sha1", "is no .dsc"),
        (" 9 ", " nine ", "is no .dsc"),
        (" 9 ", " 0 ", "names files that cannot be"),
    ],
)
def test_a_dsc_that_cannot_be(tmp_path: Path, before: str, after: str, what: str) -> None:
    path = tmp_path / "greeter.dsc"
    text = dsc_of(b"123456789")
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(UsageError, match=what):
        read_dsc(path, "mini/packages/greeter.dsc")


@pytest.mark.parametrize(
    "address", ["http://[::1", "http://a:99999/", "ftp://a/", "http://", "http://a\x1b[31m/", "x"]
)
def test_an_address_that_is_none_is_named_with_its_file(tmp_path: Path, address: str) -> None:
    (tmp_path / "greeter.dsc").write_text(dsc_of(b"123456789"))
    (tmp_path / "greeter.urls").write_text(f"https://example.org/x\n{address}\n")
    with pytest.raises(UsageError, match=r"greeter\.urls: .* is no http or https address"):
        read_dsc(tmp_path / "greeter.dsc", "mini/packages/greeter.dsc")


@given(st.binary(max_size=300))
def test_whatever_a_dsc_says_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.dsc"
    path.write_bytes(dsc_of(b"123456789").encode() + content)
    try:
        read = read_dsc(path, "mini/packages/fuzzed.dsc")
    except UsageError:
        return
    assert all("/" not in file.name for file in read.files)


def test_a_format_without_a_tar_of_its_own_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "mini/packages"
    folder.mkdir(parents=True)
    text = dsc_of(b"123456789", "greeter_1.2.orig.tar.gz")
    (folder / "greeter.dsc").write_text(text + f" {'a' * 64} 9 greeter_1.2-1.diff.gz\n")

    def fetch(source: object, shown: str) -> dict[str, bytes]:
        return read_debian(source, Store(tmp_path), shown)  # type: ignore[arg-type]

    with pytest.raises(UsageError, match=r"only the formats 3\.0"):
        read_local(folder.parent, "amd64", fetch)
