# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine: QEMU in an unprivileged container without network, with its disks and reports."""

import json
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from docker import DockerClient
from docker.errors import DockerException
from docker.models.containers import Container

from pipeline.base.errors import BuildFailed, InfrastructureFailed, InputsUnverified, TwinbuildError
from pipeline.base.plain import plain
from pipeline.documents.disks import (
    INPUT_DISK,
    LAYERS_DISK,
    OUTPUT_DISK,
    ROOT_DISK,
    SCRATCH_DISK,
    TREES_DISK,
)
from pipeline.documents.json_form import parse_json
from pipeline.documents.machine import Description
from pipeline.documents.progress import (
    LINE_LIMIT,
    PROGRESS_PORT,
    RECORD_LIMIT,
    SCRATCH_FULL,
    STATUS_BUILD_FAILED,
    STATUS_INFRASTRUCTURE,
    STATUS_INPUTS,
    Record,
)
from pipeline.farm.config import EnvironmentEntry, Variation, Vary
from pipeline.machines import engine
from pipeline.machines.accelerator import DEVICE, EMULATED, Accelerator
from pipeline.machines.builder import MOUNTED, OUT, Builder
from pipeline.machines.engine import BUILDER_USER, LABEL, LOG, RUN_LABEL

VOLUME = PurePosixPath("/machine")
# Created when the first files are put into it, so that the machine's user owns it.
WORK = VOLUME / "work"
OUTPUT = WORK / "output.raw"
# Without KVM, the emulated timer starves on a busy Engine, and the kernel would call it broken.
# Memory passes only between the machine's own programs, so clearing it would protect nobody.
KERNEL_PARAMETERS = "console=ttyS0 panic=-1 quiet mitigations=off init_on_alloc=0 no_timer_check"
# Set for the first program and the machine's own Python, not for the programs of steps: where
# vector instructions are emulated, OpenSSL's SHA-256 is nearly twice as fast without them.
TCG_PARAMETERS = "OPENSSL_ia32cap=0:0"
SCRATCH_SIZE = "32G"  # sparse
FULL_REMEDY = (
    f"it has {SCRATCH_SIZE[:-1]} GiB, or half of memory_mib where it is in memory: take content out"
    " of the image, or raise memory_mib in farm.yaml"
)
OUTPUT_SIZE = "16G"  # sparse
TREES, LAYERS = "trees.raw", "layers.raw"  # kept trees: input and output
LAYERS_BYTES = 16 * 1024**3  # sparse
OVERHEAD_MIB = 1536  # for QEMU itself, including translated code
TRANSLATION_CACHE_MIB = 512
PORTS_LIMIT = 128 * 1024 * 1024  # bytes of all of the machine's output
STEPS_LIMIT = 10_000
SILENCE_S = 240.0
TOTAL_S = 12 * 3600.0
END_S = 60.0  # between the end of a machine's output and of its container
READER_S = 10.0
PIDS_LIMIT = 128
ROOM_NEEDED = 1024 * 1024
FACTS_LIMIT = 40
TAIL_LINES = 15

FAILURES: dict[int, type[TwinbuildError]] = {
    STATUS_BUILD_FAILED: BuildFailed,
    STATUS_INFRASTRUCTURE: InfrastructureFailed,
    STATUS_INPUTS: InputsUnverified,
}
OUT_OF_MEMORY = "ran out of memory; give the environment more in farm.yaml"
# Kernel messages on the console of a machine that dies, and their meaning.
LAST_WORDS = {
    "Out of memory: Killed process": OUT_OF_MEMORY,
    "Kernel panic": "panicked",
}


