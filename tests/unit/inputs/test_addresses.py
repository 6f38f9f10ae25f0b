from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.config import Archive
from pipeline.errors import UsageError
from pipeline.inputs.addresses import (
    all_bases,
    bases_of_apt,
    dropped_bases,
    join,
    parse_proxies,
    parse_sources,
    read_proxies,
    read_sources,
)

SOURCES = """\
http://mirror.example.org/debian/\tbookworm\tmain\tDebian
http://mirror.example.org/debian/\tbookworm\tcontrib\tDebian
http://mirror.example.org/debian/\tbookworm-updates\tmain\tDebian
http://second.example.org/debian\tstable-backports\tmain\t
http://security.example.org/debian-security/\tbookworm-security\tmain\tDebian
https://vendor.example.org/apt/\tbookworm\tmain\tVendor
https://vendor.example.org/node/\tnodistro\tmain\t
https://vendor.example.org/pg/\tbookworm-pgdg\tmain\t
https://vendor.example.org/docker/\tbookworm\tstable\t
file:/srv/debian/\tbookworm\tmain\tDebian
cdrom://disc/\tbookworm\tmain\tDebian
"""


def archive(**more: object) -> Archive:
    fields = {"suites": ["trixie", "trixie-updates"], "components": ["main"], "keyring": "/k"}
    return Archive.model_validate({**fields, **more})


def of_apt(wanted: Archive) -> tuple[str, ...]:
    return bases_of_apt("debian", wanted, parse_sources(SOURCES))


def stated(name: str, wanted: Archive, **environ: str) -> tuple[str, ...]:
    return all_bases({name: wanted}, environ)[name]


@pytest.mark.parametrize(
    "suite", ["trixie", "trixie-updates", "sid", "trixie-backports", "testing"]
)
def test_the_main_archive_is_where_apt_finds_its_own(suite: str) -> None:
    assert of_apt(archive(suites=[suite])) == (
        "http://mirror.example.org/debian",
        "http://second.example.org/debian",
    )


def test_security_is_another_archive() -> None:
    expected = ("http://security.example.org/debian-security",)
    assert of_apt(archive(suites=["trixie-security"])) == expected


@pytest.mark.parametrize("more", [{"suites": ["overlay"]}, {"components": ["non-free"]}])
def test_no_address_is_wrong_usage_that_names_the_ways_out(more: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"urls in farm\.yaml or TWINBUILD_MIRROR_DEBIAN"):
        of_apt(archive(**more))


def test_farm_yaml_comes_before_apt() -> None:
    urls = ["https://a.example.org/debian/", "https://b.example.org/debian"]
    expected = ("https://a.example.org/debian", "https://b.example.org/debian")
    assert stated("debian", archive(urls=urls)) == expected


def test_the_environment_comes_before_all() -> None:
    pinned = archive(at="20261122T000000Z", urls=["https://a.example.org/debian"])
    mirrors = "http://x.example.org/d/  https://y.example.org"
    expected = ("http://x.example.org/d", "https://y.example.org")
    assert stated("my-overlay", pinned, TWINBUILD_MIRROR_MY_OVERLAY=mirrors) == expected


@pytest.mark.parametrize("value", ["file:///srv/debian", "example.org", "http://a\thttp://b?c"])
def test_the_environment_must_hold_http_addresses(value: str) -> None:
    with pytest.raises(UsageError, match="not an http or https address"):
        stated("debian", archive(), TWINBUILD_MIRROR_DEBIAN=value)


def test_a_pinned_archive_is_in_the_snapshots() -> None:
    pinned = archive(at="20261122T000000Z", snapshot_urls=["https://s.example.org/"])
    expected = ("https://s.example.org/archive/debian/20261122T000000Z",)
    assert stated("debian", pinned) == expected


def test_a_pinned_archive_needs_snapshots() -> None:
    with pytest.raises(UsageError, match="snapshot_urls"):
        stated("debian", archive(at="20261122T000000Z", urls=["https://a.example.org"]))


def test_dropped_files_are_looked_for_at_the_locked_time_and_soon_after() -> None:
    wanted = archive(snapshot_urls=["https://s.example.org"])
    assert dropped_bases("debian", wanted, datetime(2026, 9, 12, 7, 55, 41, tzinfo=UTC)) == (
        "https://s.example.org/archive/debian/20260912T075541Z",
        "https://s.example.org/archive/debian/20260913T075541Z",
    )


def test_file_names_are_quoted() -> None:
    assert join(["http://a"], "pool/a_1%3a2+b~c d?#.deb") == (
        "http://a/pool/a_1%253a2+b~c%20d%3F%23.deb",
    )


def test_apts_proxies_are_understood() -> None:
    dump = """\
Acquire::http::Proxy "http://proxy.example.org:3128";
Acquire::http::Proxy::local.example.org "DIRECT";
Acquire::https::Proxy "http://secure.example.org:3128";
Acquire::http::Pipeline-Depth "0";
"""
    assert parse_proxies(dump) == {
        "http": "http://proxy.example.org:3128",
        "http://local.example.org": "",
        "https": "http://secure.example.org:3128",
    }
    assert parse_proxies("") == {}


def test_this_machines_apt_answers() -> None:
    assert all(source.url.startswith("http") for source in read_sources())
    assert isinstance(read_proxies(), dict)


def test_no_address_is_asked_of_apt_when_all_are_stated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("pipeline.inputs.addresses.read_sources", tmp_path.rmdir)
    assert stated("debian", archive(urls=["https://a.example.org"]))
    assert tmp_path.exists()
