"""Fetches a kit and keeps its description beside it, for `apply`."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from pipeline.errors import InfrastructureFailed, UsageError
from pipeline.files import put_in_place, sha256_file, write_bytes
from pipeline.kit.check import Upgrade
from pipeline.kit.description import Description
from pipeline.transfer import Client


def fetch_kit(
    url: str, upgrade: Upgrade, directory: Path, progress: Callable[[int, int], None]
) -> Path:
    """Fetch the kit of an upgrade; return its path.

    What broke off before goes on where it ended. Raise InputsUnverified if only wrong bytes are to
    be had, and keep nothing of them; UsageError if another file has the kit's name.
    """
    description = upgrade.description
    kit = directory / description.file
    if kit.exists():
        if kit.stat().st_size != description.size or sha256_file(kit) != description.sha256:
            raise UsageError(f"{kit} is there and is another file", remedy="move it away")
    else:
        _download(f"{url.rstrip('/')}/{quote(description.kit)}", description, kit, progress)
    write_bytes(kit.with_name(f"{kit.name}.json"), upgrade.envelope)
    return kit


def _download(
    address: str, description: Description, kit: Path, progress: Callable[[int, int], None]
) -> None:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, description.size)

    part = kit.with_name(f"{kit.name}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        with part.open("r+b") as file, Client() as client:
            size, sha256 = description.size, description.sha256
            client.download([address], file, size=size, sha256=sha256, limit=size, advance=advance)
        put_in_place(part, kit)
    except OSError as error:
        raise InfrastructureFailed(f"cannot write {part}: {error.strerror}") from error
    finally:
        if part.exists() and not part.stat().st_size:
            part.unlink()