@dataclass(frozen=True)
class Machine:
    """One machine: what it runs on and how it differs from the other one."""

    run_id: str
    environment: str
    host_image: str
    builder: Builder
    accelerator: Accelerator
    entry: EnvironmentEntry
    variation: Variation
    vary: Vary = "default"  # the requested level

    @property
    def name(self) -> str:
        """The name of its container and its volume."""
        return f"twinbuild-{self.run_id}-{self.environment}"

    def clock(self, now: datetime) -> str:
        """Return the time that its clock shows at `now`."""
        v = self.variation
        offset = timedelta(days=v.clock_offset_days, minutes=v.clock_offset_minutes)
        return f"{now + offset:%Y-%m-%dT%H:%M:%S}"

    @property
    def cpu_model(self) -> str:
        """QEMU's name of its CPU."""
        kvm = self.accelerator.name == "kvm"
        return self.variation.cpu_model_kvm if kvm else self.variation.cpu_model_tcg

    def argv(self, now: datetime) -> list[str]:
        """Return QEMU's arguments."""
        tcg = self.accelerator.name == "tcg"
        accelerator = f"{EMULATED},tb-size={TRANSLATION_CACHE_MIB}" if tcg else "kvm"
        parameters = f"{KERNEL_PARAMETERS} {TCG_PARAMETERS}" if tcg else KERNEL_PARAMETERS
        return [
            "qemu-system-x86_64",
            *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none"),
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
            *("-machine", self.variation.machine_type),
            *("-accel", accelerator),
            *("-cpu", self.cpu_model),
            *("-smp", str(self.entry.cpus), "-m", str(self.entry.memory_mib)),
            *("-rtc", f"base={self.clock(now)}"),
            *("-kernel", f"{OUT}/vmlinuz", "-initrd", f"{OUT}/initrd.img"),
            *("-append", parameters),
            *_disk(ROOT_DISK, f"{OUT}/root.img,readonly=on"),
            *_disk(INPUT_DISK, f"{WORK}/input.tar,readonly=on"),
            *_disk(SCRATCH_DISK, f"{WORK}/scratch.raw,cache=unsafe,discard=unmap"),
            *_disk(OUTPUT_DISK, f"{OUTPUT},cache=unsafe"),
            *_disk(TREES_DISK, f"{WORK}/{TREES},readonly=on"),
            *_disk(LAYERS_DISK, f"{WORK}/{LAYERS},cache=unsafe,discard=unmap"),
            *("-device", "virtio-serial-pci"),
            *("-chardev", "file,id=records,path=/dev/stdout"),
            *("-device", f"virtserialport,chardev=records,name={PROGRESS_PORT}"),
            *("-chardev", "file,id=console,path=/dev/stderr", "-serial", "chardev:console"),
        ]

    def describe(
        self, now: datetime, done: Record, begun: Iterable[Mapping[str, str]] = ()
    ) -> Description:
        """Return its part of the statement; `begun` are the kept trees that it began from."""
        return Description(
            accelerator=self.accelerator.name,
            builder=dict(self.builder.facts),
            clock=self.clock(now),
            cpu_model=self.cpu_model,
            cpus=self.entry.cpus,
            host_image=self.host_image,
            memory_mib=self.entry.memory_mib,
            varied=self.variation.factors(),
            vary=self.vary,
            facts=facts(done),
            kept_trees=tuple(begun),
        )


def _disk(serial: str, file: str) -> tuple[str, ...]:
    drive = f"if=none,id={serial},format=raw,file={file}"
    return "-drive", drive, "-device", f"virtio-blk-pci,drive={serial},serial={serial}"


