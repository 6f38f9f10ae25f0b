# SPDX-License-Identifier: GPL-3.0-or-later
"""Chooses the error for a file that no address could provide, by how each address failed."""

from collections.abc import Sequence
from urllib.parse import unquote

from pipeline.base.errors import InfrastructureFailed, InputsUnverified
from pipeline.base.part import WrongBytes
from pipeline.base.plain import plain
from pipeline.documents.public_address import NotPublic
from pipeline.documents.web_address import Misled, WebAddress

BARRED = (Misled, NotPublic)  # retrying is useless, but the file may exist


class Missing(InfrastructureFailed):
    """Every address answered, and none has the file."""


class NotServed(Exception):
    """The server's answer will not change: 404 and the like."""


def failure(urls: Sequence[WebAddress], problems: Sequence[Exception]) -> Exception:
    """Return the error for a file: wrong bytes take precedence, absence comes last."""
    name = unquote(urls[0].target) if urls else "a file without any address"
    hosts = ", ".join(dict.fromkeys(url.host for url in urls))
    detail = "\n".join(plain(str(problem)) for problem in problems)
    if any(isinstance(problem, WrongBytes) for problem in problems):
        what = f"{name} has wrong bytes at every address that has it: {hosts}"
        return InputsUnverified(plain(what), detail=detail)
    if all(isinstance(problem, NotServed) for problem in problems):
        return Missing(plain(f"no address has {name}: {hosts}"), detail=detail)
    barred = any(isinstance(problem, BARRED) for problem in problems)
    remedy = "see below which address is not followed, and why" if barred else "try again later"
    what = f"{name} could not be fetched from {hosts}"
    return InfrastructureFailed(plain(what), remedy=remedy, detail=detail)
