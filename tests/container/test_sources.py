# SPDX-License-Identifier: GPL-3.0-or-later
"""The reference image's own packages, each built in two containers that vary on purpose.

The containers differ in path, user, umask, time zone, locale, host name, processors, the order of
folders, the day, and with it the time of all files. Without a measure a package differs, in the
files that are named here; as it is committed it is the same, bit for bit.
"""

import hashlib
import io
import secrets
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import pytest
from docker import DockerClient

from pipeline import flow
from pipeline.farm.config import load_environment
from pipeline.farm.workspace import open_workspace
from pipeline.machines import engine, host

pytestmark = pytest.mark.container

HERE = Path(__file__).parent / "sources"
SOURCES = Path(__file__).parents[2] / "images/live/reference/packages"
LIBFAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
TIMEOUT_S = 300
AS_IT_IS = "as-it-is"

Packages = dict[str, bytes]  # a file *.deb, by the group of sources and its name


@dataclass(frozen=True)
class Measure:
    """What keeps a source's package the same: by file and text, what stands there without it."""

    source: str
    without: dict[str, dict[str, str]]
    differs: frozenset[str]


LANGUAGES = ("de", "en", "fr")
PAGES = ("check", "index", "news/languages", "news/twice", "tags/building", "tags/languages")
PICTURES = tuple(f"{page}/240x-twice.png" for page in ("index", "index.de", "index.fr"))

PAGE = "src/news/languages.fr.po"

MEASURES = {
    "build-flags": Measure(
        "clock",
        {"debian/rules": {"%:\n": "export DEB_BUILD_MAINT_OPTIONS = reproducible=-all\n%:\n"}},
        frozenset({"usr/bin/clock"}),
    ),
    "strip-nondeterminism": Measure(
        "extension",
        {"debian/rules": {"%:\n": "override_dh_strip_nondeterminism:\n\n%:\n"}},
        frozenset({"usr/share/webext/checked@example.org.xpi"}),
    ),
    "update-of-catalogues": Measure(
        "greeter",
        {
            "po/update": {
                '    cmp -s "$new/before" "$new/after" || cp ': "    cp ",
                "set -eu\n": "set -eu\nunset SOURCE_DATE_EPOCH\n",  # xgettext takes it for the day
            }
        },
        frozenset(f"usr/share/greeter/{name}" for name in ("de.po", "fr.po", "greeter.pot")),
    ),
    "templates": Measure(
        "website",
        {
            "website.setup": {"templatedir: templates\n": ""},
            # Without it `deterministic` alone leaves the time of the build in a picture.
            "Makefile": {"\tikiwiki ": "\tenv --unset=SOURCE_DATE_EPOCH ikiwiki "},
        },
        frozenset(
            f"usr/share/website/{name}"
            for name in (*PICTURES, *(f"{page}.{ll}.html" for page in PAGES for ll in LANGUAGES))
        ),
    ),
    # One byte of a translation, as in Tails 3.2: no date to ikiwiki, which takes the file's then.
    "translated-date": Measure(
        "website",
        {
            PAGE: {
                'msgstr "[[!meta date=\\"Mon, 23 Nov': 'msgstr "[[!meta date=\\"Mon, 23 Now',
            },
            "Makefile": {
                "\t! grep ": "\t: ",  # what ikiwiki says of it, in the page
                # Newer than its original it is not written anew, which would be at the true time.
                "\tikiwiki ": f"\ttouch {PAGE}\n\tikiwiki ",
            },
        },
        frozenset(
            f"usr/share/website/{page}.fr.html"
            for page in ("index", "tags/building", "tags/languages")
        ),
    ),
}
BUILT = sorted({measure.source for measure in MEASURES.values()})


@dataclass(frozen=True)
class Place:
    """How one of the two containers differs from the other; `days` is where its clock goes."""

    user: str
    host_name: str
    processors: str
    in_memory: str  # a folder that lies in memory, with its own order of files
    variables: dict[str, str]
    days: int


PLACES = {
    "alpha": Place(
        "ada",
        "alpha-host",
        "",
        "",
        {
            "FOLDER": "/srv/alpha/twinbuild/work",
            "UMASK": "0022",
            "ORDER": "--unique",
            "TZ": "Pacific/Kiritimati",
            "LC_ALL": "C.UTF-8",
        },
        213,
    ),
    "beta": Place(
        "barbara",
        "b",
        "0",
        "/b",
        {
            "FOLDER": "/b",
            "UMASK": "0027",
            "ORDER": "--reverse",
            "TZ": "America/Anchorage",
            "LC_ALL": "C",
        },
        398,
    ),
}


def files_of(source: str, without: dict[str, dict[str, str]]) -> Iterator[tuple[str, bytes]]:
    """Give the files of a source, with what they have instead of a measure."""
    for path in sorted(path for path in (SOURCES / source).rglob("*") if path.is_file()):
        shown = str(path.relative_to(SOURCES / source))
        content = path.read_bytes()
        for kept, instead in without.get(shown, {}).items():
            assert kept.encode() in content
            content = content.replace(kept.encode(), instead.encode())
        yield f"{source}/{shown}", content