def create(client: DockerClient, machine: Machine, argv: list[str]) -> Container:
    """Create its container: no root, capabilities or network; only a volume is writable."""
    label = {LABEL: "machine", RUN_LABEL: f"{machine.run_id}/{machine.environment}"}
    client.volumes.create(machine.name, labels=label)
    sizes = {"scratch.raw": SCRATCH_SIZE, OUTPUT.name: OUTPUT_SIZE, LAYERS: LAYERS_BYTES}
    sizes[TREES] = "'>1M'"  # a minimum: QEMU accepts no empty disk
    prepare = "; ".join(f"truncate -s {size} {WORK}/{name}" for name, size in sizes.items())
    cpus = min(machine.entry.cpus + 1, int(client.info()["NCPU"]))
    kvm_group = machine.accelerator.kvm_group
    return client.containers.create(
        machine.host_image,
        ["/bin/sh", "-ec", f'{prepare}; exec "$@"', "machine", *argv],
        name=machine.name,
        labels=label,
        user=f"{BUILDER_USER}:{BUILDER_USER}",
        volumes={
            machine.name: {"bind": str(VOLUME), "mode": "rw"},
            machine.builder.volume: {"bind": str(MOUNTED), "mode": "ro"},
        },
        devices=[DEVICE] if kvm_group is not None else [],
        group_add=[kvm_group] if kvm_group is not None else [],
        network_mode="none",
        read_only=True,
        tmpfs={"/tmp": "size=64m", "/var/tmp": "size=64m"},  # noqa: S108  the container's own
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        mem_limit=f"{machine.entry.memory_mib + OVERHEAD_MIB}m",
        nano_cpus=cpus * 1_000_000_000,
        pids_limit=PIDS_LIMIT,
        log_config=LOG,
    )


def follow(
    container: Container,
    console: BinaryIO,
    records: BinaryIO,
    notify: Callable[[Record], None],
    *,
    silence_s: float = SILENCE_S,
) -> Record:
    """Start a machine, follow it until it ends, and return its `done` record.

    The two files get the machine's output, within limits. Raise the error that the machine reports,
    or InfrastructureFailed if it hangs, panics, floods its ports or ends without a result.
    """
    last: Record | None = None
    reader = _Records()
    received = 0
    with closing(_pieces(container, silence_s)) as pieces:
        for stream, piece in pieces:
            received += len(piece)
            if received > PORTS_LIMIT:
                raise InfrastructureFailed("the machine floods its ports")
            if stream == "console":
                console.write(piece)
                continue
            for record, line in reader.feed(piece):
                if record.kind == "log":
                    console.write(_logged(record))
                elif record.kind in ("done", "failed"):
                    last = record
                records.write(line)
                notify(record)
    status = engine.wait(container, END_S)
    if last and last.kind == "done" and status == 0:
        return last
    raise _failure(last, status)


def facts(done: Record) -> dict[str, str]:
    """Return the facts in a machine's `done` record: at most FACTS_LIMIT short texts by name."""
    stated = done.fields.get("facts")
    pairs = list(stated.items())[:FACTS_LIMIT] if isinstance(stated, dict) else []
    return {plain(name, limit=40): plain(str(value), limit=200) for name, value in pairs}


def _logged(record: Record) -> bytes:
    return record.line[:LINE_LIMIT].encode(errors="backslashreplace") + b"\n"


def _failure(last: Record | None, status: int | None) -> TwinbuildError:
    if last is None or last.kind != "failed":
        return InfrastructureFailed(f"the machine ended without a result (QEMU's status {status})")
    kind = FAILURES.get(last.status or 0, InfrastructureFailed)
    what = plain(last.what)
    detail = "\n".join(plain(line) for line in last.detail[:10000].splitlines())
    remedy = FULL_REMEDY if SCRATCH_FULL in what else ""
    return kind(f"step {plain(last.step)}: {what}", remedy=remedy, detail=detail)


def last_words(console: Path) -> tuple[str | None, str]:
    """Return what the last lines on the console mean, None if unknown, and these lines."""
    with console.open("rb") as file:
        file.seek(max(0, console.stat().st_size - 65536))
        tail = file.read().decode(errors="replace")
    meaning = next((meaning for words, meaning in LAST_WORDS.items() if words in tail), None)
    return meaning, "\n".join(plain(line) for line in tail.splitlines()[-TAIL_LINES:])


