# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands, from the question whether there is an upgrade to the way back."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

from pipeline.base.errors import ExitStatus
from pipeline.cli import kit_tasks
from tests.archive_server import archive_server
from tests.installed import KitParts
from tests.unit.kits.conftest import FIRST, SECOND, Signer, Stick

NAME = "mini-amd64-3.1-to-3.2.iuk"


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Path:
    parts, folder = KitParts(FIRST, SECOND), tmp_path_factory.mktemp("public")
    (folder / "upgrades").mkdir()
    (folder / "3.2").mkdir()
    (folder / "3.2" / NAME).write_bytes(parts.pack())
    described = signer.describe(parts, parts.pack(), datetime.now(UTC))
    (folder / "upgrades" / "3.1.json").write_bytes(described)
    newest = signer.state("3.2", "3.2", now=datetime.now(UTC))
    (folder / "upgrades" / "3.2.json").write_bytes(newest)
    return folder


@pytest.fixture
def key(signer: Signer, tmp_path: Path) -> str:
    path = tmp_path / "key.gpg"
    path.write_bytes(signer.trust.keyring)
    return str(path)


def test_from_check_to_rollback(
    public: Path, key: str, stick: Stick, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kit = tmp_path / "kits" / NAME
    with archive_server(public) as server:
        kit_tasks.check(Context(), "3.1", server.url, keyring=key)
        kit_tasks.fetch(Context(), "3.1", server.url, directory=str(kit.parent), keyring=key)
    kit_tasks.apply(Context(), str(kit), str(stick.path), keyring=key)
    kit_tasks.apply(Context(), str(kit), str(stick.path), keyring=key)
    kit_tasks.rollback(Context(), str(stick.path))
    output = capsys.readouterr().out.splitlines()
    assert output[0].startswith("3.1 can be upgraded to 3.2: 3.2/mini-amd64-3.1-to-3.2.iuk")
    assert output[1:] == [
        f"fetched: {kit}",
        "3.2 is installed and boots from now on; 3.1 is still there",
        "3.2 is installed already: nothing to do",
        f"{stick.path} boots 3.1 now; 3.2 is still there",
    ]


def test_none_no_answer_and_no_server_are_three_things(
    public: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with archive_server(public) as server:
        kit_tasks.check(Context(), "3.2", server.url, keyring=key)
        kit_tasks.fetch(Context(), "3.2", server.url, keyring=key)
        none, nothing = capsys.readouterr().out.splitlines()
        assert none.startswith("nothing newer than 3.2, as of 20")
        assert nothing == f"{none}: nothing to fetch"
        server.faults["3.2.json"] = "404"
        with pytest.raises(Exit, match=r"3\.2\.json does not exist \(last known: nothing") as gone:
            kit_tasks.check(Context(), "3.2", server.url, keyring=key)
    with pytest.raises(Exit, match=r"cannot tell .*127\.0\.0\.1.*last known: nothing") as down:
        kit_tasks.check(Context(), "3.2", server.url, keyring=key)
    assert [gone.value.code, down.value.code] == [ExitStatus.INFRASTRUCTURE] * 2


def test_without_a_key(
    public: Path, stick: Stick, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kit_tasks, "pinned_key", lambda: tmp_path / "none.asc")
    actions: list[Callable[[], object]] = [
        lambda: kit_tasks.check(Context(), "3.1", "http://127.0.0.1:1"),
        lambda: kit_tasks.apply(Context(), str(public / "3.2" / NAME), str(stick.path)),
    ]
    for action in actions:
        with pytest.raises(Exit, match="no keyring was given") as caught:
            action()
        assert caught.value.code == ExitStatus.SIGNATURE


def test_the_pinned_key(
    public: Path, stick: Stick, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, signer: Signer
) -> None:
    monkeypatch.setattr(kit_tasks, "pinned_key", lambda: tmp_path / "release.asc")
    armoured = signer.home.export(signer.fingerprint, "--armor")
    (tmp_path / "release.asc").write_bytes(armoured)
    with archive_server(public) as server:
        kit_tasks.check(Context(), "3.1", server.url)
