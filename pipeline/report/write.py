# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the report of a run, in all its forms, into `runs/<id>/report/`."""

from collections.abc import Callable
from pathlib import Path

from pipeline.base.files import write_bytes
from pipeline.documents.json_form import json_bytes
from pipeline.farm.run import Run
from pipeline.report import junit, markdown, page
from pipeline.report.content import collect

PAGE, MARKDOWN, JSON, JUNIT = "index.html", "report.md", "report.json", "report.xml"


def write_report(run: Run, *, notify: Callable[[str], None]) -> Path:
    """Write the report of a run, whatever its state; return the page.

    Raise InfrastructureFailed if the disk is full.
    """
    report = collect(run)
    folder = run.folder / "report"
    files = {
        JSON: json_bytes(report),
        MARKDOWN: markdown.render(report).encode(),
        JUNIT: junit.render(report),
        PAGE: page.render(report).encode(),
    }
    for name, content in files.items():
        write_bytes(folder / name, content)
    notify(f"report: {folder / PAGE}")
    return folder / PAGE
