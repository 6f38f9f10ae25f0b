"""What this system is, as its build wrote it into /etc/image-release."""

from pathlib import Path

FIELDS = {
    "IMAGE": "image",
    "VERSION": "version",
    "COMMIT": "built from the commit",
}


def describe(path: Path = Path("/etc/image-release")) -> list[str]:
    """Return a line for each thing that is known of this system."""
    said = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
    return [f"{words}: {said[name]}" for name, words in FIELDS.items() if name in said]
