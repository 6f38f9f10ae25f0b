# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine is started with, and what is made of all that it may say."""

import io
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.base.errors import BuildFailed, InfrastructureFailed, InputsUnverified, TwinbuildError
from pipeline.documents.progress import RECORD_LIMIT, RECORDS, Record
from pipeline.farm.config import EnvironmentEntry, Variation, load_environment
from pipeline.machines import machine
from pipeline.machines.accelerator import TCG, Accelerator
from pipeline.machines.builder import Builder
from pipeline.machines.machine import Machine

HOSTS = Path(__file__).parents[3] / "images" / "hosts"
NOW = datetime(2026, 2, 27, 23, 59, 58, 999999, tzinfo=UTC)
DONE = {"record": "done", "facts": {"kernel": "6.12"}}


class Speaker:
    """Stands in for a container, as far as `follow` knows it: its streams and its end."""

    def __init__(self, pieces: Sequence[tuple[bytes, bytes]], status: int = 0) -> None:
        self.name = "speaker"
        self._pieces = pieces
        self._status = status
        self._closed = threading.Event()
        self._response = self  # of the SDK's stream

    def attach(self, **_: object) -> "Speaker":
        return self

    def start(self) -> None:
        pass

    def __iter__(self) -> Iterator[tuple[bytes | None, bytes | None]]:
        for out, err in self._pieces:
            yield out or None, err or None
        if self._status == HANGS:
            self._closed.wait()

    def close(self) -> None:
        self._closed.set()

    def wait(self, timeout: float) -> dict[str, int]:
        return {"StatusCode": self._status}

    def exec_run(self, _: list[str]) -> "Speaker":
        return self

    output = b"1000000 4096\n"


HANGS = -1


def line(**record: Any) -> bytes:
    return json.dumps(record).encode() + b"\n"


def follow(
    *pieces: bytes | tuple[bytes, bytes], status: int = 0, silence_s: float = 20.0
) -> tuple[Record, bytes, bytes, list[Record]]:
    console, records = io.BytesIO(), io.BytesIO()
    notes: list[Record] = []
    speaker = Speaker([s if isinstance(s, tuple) else (s, b"") for s in pieces], status)
    before = threading.active_count()
    try:
        done = machine.follow(
            speaker,  # type: ignore[arg-type]
            console,
            records,
            notes.append,
            silence_s=silence_s,
        )
    finally:
        assert threading.active_count() == before  # nobody goes on reading
    return done, console.getvalue(), records.getvalue(), notes


def test_what_it_says_is_kept_and_passed_on() -> None:
    stream = line(record="step", step="10-inputs") + line(record="log", line="unpacking …")
    done, console, records, notes = follow(
        (b"", b"booting\r\n"), stream[:30], stream[30:] + line(**DONE)
    )
    assert done.fields == DONE
    assert console == "booting\r\nunpacking …\n".encode()
    assert [json.loads(record) for record in records.splitlines()] == [r.fields for r in notes]
    assert [record.kind for record in notes] == ["step", "log", "done"]


@pytest.mark.parametrize("status", [1, 127, 137])
def test_done_counts_only_if_qemu_ends_well(status: int) -> None:
    with pytest.raises(InfrastructureFailed, match=f"without a result .*{status}"):
        follow(line(**DONE), status=status)


def test_no_word_is_no_result() -> None:
    with pytest.raises(InfrastructureFailed, match="without a result"):
        follow((b"", b"some console"))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (3, BuildFailed),
        (4, InfrastructureFailed),
        (5, InputsUnverified),
        (0, InfrastructureFailed),
        (-3, InfrastructureFailed),
        (6, InfrastructureFailed),
        (10**30, InfrastructureFailed),
        ("3", InfrastructureFailed),
        (None, InfrastructureFailed),
        ([3], InfrastructureFailed),
        ({"3": 3}, InfrastructureFailed),
    ],
)
def test_a_failure_has_one_of_three_statuses(status: object, kind: type[TwinbuildError]) -> None:
    with pytest.raises(kind) as caught:
        follow(line(record="failed", status=status, step="40-hooks/x", what="x failed", detail="d"))
    assert type(caught.value) is kind
    assert caught.value.what == "step 40-hooks/x: x failed"
    assert caught.value.detail == "d"


def test_a_full_scratch_disk_is_reported_with_its_size_and_what_to_do() -> None:
    what = "mksquashfs: the scratch disk is full"
    with pytest.raises(InfrastructureFailed) as caught:
        follow(line(record="failed", status=4, step="70-squashfs", what=what))
    assert str(caught.value).startswith("step 70-squashfs: mksquashfs: the scratch disk is full; ")
    assert "32 GiB" in caught.value.remedy
    assert "memory_mib in farm.yaml" in caught.value.remedy


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"what": None, "detail": ["x"], "step": 7},
        {"what": "\x1b]0;owned\x07\n\x9b31m" * 100, "detail": "\x1b[2J\n\x00\u202e", "step": "\r"},
        {"what": "\ud800", "detail": "\udfff" * 20000, "step": "\ud800"},
    ],
)
def test_a_failure_cannot_write_on_the_terminal(fields: dict[str, Any]) -> None:
    with pytest.raises(InfrastructureFailed) as caught:
        follow(line(record="failed", **fields))
    assert caught.value.what.isprintable()
    assert len(caught.value.what) < 1100
    assert all(one.isprintable() for one in caught.value.detail.split("\n"))
    assert len(caught.value.detail) < 100_000