class _Records:
    """Splits the stream of records into lines and parses them."""

    def __init__(self) -> None:
        self._rest = bytearray()  # mutable: each byte is copied only once
        self._steps = 0

    def feed(self, piece: bytes) -> Iterator[tuple[Record, bytes]]:
        """Yield the records that are now complete, each with its normalised line for the file."""
        for line in self._lines(piece):
            try:
                document = parse_json(line)
                record = Record.of(document)
                # Refuses NaN, which is not JSON, and nesting that would be too deep for readers.
                kept = json.dumps(document, sort_keys=True, allow_nan=False).encode() + b"\n"
            except (ValueError, RecursionError) as error:
                what = f"the machine sent a malformed record: {line[:200]!r}"
                raise InfrastructureFailed(what) from error
            self._steps += record.kind == "step"
            if self._steps > STEPS_LIMIT:
                raise InfrastructureFailed(f"the machine reports more than {STEPS_LIMIT} steps")
            yield record, kept

    def _lines(self, piece: bytes) -> Iterator[bytes]:
        first, *others = piece.split(b"\n")
        self._rest += first
        for other in others:
            yield bytes(self._rest)
            self._rest = bytearray(other)
        if len(self._rest) > RECORD_LIMIT:
            raise InfrastructureFailed("the machine sent a record without end")


def _pieces(container: Container, silence_s: float) -> Generator[tuple[str, bytes], None, None]:
    """Yield the machine's output, by stream; raise InfrastructureFailed if it falls silent."""
    arrived: queue.Queue[tuple[str, bytes] | None] = queue.Queue(maxsize=1000)
    enough = threading.Event()
    stream = container.attach(stream=True, demux=True)  # before the start, to miss nothing
    arguments = (stream, arrived, enough)
    reader = threading.Thread(target=_read, args=arguments, daemon=True, name="read a machine")
    reader.start()
    try:
        container.start()
        deadline = time.monotonic() + TOTAL_S
        while (item := _next(container, arrived, silence_s)) is not None:
            if time.monotonic() > deadline:
                hours = f"{TOTAL_S / 3600:g} hours"
                raise InfrastructureFailed(f"the machine did not end within {hours}")
            yield item
    finally:
        enough.set()
        with suppress(OSError, DockerException):
            stream.close()
            cast("Any", stream)._response.close()  # noqa: SLF001  the SDK leaves it open
        reader.join(READER_S)


def _read(
    stream: Iterable[tuple[bytes | None, bytes | None]],
    arrived: queue.Queue[tuple[str, bytes] | None],
    enough: threading.Event,
) -> None:
    """Move pieces from the stream to the queue until the stream ends or `enough` is set."""

    def hand_over(item: tuple[str, bytes] | None) -> None:
        while not enough.is_set():
            with suppress(queue.Full):
                arrived.put(item, timeout=0.2)
                break

    try:
        for out, err in stream:
            for name, piece in (("records", out), ("console", err)):
                if piece:
                    hand_over((name, piece))
    except (OSError, ValueError):
        if not enough.is_set():  # otherwise `_pieces` has closed it on purpose
            raise
    finally:
        hand_over(None)


def _next(
    container: Container, arrived: queue.Queue[tuple[str, bytes] | None], silence_s: float
) -> tuple[str, bytes] | None:
    try:
        return arrived.get(timeout=silence_s)
    except queue.Empty:
        what = f"the machine gave no sign of life for {silence_s:g} s"
        if not _has_room(container):  # QEMU pauses a machine when the disk is full
            what = "there is no room left on the Docker Engine's disk"
        raise InfrastructureFailed(what) from None


def _has_room(container: Container) -> bool:
    try:
        output = container.exec_run(["stat", "-f", "-c", "%a %S", str(VOLUME)]).output
        blocks, size = map(int, cast("bytes", output).split())
    except (DockerException, ValueError):
        return True  # unknown: assume that there is room
    return blocks * size >= ROOM_NEEDED


def now() -> datetime:
    """Return the present time, in UTC."""
    return datetime.now(UTC)
