#!/usr/bin/python3
"""Greets in the language of the session, and tells which release of the system this is."""

import gettext
from pathlib import Path

_ = gettext.translation("greeter", fallback=True).gettext
RELEASE = Path("/etc/image-release")


def main() -> None:
    """Print the greeting."""
    print(_("Welcome."))
    print(_("Two machines built this system and came to the same bytes."))
    lines = RELEASE.read_text().splitlines() if RELEASE.exists() else []
    version = dict(line.split("=", 1) for line in lines if "=" in line).get("VERSION")
    if version:
        print(_("Its version is %s.") % version)


main()