MALFORMED = [
    b"\n",
    b"{}\n",
    b"[]\n",
    b"3\n",
    b'"record"\n',
    b"null\n",
    b'{"record": 3}\n',
    b'{"record": ["log"]}\n',
    b'{"record": "note", "line": "not a word of machines"}\n',
    b'{"record": "log", "line": NaN}\n',
    b'{"record": "step-done", "seconds": 1e999}\n',
    b'{"record": "log"\n',
    b'{"record": "log", "record": "done"}\n',
    b'{"record": "log", "line": "\xff"}\n',
    b"[" * 100_000 + b"\n",
    b'{"record": "log", "line": ' + b"[" * 900 + b"]" * 900 + b"}x\n",
    b"9" * 5000 + b"\n",
    '{"record": "log"}\n'.encode("utf-16"),
]


@pytest.mark.parametrize("record", MALFORMED)
def test_what_is_no_record_ends_it(record: bytes) -> None:
    with pytest.raises(InfrastructureFailed, match="malformed record") as caught:
        follow(record, line(**DONE))
    assert str(caught.value).isprintable()


def test_a_record_in_pieces_of_a_byte_takes_no_longer_than_its_length() -> None:
    """The attacker holds the machine: a record of 1 MB byte by byte took nine minutes."""
    whole = line(record="log", line="x" * 300_000)
    reader = machine._Records()
    began = time.process_time()
    found = [kept for byte in whole for kept in reader.feed(bytes([byte]))]
    assert [record.line for record, _ in found] == ["x" * 300_000]
    assert time.process_time() - began < 5


def test_a_record_has_an_end() -> None:
    with pytest.raises(InfrastructureFailed, match="without end"):
        follow(*[b" " * 65536] * (RECORD_LIMIT // 65536 + 1))


def test_a_line_that_is_no_text_reaches_the_log() -> None:
    _, console, records, _ = follow(line(record="log", line="a\ud800b\x1b") + line(**DONE))
    assert console == b"a\\ud800b\x1b\n"
    assert json.loads(records.splitlines()[0])["line"] == "a\ud800b\x1b"


@pytest.mark.parametrize("port", ["console", "records"])
def test_a_flood_ends_it(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PORTS_LIMIT", 1024 * 1024)
    burst = line(record="log", line="x" * 1000) * 60
    flood = [(b"", burst) if port == "console" else (burst, b"")] * 2000
    with pytest.raises(InfrastructureFailed, match="floods"):
        follow(*flood)


def test_a_flood_of_steps_ends_it() -> None:
    with pytest.raises(InfrastructureFailed, match="10000 steps"):
        follow(line(record="step", step="x") * 10_001)


def test_silence_ends_it() -> None:
    with pytest.raises(InfrastructureFailed, match=r"no sign of life for 0\.05 s"):
        follow(line(record="step", step="x"), status=HANGS, silence_s=0.05)


def test_a_full_disk_is_not_taken_for_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Speaker, "output", b"3 4096\n")
    with pytest.raises(InfrastructureFailed, match="no room left"):
        follow(status=HANGS, silence_s=0.05)


def test_an_error_of_the_listener_frees_the_reader() -> None:
    def fails(_: Record) -> None:
        raise RuntimeError

    speaker = Speaker([(line(record="alive"), b"")] * 5000, HANGS)
    before = threading.active_count()
    with pytest.raises(RuntimeError):
        machine.follow(speaker, io.BytesIO(), io.BytesIO(), fails)  # type: ignore[arg-type]
    assert threading.active_count() == before


def test_a_full_disk_here_frees_the_reader() -> None:
    speaker = Speaker([(b"", b"x" * 65536)] * 5000, HANGS)
    before = threading.active_count()
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError, match="space"):
        machine.follow(speaker, full, io.BytesIO(), print)  # type: ignore[arg-type]
    assert threading.active_count() == before


text = st.text(st.characters(), max_size=9)
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | text,
    lambda inner: st.lists(inner) | st.dictionaries(text, inner),
    max_leaves=5,
)


