# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds out whether KVM works by booting a kernel under it: that the device opens proves nothing.

Seen in the field: `/dev/kvm` opens, the firmware runs, but any Linux guest dies ("failed to set
MSR", endless emulation failures).
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from docker import DockerClient
from docker.errors import APIError

from pipeline.base.errors import InfrastructureFailed
from pipeline.base.files import read_json, write_json
from pipeline.machines import engine
from pipeline.machines.builder import MOUNTED, OUT
from pipeline.machines.engine import BUILDER_USER, LABEL

PROBE_S = 25
PROOF = b"twinbuild: this accelerator works"
DEVICE = "/dev/kvm"
OUTPUT_LIMIT = 256 * 1024
# One thread for all CPUs: with a thread for each, a CPU may still execute an instruction that
# another has just patched, and a kernel that flips a static key rarely dies of its own int3.
EMULATED = "tcg,thread=single"


@dataclass(frozen=True)
class Accelerator:
    """QEMU's accelerator for a machine; `kvm_group` is the group that may open the KVM device."""

    name: str  # "kvm" or "tcg"
    kvm_group: int | None = None


TCG = Accelerator("tcg")


def choose(client: DockerClient, host_image: str, builder_volume: str, cache: Path) -> Accelerator:
    """Return KVM if it works on this Engine, else TCG; the answer is kept in `cache`."""
    answer = (
        cache / "accelerators" / f"{client.info()['ID'].replace(':', '-')}-{host_image[-16:]}.json"
    )
    with suppress(InfrastructureFailed, KeyError, TypeError):  # no answer yet, or a damaged one
        known = read_json(answer, failure=InfrastructureFailed)
        return Accelerator(known["name"], known["kvm_group"])
    found = _probe(client, host_image, builder_volume)
    write_json(answer, {"name": found.name, "kvm_group": found.kvm_group})
    return found


def _probe(client: DockerClient, host_image: str, builder_volume: str) -> Accelerator:
    try:
        output = _run(client, host_image, ["stat", "-c", "%g", DEVICE], "root", [], {})
        group = int(output)
    except (APIError, ValueError):
        return TCG  # the Engine has no such device, or may not pass it on
    volumes = {builder_volume: {"bind": str(MOUNTED), "mode": "ro"}}
    command = ["timeout", "-s", "KILL", str(PROBE_S), "qemu-system-x86_64", "-accel", "kvm"]
    command += ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none"]
    command += ["-cpu", "host", "-m", "512", "-serial", "stdio", "-monitor", "none"]
    command += ["-kernel", f"{OUT}/vmlinuz", "-initrd", f"{OUT}/initrd.img"]
    command += ["-append", "console=ttyS0 panic=-1 quiet twinbuild.probe"]
    output = _run(client, host_image, command, f"{BUILDER_USER}:{BUILDER_USER}", [group], volumes)
    return Accelerator("kvm", group) if PROOF in output else TCG


def _run(
    client: DockerClient,
    host_image: str,
    command: list[str],
    user: str,
    groups: list[int],
    volumes: dict[str, dict[str, str]],
) -> bytes:
    container = client.containers.create(
        host_image,
        command,
        labels={LABEL: "probe"},
        user=user,
        group_add=groups,
        devices=[DEVICE],
        volumes=volumes,
        network_mode="none",
        read_only=True,
        tmpfs={"/tmp": "", "/var/tmp": ""},  # noqa: S108  the container's own
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        log_config=engine.LOG,
    )
    try:
        container.start()
        engine.wait(container, PROBE_S + 30)  # a probe that hangs counts as failed
        output: bytes = container.logs(stdout=True, stderr=False)
        return output[-OUTPUT_LIMIT:]
    finally:
        engine.remove(container)