def build(client: DockerClient, image: str, run_id: str, name: str) -> Packages:
    """Build every source in a container, as it is and without each measure."""
    place = PLACES[name]
    fake = f"LD_PRELOAD={LIBFAKETIME} FAKETIME=+{place.days}d NO_FAKE_STAT=1"
    container = client.containers.create(
        image,
        ["sh", "/in/builder.sh"],
        labels={engine.LABEL: "test", engine.RUN_LABEL: f"{run_id}/{name}"},
        network_mode="none",
        hostname=place.host_name,
        cpuset_cpus=place.processors,
        tmpfs={place.in_memory: "exec"} if place.in_memory else {},
        environment={**place.variables, "NAME": place.user, "FAKE": fake},
    )
    files: dict[str, Path | bytes] = {"in/builder.sh": HERE / "builder.sh"}
    groups: list[tuple[str, str, dict[str, dict[str, str]]]]
    groups = [(AS_IT_IS, source, {}) for source in BUILT]
    groups += [(group, measure.source, measure.without) for group, measure in MEASURES.items()]
    for group, source, without in groups:
        files |= {f"in/sources/{group}/{path}": c for path, c in files_of(source, without)}
    engine.put(container, PurePosixPath("/"), files)
    container.start()
    status = engine.wait(container, TIMEOUT_S)
    assert status == 0, container.logs().decode(errors="replace")[-5000:]
    built = {}
    for group, source, _ in groups:
        with engine.get(container, PurePosixPath("/out", f"{group}-{source}.deb")) as file:
            built[f"{group}/{source}"] = file.read()
    return built


@pytest.fixture(scope="module")
def image(client: DockerClient) -> str:
    """A container image with what builds the packages."""
    workspace = open_workspace(HERE.parents[2])
    alpha = workspace.hosts / "alpha"
    variation = load_environment(alpha / "environment.yaml")
    described = host.Host("sources", HERE, variation, workspace.farm.archives)
    return host.ensure(client, described, partial(flow.mirrors, workspace))[0]


@pytest.fixture(scope="module")
def built(client: DockerClient, image: str) -> Iterator[list[Packages]]:
    """The packages of the two containers."""
    run_id = f"test-{secrets.token_hex(4)}"
    try:
        with ThreadPoolExecutor() as pool:
            yield list(pool.map(partial(build, client, image, run_id), PLACES))
    finally:
        for name in PLACES:
            engine.sweep(client, run_id, name)


def contents(package: bytes, folder: Path) -> dict[str, str]:
    """Return the hash of each file that a package installs."""
    (folder / "a.deb").write_bytes(package)
    argv = ["dpkg-deb", "--fsys-tarfile", str(folder / "a.deb")]
    done = subprocess.run(argv, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        return {
            member.name.removeprefix("./"): hashlib.sha256(file.read()).hexdigest()
            for member in tar
            if member.isfile() and (file := tar.extractfile(member))
        }


@pytest.mark.parametrize("group", MEASURES)
def test_without_its_measure_a_package_differs(
    group: str, built: list[Packages], tmp_path: Path
) -> None:
    measure = MEASURES[group]
    name = f"{group}/{measure.source}"
    alpha, beta = (contents(packages[name], tmp_path) for packages in built)
    assert alpha.keys() == beta.keys()
    assert {path for path in alpha if alpha[path] != beta[path]} == measure.differs


@pytest.mark.parametrize("source", BUILT)
def test_a_package_is_the_same_bit_for_bit(source: str, built: list[Packages]) -> None:
    alpha, beta = (packages[f"{AS_IT_IS}/{source}"] for packages in built)
    assert alpha == beta


CATALOGUES = f"""
export LD_PRELOAD={LIBFAKETIME} FAKETIME=+213d NO_FAKE_STAT=1
cd /greeter
sha256sum po/*.po po/greeter.pot >before
sed -i '2i # A line more, and each message is on another.' greeter.py
po/update
sha256sum --check --quiet before
sed -i 's/Welcome[.]/Welcome back./' greeter.py
po/update
for file in po/*.po po/greeter.pot; do
    grep -q 'Welcome back' "$file"
    grep -q '^"POT-Creation-Date: 2' "$file"
done
"""


def test_catalogues_change_only_when_a_message_does(client: DockerClient, image: str) -> None:
    """Neither another day nor other numbers of lines change them."""
    container = client.containers.create(
        image, ["sh", "-euc", CATALOGUES], labels={engine.LABEL: "test"}, network_mode="none"
    )
    try:
        files: dict[str, Path | bytes] = {
            f"greeter/{path.relative_to(SOURCES / 'greeter')}": path
            for path in (SOURCES / "greeter").rglob("*")
            if path.is_file()
        }
        engine.put(container, PurePosixPath("/"), files)
        container.start()
        status = engine.wait(container, TIMEOUT_S)
        assert status == 0, container.logs().decode(errors="replace")
    finally:
        engine.remove(container)