@settings(max_examples=40)
@given(
    st.lists(
        st.binary(max_size=50)
        | st.dictionaries(
            st.sampled_from(["step", "line", "status", "what", "detail", "facts", "seconds"]),
            json_values,
            max_size=3,
        ).flatmap(
            lambda fields: st.sampled_from([*RECORDS, "note"]).map(
                lambda kind: line(**fields, record=kind)
            )
        ),
        max_size=5,
    ),
    st.integers(1, 64),
)
def test_whatever_it_says_ends_in_a_result_or_an_error_of_ours(lines: list[bytes], n: int) -> None:
    stream = b"".join(lines)
    try:
        done, *_ = follow(*[stream[i : i + n] for i in range(0, len(stream), n)])
        shown = [f"{name}{text}" for name, text in machine.facts(done).items()]
    except TwinbuildError as error:
        shown = [str(error)]
    assert all(text.isprintable() for text in shown)


@pytest.mark.parametrize("facts", [None, "text", 3, ["a", "b"], [["a", "b"]], True])
def test_facts_of_another_shape_are_none(facts: object) -> None:
    assert machine.facts(Record("done", fields={"facts": facts})) == {}


def test_facts_are_few_and_short() -> None:
    many = {f"{n} " * 100: {"x": "y" * 1000} for n in range(1000)}
    found = machine.facts(Record("done", fields={"facts": many}))
    assert len(found) == machine.FACTS_LIMIT
    assert all(len(name) <= 40 and len(text) <= 200 for name, text in found.items())


@pytest.mark.parametrize(
    ("console", "meaning"),
    [
        (b"", None),
        (b"all is well\n", None),
        (b"Kernel panic - not syncing: x\r\n" + b"x" * 60000, "panicked"),
        (b"Kernel panic - not syncing: x\n" + b"x" * 70000, None),
        (b"Out of memory: Killed process 7 (x)\nKernel panic", machine.OUT_OF_MEMORY),
    ],
)
def test_last_words(console: bytes, meaning: str | None, tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_bytes(console)
    assert machine.last_words(path)[0] == meaning


def test_last_words_are_few_and_safe(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_bytes(b"".join(b"\x1b[31m%d\xff\r\n" % n for n in range(99)) + os.urandom(999))
    words = machine.last_words(path)[1].split("\n")
    assert len(words) <= machine.TAIL_LINES
    assert all(word.isprintable() for word in words)


def made(name: str, accelerator: Accelerator = TCG, **changes: Any) -> Machine:
    variation = load_environment(HOSTS / name / "environment.yaml").varied(changes)
    entry = EnvironmentEntry(memory_mib=3072, cpus=3)
    builder = Builder("twinbuild-builder-x", {"kernel": "6.1"})
    return Machine("run", name, "sha256:0", builder, accelerator, entry, variation)


def options(argv: list[str], name: str) -> list[str]:
    return [value for option, value in pairwise(argv) if option == name]


def test_the_two_machines_differ() -> None:
    alpha, beta = (made(name).argv(NOW) for name in ("alpha", "beta"))
    for option in ("-machine", "-cpu", "-rtc"):
        assert options(alpha, option) != options(beta, option)


def test_qemu_is_confined() -> None:
    argv = made("alpha").argv(NOW)
    assert options(argv, "-nic") == ["none"]
    assert options(argv, "-sandbox") == [
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    ]
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(argv)
    read_only = ["readonly=on" in drive for drive in options(argv, "-drive")]
    # root, input, scratch, output, trees, layers
    assert read_only == [True, True, False, False, True, False]
    assert not [device for device in options(argv, "-device") if not device.startswith("virt")]


def test_the_accelerator_decides_on_the_cpu() -> None:
    tcg, kvm = made("beta").argv(NOW), made("beta", Accelerator("kvm", 107)).argv(NOW)
    assert options(tcg, "-accel") == ["tcg,thread=single,tb-size=512"]
    assert options(tcg, "-cpu") == ["Nehalem,-cx16"]
    assert (options(kvm, "-accel"), options(kvm, "-cpu")) == (["kvm"], ["Nehalem"])
    slow, fast = (set(options(argv, "-append")[0].split()) for argv in (tcg, kvm))
    assert slow - fast == {machine.TCG_PARAMETERS}


@pytest.mark.parametrize(
    ("days", "minutes", "shown"),
    [
        (2, 0, "2026-03-01T23:59:58"),
        (0, 0, "2026-02-27T23:59:58"),
        (-58, 0, "2025-12-31T23:59:58"),
        (-58, -437, "2025-12-31T16:42:58"),
        (1, 1, "2026-03-01T00:00:58"),
    ],
)
def test_the_clock_is_offset_by_days_and_to_another_time_of_day(
    days: int, minutes: int, shown: str
) -> None:
    machine = made("alpha", clock_offset_days=days, clock_offset_minutes=minutes)
    assert machine.clock(NOW) == shown
    assert options(machine.argv(NOW), "-rtc") == [f"base={shown}"]


def test_every_factor_and_its_value_is_described() -> None:
    description = made("alpha", environment_variables={"ABCDEFGH": "x"}).describe(
        NOW, Record("done")
    )
    described = description.document()
    assert described["varied"].keys() == Variation.model_fields.keys()
    assert described["varied"]["environment_variables"] == {"ABCDEFGH": "x"}
    assert described["vary"] == "default"
    assert json.loads(json.dumps(described)) == described
