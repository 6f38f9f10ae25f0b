# SPDX-License-Identifier: GPL-3.0-or-later
import contextlib
import multiprocessing
from hashlib import sha256
from pathlib import Path

import pytest

from pipeline.base.cache_folder import default_cache
from pipeline.base.errors import InputsUnverified
from pipeline.base.store import Store

CONTENT = b"content of a file\n" * 1000
DIGEST = sha256(CONTENT).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def everything_in(store: Store) -> list[Path]:
    return [path for path in store.root.rglob("*") if path.is_file()]


def test_a_file_is_found_by_digest_and_size(store: Store) -> None:
    assert not store.has(DIGEST)
    path = store.add(DIGEST, len(CONTENT), [CONTENT[:7], CONTENT[7:]])
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o444
    assert store.has(DIGEST)
    assert store.has(DIGEST, len(CONTENT))
    assert not store.has(DIGEST, 1)


@pytest.mark.parametrize("wrong", [b"", CONTENT[:-1], CONTENT + b"x", b"X" + CONTENT[1:]])
def test_wrong_bytes_never_enter(store: Store, wrong: bytes) -> None:
    with pytest.raises(InputsUnverified):
        store.add(DIGEST, len(CONTENT), [wrong])
    with pytest.raises(InputsUnverified), store.receiving(DIGEST) as file:
        file.write(wrong)
    assert not everything_in(store)


def test_a_partial_download_is_the_beginning_next_time(store: Store) -> None:
    with contextlib.suppress(ConnectionError), store.receiving(DIGEST) as file:
        file.write(CONTENT[:100])
        raise ConnectionError
    assert not store.has(DIGEST)
    with store.receiving(DIGEST) as file:
        assert file.read() == CONTENT[:100]
        file.write(CONTENT[100:])
    assert everything_in(store) == [store.path(DIGEST)]


def test_two_writers_of_one_file_do_not_meet(store: Store) -> None:
    with store.receiving(DIGEST) as first, store.receiving(DIGEST) as second:
        first.write(CONTENT[:10])
        assert second.read() == b""
        second.write(CONTENT)
        first.write(CONTENT[10:])
    assert everything_in(store) == [store.path(DIGEST)]
    assert store.path(DIGEST).read_bytes() == CONTENT


def _fill(root: Path, names: list[str]) -> None:
    store = Store(root)
    for name in names:
        content = name.encode() * 10_000
        with store.receiving(sha256(content).hexdigest()) as file:
            file.seek(0)
            for start in range(0, len(content), 999):
                file.write(content[start : start + 999])
            file.truncate()


def test_several_processes_fill_it_at_once(store: Store) -> None:
    names = [f"file-{number}" for number in range(30)]
    context = multiprocessing.get_context("fork")
    fillers = [context.Process(target=_fill, args=(store.root, names)) for _ in range(4)]
    for filler in fillers:
        filler.start()
    for filler in fillers:
        filler.join()
    assert [filler.exitcode for filler in fillers] == [0] * 4
    digests = {sha256(name.encode() * 10_000).hexdigest() for name in names}
    assert {path.name for path in everything_in(store)} == digests
    assert not any(store.damaged(digest) for digest in digests)


def test_damage_is_seen(store: Store) -> None:
    path = store.add(DIGEST, len(CONTENT), [CONTENT])
    assert not store.damaged(DIGEST)
    path.chmod(0o644)
    path.write_bytes(CONTENT[:-1] + b"x")
    assert store.damaged(DIGEST)
    store.discard(DIGEST)
    assert not store.has(DIGEST)


def test_the_cache_is_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TWINBUILD_CACHE", raising=False)
    assert default_cache() == tmp_path / "twinbuild"
    monkeypatch.setenv("TWINBUILD_CACHE", str(tmp_path / "other"))
    assert default_cache() == tmp_path / "other"
