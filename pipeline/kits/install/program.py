# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of `upgrade.pyz`: asks, fetches, applies and goes back, on an installed system.

It does what `kit.check`, `kit.fetch`, `kit.apply` and `kit.rollback` of the farm do, by the same
code, with Python and gpgv alone.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pipeline.documents.plain import plain, plain_lines
from pipeline.kits.install.apply import apply_kit
from pipeline.kits.install.check import Upgrade, check_upgrade
from pipeline.kits.install.description import Trust, load_trust
from pipeline.kits.install.failure import Failure, InfrastructureFailed
from pipeline.kits.install.fetch import fetch_kit
from pipeline.kits.install.rollback import roll_back

REPEAT_EVERY_S = 5.0
UNREAD = 141  # as a program that SIGPIPE ends
INTERRUPTED = 130
MIB = 1024 * 1024

ABOUT = """\
Upgrades a system that was written from a USB image of Twinbuild's, from one release to a later
one. It believes only what the release key has signed, and writes so that a power cut at any moment
leaves the old release or the new one.
"""
HOW = """\
how an upgrade is done, URL being where releases are published and release.asc the release key, from
someone you trust:
  python3 upgrade.pyz check --image NAME --from 3.1 --url URL --keyring release.asc
  python3 upgrade.pyz fetch --image NAME --from 3.1 --url URL --keyring release.asc
  python3 upgrade.pyz apply --kit NAME-amd64-3.1-to-3.3.iuk --target /dev/sdX --keyring release.asc
  python3 upgrade.pyz rollback --target /dev/sdX     if the new release does not do

exit status:
  0  done; for check: it is known whether there is an upgrade, be there one or not
  2  wrong usage: an option, the wrong kit or target, a target in use, gpgv is missing
  4  the medium or the network failed, or nobody can tell whether there is an upgrade; try again
  5  the kit or its description is malformed or another one
  6  a signature is missing, bad, expired or not from a trusted key
"""


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks for; return the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        options = parse(arguments)
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    except KeyboardInterrupt:
        _note("interrupted; the target boots as before, or as the last message says")
        return INTERRUPTED
    except Failure as failure:
        return _failed(failure)
    except OSError as error:
        return _failed(InfrastructureFailed(f"{error.filename or 'a file'}: {error.strerror}"))
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options; `run` is what does it. End with status 2 if they are wrong."""
    return _parser().parse_args(arguments)


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "upgrade.pyz", description=ABOUT, epilog=HOW, formatter_class=raw, allow_abbrev=False
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add = partial(_add, commands.add_parser)
    check = add("check", _check, "ask whether there is an upgrade")
    fetch = add("fetch", _fetch, "fetch the kit of an upgrade; an interrupted download is resumed")
    for asking in (check, fetch):
        asking.add_argument("--image", required=True, metavar="NAME", help="the image's name")
        asking.add_argument(
            "--from", required=True, metavar="RELEASE", dest="start",
            help="the release that the system was installed as",
        )  # fmt: skip
        asking.add_argument("--url", required=True, help="where releases are published")
    fetch.add_argument(
        "--directory", default=".", help="where the kit goes, made if need be; default: here"
    )
    apply = add("apply", _apply, "upgrade the installed system; the release before stays bootable")
    apply.add_argument(
        "--kit", required=True, metavar="FILE", help="the kit; its description lies beside it"
    )
    back = add("rollback", _roll_back, "boot the previous release; a second call reverses it")
    for writing in (apply, back):
        writing.add_argument(
            "--target", required=True, metavar="DEVICE", help="the device, or an image file"
        )
    for trusting in (check, fetch, apply):
        trusting.add_argument(
            "--keyring", required=True, metavar="FILE",
            help="the release key, armoured or binary, from someone you trust",
        )  # fmt: skip
        trusting.add_argument(
            "--fingerprint", metavar="HEX", help="of the keyring's keys, the one that counts"
        )
    return parser


def _add(
    make: Callable[..., argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], None],
    about: str,
) -> argparse.ArgumentParser:
    more = "upgrade.pyz --help shows how an upgrade is done, and lists the exit statuses."
    parser = make(name, help=about, description=about, epilog=more, allow_abbrev=False)
    parser.set_defaults(run=run)
    return parser


def _trust(options: argparse.Namespace) -> Trust:
    fingerprint = "".join((options.fingerprint or "").split()).upper()
    return load_trust(Path(options.keyring), fingerprint or None)


def _asked(options: argparse.Namespace) -> Upgrade:
    now = datetime.now(UTC)
    return check_upgrade(options.url, options.start, options.image, _trust(options), now)


def _check(options: argparse.Namespace) -> None:
    _print(str(_asked(options).description))


def _fetch(options: argparse.Namespace) -> None:
    found = _asked(options)
    offer = found.description.offer
    if offer is None:
        _print(f"{found.description}: nothing to fetch")
        return
    watch = partial(_Watch(), f"fetching {offer.file}")
    _print(f"fetched: {fetch_kit(options.url, found, Path(options.directory), watch)}")


def _apply(options: argparse.Namespace) -> None:
    kit, target, now = Path(options.kit), Path(options.target), datetime.now(UTC)
    _print(str(apply_kit(kit, target, _trust(options), _Watch(), now)))


def _roll_back(options: argparse.Namespace) -> None:
    switch = roll_back(Path(options.target))
    _print(f"{options.target} boots {switch.version} now; {switch.previous} is still there")


class _Watch:
    """Prints the current step, in lines, on standard error: each step, and how far it is."""

    def __init__(self) -> None:
        self._step, self._shown = "", 0.0

    def __call__(self, step: str, done: int, total: int) -> None:
        if step != self._step:
            self._step, self._shown = step, time.monotonic()
            _note(f"{step} …")
        elif time.monotonic() - self._shown > REPEAT_EVERY_S:
            self._shown = time.monotonic()
            _note(f"{step}: {done / MIB:.0f} of {total / MIB:.0f} MiB")


def _print(line: str) -> None:
    print(plain(line))  # noqa: T201


def _note(line: str) -> None:
    print(plain(line), file=sys.stderr)  # noqa: T201


def _failed(failure: Failure) -> int:
    _note(f"error: {failure}")
    if failure.detail:
        print(plain_lines(failure.detail), file=sys.stderr)  # noqa: T201
    return failure.status
