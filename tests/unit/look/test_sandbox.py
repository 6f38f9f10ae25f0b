# SPDX-License-Identifier: GPL-3.0-or-later
"""A hostile program in the sandbox: what it tries to reach, and that it does not.

The attacker has taken over diffoscope, or a program that it starts, by the bytes that it reads: his
code runs as the farm's user.
"""

import os
import socket
from pathlib import Path

import pytest

from pipeline.base import command
from pipeline.look import diffoscope, sandbox
from pipeline.look.diffoscope import ask
from tests.differing_run import make_run
from tests.processes import OWN, all_gone
from tests.unit.compare.test_explain import explained
from tests.unit.look.test_diffoscope import UNKNOWN, stand_in


def inside(script: str, *readable: Path) -> str:
    """Run a shell script in the sandbox; return what it printed."""
    argv = sandbox.wrapped(["/bin/sh", "-c", script], readable, scratch_limit=1024**2)
    completed = command.run(argv, timeout_s=20, accept=range(256))
    return f"{completed.text}\n" + completed.stderr.decode()


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a key in it, and an environment that names a secret."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "release.pem").write_text("the key")
    monkeypatch.setenv("HOME", os.fspath(home))
    monkeypatch.setenv("TWINBUILD_RELEASE_KEY", "the key")
    return home / "release.pem"


def test_it_cannot_read_what_it_was_not_given(secret: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.write_text("what it was given")
    tried = [secret, "/etc/shadow", "/root", "/home", "/var/lib", "/run", "/proc/1/environ", "/sys"]
    output = inside(f"cat {given}; cat {' '.join(map(str, tried))}; ls -R /tmp; env; id -u", given)
    assert output.startswith("what it was given")
    assert "the key" not in output
    assert output.count("No such file or directory") == len(tried)
    assert "65534" in output.splitlines()


@pytest.mark.usefixtures("secret")
def test_it_cannot_write_outside_its_scratch(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / "input").write_text("as it was")
    tried = [given / "input", given / "new", "/usr/bin/new", "/etc/new", "/new", "/dev/new"]
    output = inside("; ".join(f"echo evil > {path}" for path in [*tried, tmp_path / "new"]), given)
    assert output.count("Read-only file system") == len(tried), output
    assert (given / "input").read_text() == "as it was"
    assert [path.name for path in given.iterdir()] == ["input"]
    assert not (tmp_path / "new").exists()


def test_what_it_writes_is_bounded_and_goes_with_it(tmp_path: Path) -> None:
    script = "dd if=/dev/zero of=/tmp/x bs=64k count=64 2>&1; touch /tmp/left; ls -s /tmp"
    assert "No space left on device" in inside(script)
    assert "left" not in inside("ls /tmp")


def test_it_has_no_network(tmp_path: Path) -> None:
    abstract = f"\0{tmp_path}"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as hidden,
    ):
        hidden.bind(abstract)
        hidden.listen()
        program = tmp_path / "reach.py"
        program.write_text(
            f"""import socket
for family, address in (
    (socket.AF_INET, ("127.0.0.1", {server.getsockname()[1]})),
    (socket.AF_INET, ("192.0.2.1", 80)),
    (socket.AF_UNIX, {abstract!r}),
    (socket.AF_UNIX, "/var/run/docker.sock"),
):
    try:
        with socket.socket(family) as connection:
            connection.settimeout(5)
            connection.connect(address)
        print("reached", address)
    except OSError as error:
        print("refused", error.errno)
"""
        )
        output = inside(f"/usr/bin/python3 -IS {program}", program)
    assert output.count("refused") == 4, output


def test_it_sees_and_signals_no_process_but_its_own() -> None:
    me = os.getpid()
    output = inside(f"kill -0 {me}; kill -9 {me}; echo $$; ls /proc; ipcs -m | wc -l")
    assert output.count("No such process") == 2
    assert int(output.split()[0]) < 10


def test_it_cannot_gain_privileges(secret: Path, tmp_path: Path) -> None:
    """Not even as root of a namespace of its own, where it can still make one."""
    given = tmp_path / "given"
    given.mkdir()
    script = f"""mount -t tmpfs x /tmp && echo gained
        chroot / true && echo gained
        mount -o remount,rw,bind / && echo gained
        for way in "unshare -rm" "unshare -rmn" "unshare -rmpf"; do
            $way mount -o remount,rw,bind {given} && echo gained
            $way sh -c 'umount -l {given}; umount -l /tmp; cat {secret}; echo evil >{given}/new'
        done
        echo end"""
    output = inside(script, given)
    assert "gained" not in output
    assert "the key" not in output
    assert output.startswith("end")
    assert not [*given.iterdir()]


def test_it_ends_with_who_started_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in a session of its own would outlive a signal to the group."""
    monkeypatch.setattr(diffoscope, "TIMEOUT_S", 1.0)
    stand_in(tmp_path, f"setsid sleep 61.9{OWN} & exec sleep 61.9{OWN}", monkeypatch)
    assert "did not end within 1 s" in ask("x", (b"1", b"2")).note
    assert all_gone(f"61.9{OWN}")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("no-such-bwrap", "bubblewrap is not installed (apt-get install bubblewrap)"),
        ("refusing-bwrap", "setting up uid map: Permission denied"),
    ],
)
def test_without_a_sandbox_it_is_not_run(
    program: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Report and output say so; the program would have printed something if it had run."""
    refusing = tmp_path / "refusing-bwrap"
    refusing.write_text(
        "#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1"
    )
    refusing.chmod(0o755)
    monkeypatch.setattr(sandbox, "PROGRAM", os.fspath(tmp_path / program))
    stand_in(tmp_path, f"touch {tmp_path}/run; printf '1\\n2\\n3\\n'; exit 1", monkeypatch)
    document, messages = explained(make_run(tmp_path, UNKNOWN))
    assert document["diffoscope"].startswith("diffoscope was not run: ")
    assert reason in document["diffoscope"]
    assert f"explain: {document['diffoscope']}" in messages
    assert all(file["diffoscope"] is None for file in document["files"])
    assert not (tmp_path / "run").exists()
