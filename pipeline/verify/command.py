# SPDX-License-Identifier: GPL-3.0-or-later
"""The command: its arguments, the order of the checks, what is printed."""

from __future__ import annotations

import argparse
import os
import re
import sys
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pipeline.documents.manifest import PART
from pipeline.documents.signatures import FINGERPRINT, read_keyring
from pipeline.documents.statement import Statement
from pipeline.verify.files import check_file, download
from pipeline.verify.gpgv import check_signature
from pipeline.verify.report import (
    DIFFERS,
    DONE,
    INFRASTRUCTURE,
    SIGNATURE,
    USAGE,
    Refused,
    VerificationReport,
    printable,
)
from pipeline.verify.statements import (
    check_job,
    check_statements,
    check_verdict,
    parse_manifest,
    read_statements,
)
from pipeline.verify.transfer import TIMEOUT_LIMIT_S, RemoteRelease, normal_url

UNREAD = 141  # as a program that SIGPIPE ends
MANIFEST_LIMIT = 16 * 1024 * 1024
SIGNATURE_LIMIT = 64 * 1024
KEYRING_LIMIT = 64 * 1024 * 1024
ENVIRONMENT_KEY = re.compile(r"([a-z][a-z0-9-]{0,39})=([0-9a-f]{64})")


def verify(options: argparse.Namespace, report: VerificationReport) -> None:
    """Do what was asked for and fill the report; raise Refused where it cannot go on."""
    keyring = _keyring(options.keyring)
    keys = _environment_keys(options.environment_key)
    release = RemoteRelease(options.url, options.tag, options.timeout)
    content = release.read("SHA256SUMS", MANIFEST_LIMIT)
    signature = release.read("SHA256SUMS.asc", SIGNATURE_LIMIT, absent=SIGNATURE)
    report.signer = check_signature(content, signature, keyring, options.fingerprint)
    report.proven.append(f"SHA256SUMS of {options.url} {options.tag} is signed by {report.signer}")
    report.verified.append("SHA256SUMS")
    manifest = parse_manifest(content)
    statements = read_statements(release.read, manifest, keys)
    common = check_statements(statements, manifest, options.tag)
    check_job(common)
    check_verdict(release.read, manifest, list(statements), common)
    report.repository, report.image, report.commit = common.repository, common.image, common.commit
    _check_pins(options, common)
    names = " and ".join(statements)
    report.proven.append(
        f"it says that {names} built {common.image} of {common.repository}, commit"
        f" {common.commit}, to the same bits"
    )
    report.verified += ["verdict.json", *(f"statements/{name}.json" for name in statements)]
    files = _check_files(options, release, manifest, report)
    report.verified += [name for name in files.values() if name not in report.verified]
    if files:
        known = [
            name if own in (name, Path(name).name) else f"{own} has the content of {name}"
            for own, name in files.items()
        ]
        shown = ", ".join(known[:3]) + (f" and {len(known) - 3} more" if len(known) > 3 else "")
        report.proven.append(f"what was signed is what you have: {shown}")
    report.not_proven = _not_proven(options, list(statements), set(files.values()), common)


