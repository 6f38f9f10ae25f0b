# SPDX-License-Identifier: GPL-3.0-or-later
"""A source package that two real machines build, compare and install."""

import gzip
import json
import subprocess

import pytest

from pipeline import flow
from pipeline.base.errors import Differs
from pipeline.farm.workspace import Workspace
from pipeline.inputs.image_lock import lock_image
from tests.machine.conftest import Tiny, display, git, start

pytestmark = [pytest.mark.proof, pytest.mark.machine, pytest.mark.timeout(2400)]

SOURCE = {
    "debian/control": """Source: greeter
Section: misc
Priority: optional
Maintainer: Test <test@example.org>
Build-Depends: debhelper-compat (= 13)
Standards-Version: 4.7.0

Package: greeter
Architecture: any
Depends: ${shlibs:Depends}, ${misc:Depends}, greeter-data (= ${source:Version})
Description: says where and when it was built
 And no more.

Package: greeter-data
Architecture: all
Depends: ${misc:Depends}
Description: what it greets with
 A text.
""",
    "debian/changelog": """greeter (1.2) unstable; urgency=medium

  * A change.

 -- Test <test@example.org>  Tue, 14 Nov 2023 22:13:20 +0000
""",
    "debian/rules": "#!/usr/bin/make -f\n%:\n\tdh $@\n",
    "debian/source/format": "3.0 (native)\n",
    "debian/greeter.install": "greet usr/bin\n",
    "debian/greeter-data.install": "greeting usr/share/greeter\n",
    # What embeds a path or a time by default.
    "main.c": """#include <stdio.h>
int main(void) { printf("%s %s %s\\n", __FILE__, __DATE__, __TIME__); return 0; }
""",
    "Makefile": """all: greet greeting
greet: main.c
\t$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $(CURDIR)/$<
greeting:
\techo hello >$@
clean:
\trm -f greet greeting
""",
}
GREETING = "usr/share/greeter/greeting"
PACKAGES = {"greeter_1.2_amd64.deb", "greeter-data_1.2_all.deb"}


@pytest.fixture(scope="module")
def brings_its_own(workspace: Workspace, tiny: Tiny) -> Tiny:
    """The tiny image with a source package, and a lock that has what builds it."""
    git(tiny.folder, "checkout", "--quiet", "--detach", "base")
    image = tiny.folder / "images/live/tiny"
    for name, content in SOURCE.items():
        path = image / "packages/greeter" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (image / "packages/greeter/debian/rules").chmod(0o755)
    (image / "package-lists/tiny.list.chroot").write_text("bash\ngreeter\n")
    lock_image(workspace, "tiny", display().say, tree=tiny.folder)
    git(tiny.folder, "add", "--all")
    git(tiny.folder, "commit", "--quiet", "--message=Bring a package")
    return tiny


def test_two_machines_build_the_same_package(workspace: Workspace, brings_its_own: Tiny) -> None:
    run = start(workspace, brings_its_own, git(brings_its_own.folder, "rev-parse", "HEAD"))
    flow.build(workspace, run, display())
    folder = run.environment("alpha") / "artifacts"
    assert {path.name for path in folder.iterdir()} >= PACKAGES
    listed = next(folder.glob("*.packages")).read_text()
    assert "greeter 1.2 amd64 " in listed
    steps = json.loads((run.environment("alpha") / "timings.json").read_text())["steps"]
    assert {"15-packages", "15-packages/greeter"} <= steps.keys()
    ledger = gzip.decompress((run.environment("alpha") / "ledger.jsonl.gz").read_bytes())
    assert b'"path":"usr/bin/greet"' in ledger
    done = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", folder / "greeter_1.2_amd64.deb"],
        capture_output=True,
        check=True,
    )
    assert b"Nov 14 2023" in done.stdout


def test_a_package_that_is_built_otherwise_is_named(
    workspace: Workspace, brings_its_own: Tiny
) -> None:
    makefile = brings_its_own.folder / "images/live/tiny/packages/greeter/Makefile"
    makefile.write_text(makefile.read_text().replace("echo hello", "pwd"))
    git(brings_its_own.folder, "commit", "--quiet", "--all", "--message=Ship the path")
    run = start(workspace, brings_its_own, git(brings_its_own.folder, "rev-parse", "HEAD"))
    with pytest.raises(Differs):
        flow.build(workspace, run, display())
    verdict = json.loads(run.verdict_json.read_text())
    first = verdict["differences"][0]
    assert (first["step"], first["path"]) == ("15-packages/greeter", "greeter-data_1.2_all.deb")
    explained = json.loads((run.folder / "explanation.json").read_text())["files"][0]
    assert [place["path"] for place in explained["inside"]] == ["md5sums", GREETING]
    assert [cause["name"] for cause in explained["inside"][1]["causes"]] == ["build-path"]
