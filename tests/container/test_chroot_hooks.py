# SPDX-License-Identifier: GPL-3.0-or-later
"""What the shared hooks refuse, in a real Debian system: case by case."""

import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from docker import DockerClient

from pipeline.machines import engine

pytestmark = pytest.mark.container

HOOKS = Path(__file__).parents[2] / "hooks" / "chroot"
LIST = "/usr/share/image/accounts"
ACCOUNTS = f"""
mkdir -p {LIST.rpartition("/")[0]}
awk -F: '{{ print "user", $1, $3, $4 }}' /etc/passwd >{LIST}
awk -F: '{{ print "group", $1, $3 }}' /etc/group >>{LIST}
"""
# What cases change is as it was.
FRESH = """
rm -rf /home /opt /root /etc/ssh /etc/ssl /etc/x.pem /etc/krb5.keytab
rm -rf /var/k /var/lib/x /var/lib/systemd
mkdir -p /home /opt /root
cp /in/passwd /in/group /in/shadow /in/gshadow /etc
"""
PEM = "printf '%s\\n' '-----BEGIN {}PRIVATE KEY-----' MIIE '-----END {}PRIVATE KEY-----' >"
SECRET = "a secret that all who use the image would share"


@pytest.fixture(scope="module")
def box(client: DockerClient, host_image: str) -> Iterator[Any]:
    """A system that waits for what is to be done in it."""
    run_id = f"test-{secrets.token_hex(4)}"
    labels = {engine.LABEL: "test", engine.RUN_LABEL: f"{run_id}/alpha"}
    made = client.containers.create(
        host_image, ["sleep", "600"], labels=labels, network_mode="none"
    )
    try:
        engine.put(made, PurePosixPath("/"), {f"in/{path.name}": path for path in HOOKS.iterdir()})
        made.start()
        files = [f"/etc/{name}" for name in ("passwd", "group", "shadow", "gshadow")]
        assert made.exec_run(["cp", *files, "/in"]).exit_code == 0
        yield made
    finally:
        engine.sweep(client, run_id, "alpha")


@pytest.fixture
def hook(box: Any) -> Callable[[str, str], tuple[int, str]]:
    """Run a change and then a hook, as root; return its status and words."""

    def run(name: str, change: str) -> tuple[int, str]:
        done = box.exec_run(["sh", "-ec", f"{FRESH}{change}"])
        assert done.exit_code == 0, done.output
        done = box.exec_run(["sh", f"/in/{name}.hook.chroot"])
        return done.exit_code, done.output.decode()

    return run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("", ""),
        (f"sed -i '1i # a comment' {LIST}; echo '' >>{LIST}", ""),
        ("groupadd --gid 4242 new", f"group new has number 4242 and is not in {LIST}"),
        (
            "sed -i 's/^backup:x:34:34:/backup:x:35:34:/' /etc/passwd",
            f"user backup has number 35 34; {LIST} says 34 34",
        ),
        (
            "sed -i 's/^games:x:5:60:/games:x:5:0:/' /etc/passwd",
            f"user games has number 5 0; {LIST} says 5 60",
        ),
        ("sed -i /^irc:/d /etc/group", f"group irc is missing; {LIST} says 39"),
        (
            "echo games:x:0:60::/:/bin/sh >>/etc/passwd",
            f"user games has number 5 60 and 0 60; {LIST} says 5 60",
        ),
        (f"rm {LIST}", f"{LIST} is not there: no account is expected"),
        (f": >{LIST}", f"user root has number 0 0 and is not in {LIST}"),
    ],
)
def test_accounts_are_those_of_the_list(
    change: str, message: str, hook: Callable[[str, str], tuple[int, str]]
) -> None:
    status, words = hook("90-accounts", ACCOUNTS + change)
    assert status == (1 if message else 0), words
    assert message in words.splitlines() or not (message or words)


def test_another_order_of_installation_is_refused(
    hook: Callable[[str, str], tuple[int, str]],
) -> None:
    """Each takes the next free number: what packages do when they make a user of their own."""
    one = "useradd --system one\nuseradd --system two\n"
    other = "userdel one\nuserdel two\nuseradd --system two\nuseradd --system one\n"
    assert hook("90-accounts", one + ACCOUNTS) == (0, "")
    status, words = hook("90-accounts", one + ACCOUNTS + other)
    assert status == 1
    found = re.findall(r"^(user|group) (one|two) has number", words, re.MULTILINE)
    assert len(found) == len(words.splitlines()) == 4


def test_what_packages_make_is_removed(
    box: Any, hook: Callable[[str, str], tuple[int, str]]
) -> None:
    keys = ["/etc/ssh/ssh_host_rsa_key", "/etc/ssl/private/ssl-cert-snakeoil.key"]
    others = ["/etc/ssh/ssh_host_rsa_key.pub", "/etc/ssl/certs/ssl-cert-snakeoil.pem"]
    seed = "/var/lib/systemd/random-seed"
    change = "mkdir -p /etc/ssh /etc/ssl/private /etc/ssl/certs /var/lib/systemd\n"
    change += "".join(f"{PEM.format('', '')}{key}\n" for key in keys)
    change += "".join(f"echo public >{path}\n" for path in (*others, seed))
    change += "ln -s ssl-cert-snakeoil.pem /etc/ssl/certs/5d8f7a1c.0\n"
    assert hook("50-no-secrets", change) == (0, "")
    looks = box.exec_run(["find", "/etc/ssh", "/etc/ssl", "/var/lib/systemd", "!", "-type", "d"])
    assert looks.output == b""


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (f"{PEM.format('', '')}/etc/x.pem", "/etc/x.pem"),
        (f"{PEM.format('EC ', 'EC ')}/opt/x", "/opt/x"),
        (f"mkdir -p /home/live; {PEM.format('OPENSSH ', '')}'/home/live/a b'", "/home/live/a b"),
        (f"{PEM.format('', '')}/in/k; (head -c 9000 /dev/zero; cat /in/k) >/var/k", "/var/k"),
        ("mkdir -p /root/.gnupg/private-keys-v1.d; echo >/root/.gnupg/private-keys-v1.d/A.key", ""),
        ("mkdir -p /var/lib/x; echo >/var/lib/x/random-seed", "/var/lib/x/random-seed"),
        ("mkdir -p /var/lib/systemd; echo >/var/lib/systemd/credential.secret", ""),
        ("echo >/etc/krb5.keytab", "/etc/krb5.keytab"),
    ],
)
def test_any_other_secret_is_refused(
    change: str, path: str, hook: Callable[[str, str], tuple[int, str]]
) -> None:
    status, words = hook("50-no-secrets", change)
    assert status == 1, words
    assert f"{path}: {SECRET}" in words