def _environment_keys(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the environments' keys by name; no name and no key may stand twice."""
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise Refused(USAGE, "--environment-key names an environment twice")
    if len(set(keys.values())) != len(keys):
        names = ", ".join(sorted(keys))
        raise Refused(SIGNATURE, f"of {names}, two have the same key: they are not two parties")
    return keys


def _check_pins(options: argparse.Namespace, stated: Statement) -> None:
    """Raise Refused if the release is of another image, or of another repository, than asked for.

    One key may sign the releases of several.
    """
    for what, found in (("repository", stated.repository), ("image", stated.image)):
        wanted = getattr(options, what)
        if wanted is not None and wanted != found:
            raise Refused(SIGNATURE, f"the release is of the {what} {found}, not {wanted}")


def _not_proven(
    options: argparse.Namespace, names: list[str], files: set[str], stated: Statement
) -> list[str]:
    sentences = [
        "that source and Debian packages are harmless: both builds used the same ones",
        f"that {' and '.join(names)} are two parties: one operator may run both",
    ]
    unchecked = [name for name in names if name not in dict(options.environment_key)]
    if unchecked:
        sentences.append(f"that {', '.join(unchecked)} signed it (--environment-key NAME=HEX)")
    unpinned = [pin for pin in ("--repository", "--image") if getattr(options, pin[2:]) is None]
    if unpinned:
        sentences.append(f"that this is the project that you mean ({', '.join(unpinned)})")
    if not files:
        sentences.append("any file: none was checked (--file, --download)")
    elif not stated.artifacts.keys() >= files:
        sentences.append("that files other than the artifacts were built twice")
    return sentences


def _keyring(path: Path | None) -> bytes:
    """Return the keyring in binary form; without one nothing can be verified."""
    if path is None:
        raise Refused(SIGNATURE, "no keyring: give the release key that you trust by --keyring")
    try:
        with path.open("rb") as file:
            content = file.read(KEYRING_LIMIT + 1)
        if len(content) > KEYRING_LIMIT:
            raise ValueError(f"it is larger than {KEYRING_LIMIT} bytes")  # noqa: TRY301
        return read_keyring(content)
    except OSError as error:
        raise Refused(USAGE, f"cannot read the keyring {path}: {error.strerror}") from error
    except ValueError as error:
        raise Refused(USAGE, f"{path} is not a keyring: {error}") from error


def _check_files(
    options: argparse.Namespace,
    release: RemoteRelease,
    manifest: Mapping[str, str],
    report: VerificationReport,
) -> dict[str, str]:
    """Check and download every file asked for; take up what fails and go on with the next.

    Return the names in the manifest of those that hold, by what they are called here.
    """
    files = {}
    for path in options.file:
        try:
            files[path.name] = check_file(path, manifest)
        except Refused as refused:
            report.refuse(refused)
    for name in manifest if options.all else options.download:
        try:
            if name not in manifest:
                raise Refused(DIFFERS, f"{name!r} is not in the manifest")  # noqa: TRY301
            download(release, name, manifest[name], options.directory)
            files[name] = name
        except Refused as refused:
            report.refuse(refused)
    return files


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments as all else does."""

    def error(self, message: str) -> NoReturn:
        raise Refused(USAGE, message)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; raise Refused if it is wrong, SystemExit after `--help`."""
    parser = _parser()
    try:
        if any("\0" in argument for argument in argv):
            parser.error("an argument has a null character in it")
        options = parser.parse_args(argv)
    except Refused:
        if "--json" not in argv:
            _print(parser.format_usage(), sys.stderr)
        raise
    options.environment_key = [tuple(pair.split("=")) for pair in options.environment_key]
    return options


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="verify", description="Verify a release of Twinbuild.", allow_abbrev=False
    )
    add = parser.add_argument
    add("--url", required=True, type=_url, help="where the releases are (http, https or file)")
    add("--tag", required=True, type=_matching(PART), help="the release")
    add("--keyring", type=Path, help="the release key that you trust, a file")
    add("--fingerprint", type=_fingerprint, help="accept only this key of the keyring")
    add("--repository", metavar="URL", help="accept only a release that was built from there")
    add("--image", metavar="NAME", help="accept only a release of this image")
    add("--file", action="append", default=[], type=Path, help="a file that you have")
    add("--download", action="append", default=[], metavar="NAME", help="download and check")
    add("--all", action="store_true", help="download and check everything in the manifest")
    add("--directory", type=Path, default=Path(), help="where downloads go")
    add(
        "--environment-key",
        action="append",
        default=[],
        metavar="NAME=HEX",
        type=_matching(ENVIRONMENT_KEY.pattern),
        help="check the statement of an environment by its ed25519 key",
    )
    add("--json", action="store_true", help="print one JSON object")
    add("--timeout", type=_seconds, default=60.0, help="seconds to wait for a sign of life")
    return parser


def _url(value: str) -> str:
    try:
        parts = urllib.parse.urlsplit(value)
        if parts.query or parts.fragment or "?" in value:
            raise ValueError("it must have no ? and no #")  # noqa: TRY301
        return normal_url(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{printable(value)[:200]!r}: {error}") from error


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= TIMEOUT_LIMIT_S:
        raise argparse.ArgumentTypeError(f"it must be a number above 0, up to {TIMEOUT_LIMIT_S:g}")
    return seconds


def _fingerprint(value: str) -> str:
    fingerprint = re.sub(r"\s", "", value).upper().removeprefix("0X")
    if not FINGERPRINT.fullmatch(fingerprint):
        raise argparse.ArgumentTypeError("a full fingerprint has 40 (or 64) hexadecimal digits")
    return fingerprint


def _matching(pattern: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise argparse.ArgumentTypeError(f"{value[:80]!r} is not of the right form")
        return value

    return check


def _print(text: str, stream: Any) -> int:
    """Print text, escaped where the stream cannot have it; return the exit status of doing so."""
    encoding = getattr(stream, "encoding", None) or "ascii"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except BrokenPipeError:
        return UNREAD
    except (OSError, ValueError):
        return INFRASTRUCTURE
    return DONE


def main(argv: Sequence[str] | None = None) -> int:
    """Verify as the command line says, print the report, return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    report = VerificationReport(None)
    try:
        options = parse(arguments)
        report.tag = options.tag
        verify(options, report)
    except SystemExit as end:  # --help
        return int(end.code or 0)
    except Refused as refused:
        report.refuse(refused)
    except Exception as error:  # noqa: BLE001 - people and programs get a report in any case
        what = f"unexpected, please report it: {type(error).__name__}: {error}"
        report.refuse(Refused(INFRASTRUCTURE, what))
    if "--json" in arguments:
        printed = _print(report.as_json(), sys.stdout)
    elif report.tag is None:
        printed = _print(f"verify: error: {'; '.join(report.errors)}", sys.stderr)
    else:
        printed = _print(report.as_text(), sys.stdout)
    return report.status or printed


def _command() -> NoReturn:
    """Run as a program: nothing but the exit status is left to say once this has ended."""
    try:
        status = main()
    except KeyboardInterrupt:
        status = 130
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):  # nobody reads it any more: do not try again at the exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(status)


if __name__ == "__main__":
    _command()
