# SPDX-License-Identifier: GPL-3.0-or-later
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from pipeline.base import command
from pipeline.base.errors import UsageError
from pipeline.farm.config import Archive
from pipeline.inputs.addresses import (
    all_bases,
    bases_of_apt,
    dropped_bases,
    join,
    parse_proxies,
    read_proxies,
)
from pipeline.inputs.apt_sources import expand, parse_targets, read_configuration, read_sources

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
    return bases_of_apt("debian", wanted, expand(parse_targets(SOURCES)))


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


ONE_LINE = """\
# deb http://comment.example.org/debian trixie main
deb-src http://source.example.org/debian trixie main
deb http://one.example.org/debian/ trixie main contrib  # by hand
deb [arch=amd64 signed-by={keyring}] http://two.example.org/debian trixie main
deb [ signed-by=/etc/apt/keyrings/vendor.asc ] https://vendor.example.org/apt trixie main
deb cdrom:[Debian 13]/ trixie main
""".replace("{keyring}", "/usr/share/keyrings/debian-archive-keyring.gpg")
DEB822 = """\
Types: deb deb-src
URIs: mirror+file:{mirrors}
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.pgp

Enabled: no
Types: deb
URIs: http://disabled.example.org/debian
Suites: trixie
Components: main

Types: deb
URIs: https://vendor.example.org/deb822
Suites: trixie
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 xsBN
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb-src
URIs: http://only-sources.example.org/debian
Suites: trixie
Components: main
"""
MIRRORS = """\
# by the cloud's set-up
http://three.example.org/debian/\tpriority:2
https://four.example.org/debian
ftp://old.example.org/debian
"""


def test_what_apt_has_not_downloaded_yet_is_read_from_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "mirrors").write_text(MIRRORS)
    (tmp_path / "sources.list").write_text(ONE_LINE)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/x.sources").write_text(DEB822.format(mirrors=tmp_path / "mirrors"))
    (tmp_path / "parts/x.sources.disabled").write_text(ONE_LINE.replace("one", "disabled"))
    found = expand(read_configuration(tmp_path / "sources.list", tmp_path / "parts"))
    assert list(dict.fromkeys((s.url, s.suite) for s in found)) == [
        ("http://one.example.org/debian", "trixie"),
        ("http://two.example.org/debian", "trixie"),
        ("http://three.example.org/debian", "trixie"),
        ("https://four.example.org/debian", "trixie"),
        ("http://three.example.org/debian", "trixie-updates"),
        ("https://four.example.org/debian", "trixie-updates"),
    ]
    assert bases_of_apt("debian", archive(), found)[0] == "http://one.example.org/debian"


def test_an_apt_that_never_updated_has_its_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real apt, with lists of its own that are empty."""
    (tmp_path / "etc/sources.list.d").mkdir(parents=True)
    (tmp_path / "lists/partial").mkdir(parents=True)
    (tmp_path / "etc/sources.list").write_text(ONE_LINE.partition("deb cdrom")[0])
    settings = f'Dir::Etc "{tmp_path}/etc";\nDir::State::lists "{tmp_path}/lists";\n'
    (tmp_path / "apt.conf").write_text(settings)
    own = partial(command.run, env={"APT_CONFIG": str(tmp_path / "apt.conf")})
    monkeypatch.setattr("pipeline.inputs.apt_sources.command.run", own)
    assert read_sources()[0].url == "http://one.example.org/debian"
