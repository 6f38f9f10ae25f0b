# SPDX-License-Identifier: GPL-3.0-or-later
"""The report in a real browser: light, dark, on a phone, with scripts and without."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.compare.explain import explain
from pipeline.compare.verdict import run_compare
from pipeline.report.write import write_report
from tests.differing_run import VARIED, built_at, fail, make_run

pytestmark = pytest.mark.container  # it takes seconds for each look, too long for unit tests

SHOTS = Path(__file__).parents[2] / ".cache" / "test-artifacts"
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--hide-scrollbars",
]
DARK = "--blink-settings=preferredColorScheme=0"
HOSTILE = "etc/<img src=x onerror=document.title=1>\x1b[31m"
# Added to a copy of the page by the test itself, with a policy that lets it run.
MEASURE = """
document.querySelectorAll("details").forEach(d => d.open = true);
const luminance = c => {
  const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = e => {
  for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor;
    if (c !== "rgba(0, 0, 0, 0)" && c !== "transparent") return c;
  }
  return "rgb(255, 255, 255)";
};
let worst = {ratio: 99};
for (const e of document.querySelectorAll("body *")) {
  if (!Array.from(e.childNodes).some(n => n.nodeType === 3 && n.textContent.trim())) continue;
  if (!e.getClientRects().length || e.matches("script, .skip")) continue;
  const [a, b] = [luminance(getComputedStyle(e).color), luminance(ground(e))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  const text = e.textContent.slice(0, 40);
  if (ratio < worst.ratio) worst = {ratio, tag: e.tagName, name: e.className, text};
}
const log = document.querySelector("input");
let filtered = -1;
if (log) {
  log.value = "LINUX";
  log.dispatchEvent(new Event("input"));
  filtered = Array.from(document.querySelector("pre.lines").children).filter(l => !l.hidden).length;
}
document.documentElement.dataset.measured = btoa(JSON.stringify({
  worst, filtered, width: document.documentElement.scrollWidth, window: innerWidth,
  images: document.images.length, title: document.title,
  unlabelled: Array.from(document.querySelectorAll("input")).filter(i => !i.labels.length).length,
  dark: matchMedia("(prefers-color-scheme: dark)").matches,
}));
"""
AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
# Run in a copy of the page as MEASURE: every rule of WCAG 2.2 up to AA, and the good practices.
JUDGE = """
document.querySelectorAll("details").forEach(d => d.open = true);
const rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
axe.run({runOnly: rules}).then(found => {
  const outlines = Array.from(document.querySelectorAll("a, summary, input, [tabindex]")).map(e => {
    e.focus({focusVisible: true});
    const style = getComputedStyle(e);
    return [document.activeElement === e, style.outlineStyle, parseFloat(style.outlineWidth)];
  });
  document.documentElement.dataset.measured = btoa(JSON.stringify({
    violations: found.violations.map(v => [v.id, v.nodes.map(n => n.html.slice(0, 120))]),
    passes: found.passes.map(v => v.id), outlines,
  }).replace(/[^\\x00-\\x7f]/g, "?"));
});
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trees = {}
    for name in ("alpha", "beta"):
        own = VARIED[name]
        trees[name] = {
            "etc/motd": f"Welcome\nbuilt on {own['host_name']}\nby {own['user']}\n".encode(),
            "usr/lib/list": "".join(
                f"usr/lib/{n * 7 % 11}.so\n"
                for n in (range(9) if name == "alpha" else range(8, -1, -1))
            ).encode(),
            "var/cache/x.cache-8": bytes(12)
            + built_at(name).to_bytes(4, "little")
            + b"\0end\n" * 9,
            HOSTILE: f"<script>document.title={len(name)}</script>\n".encode(),
        }
    run = make_run(tmp_path_factory.mktemp("runs"), trees)
    explain(run, run_compare(run, notify=lambda _: None), notify=lambda _: None)
    return write_report(run, notify=lambda _: None)


def chromium(
    page: Path, tmp_path: Path, *options: str, width: int = 1100, height: int = 2600
) -> str:
    """Open a page; return the document as the browser has it in the end."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed; ./farm test does it")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    argv = [program, *FLAGS, profile, f"--window-size={width},{height}", *options, page.as_uri()]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=50)
    return done.stdout.decode()


def shoot(page: Path, tmp_path: Path, name: str, *options: str, width: int = 1100) -> None:
    """Keep a picture of a page, and check that it is one."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    shot = SHOTS / f"report-{name}.png"
    shot.unlink(missing_ok=True)
    chromium(page, tmp_path, f"--screenshot={shot}", *options, width=width)
    content = shot.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20], "big") == width
    assert len(content) > 30_000


def measure(
    page: Path, tmp_path: Path, *options: str, width: int = 1100, script: str = MEASURE
) -> dict[str, Any]:
    """Return what a script of the test's own finds in a copy of the page."""
    html = re.sub(r"script-src [^;\"]*", "script-src &#39;unsafe-inline&#39;", page.read_text())
    copy = tmp_path / "copy.html"
    copy.write_text(html.replace("</body>", f"<script>{script}</script></body>"))
    document = chromium(copy, tmp_path, "--dump-dom", *options, width=width)
    found = re.search(r'data-measured="([^"]+)"', document)
    assert found, document[:500]
    return dict(json.loads(base64.b64decode(found[1])))


@pytest.mark.parametrize(
    ("name", "options", "width"),
    [
        ("light", (), 1100),
        ("dark", (DARK,), 1100),
        ("phone", (), 500),
        ("phone-dark", (DARK,), 500),
    ],
)
def test_it_is_readable(
    name: str, options: tuple[str, ...], width: int, page: Path, tmp_path: Path
) -> None:
    shoot(page, tmp_path, name, *options, width=width)
    found = measure(page, tmp_path, *options, width=width)
    assert found["dark"] is (DARK in options)
    assert found["width"] <= found["window"]
    assert found["worst"]["ratio"] >= 4.5, found["worst"]
    assert found["unlabelled"] == 0


def test_the_logs_can_be_filtered(page: Path, tmp_path: Path) -> None:
    document = chromium(page, tmp_path, "--dump-dom")
    assert document.count('<input type="search">') == 2  # the page's own policy lets its script run
    assert measure(page, tmp_path)["filtered"] == 1


def test_nothing_that_a_build_wrote_runs(page: Path, tmp_path: Path) -> None:
    found = measure(page, tmp_path)
    assert found["images"] == 0
    assert "the builds differ" in str(found["title"])
    # Even unescaped it would not run: the page's policy knows its own script alone.
    broken = tmp_path / "broken.html"
    attack = '<script>document.title="run"</script><img src=x onerror=\'document.title="run"\'>'
    broken.write_text(page.read_text().replace("<h1>", f"{attack}<h1>"))
    assert "<title>run</title>" not in chromium(broken, tmp_path, "--dump-dom")


def test_it_is_whole_without_scripts(page: Path, tmp_path: Path) -> None:
    barred = tmp_path / "barred.html"  # headless Chromium itself needs scripts to be on
    html, count = re.subn(r"script-src [^;\"]*", "script-src &#39;none&#39;", page.read_text())
    assert count == 1
    barred.write_text(html)
    shoot(barred, tmp_path, "without-scripts")
    document = chromium(barred, tmp_path, "--dump-dom")
    assert '<input type="search">' not in document
    for words in ("time-binary", "built on alpha-host", "Linux version 6.1.0-56", "≠ differs"):
        assert words in document


def test_a_failed_run_has_a_page(tmp_path: Path) -> None:
    run = make_run(tmp_path, {name: {} for name in ("alpha", "beta")})
    fail(run, "beta", "hook 10-stamp ended with status 1")
    run_compare(run, notify=lambda _: None)
    page = write_report(run, notify=lambda _: None)
    shoot(page, tmp_path, "failed")
    assert measure(page, tmp_path)["worst"]["ratio"] >= 4.5


@pytest.fixture(scope="module")
def pages(page: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each state that a run can have."""
    same = {"etc/x": b"same"}
    match = make_run(tmp_path_factory.mktemp("match"), dict.fromkeys(VARIED, same))
    failed = make_run(tmp_path_factory.mktemp("failed"), {key: {} for key in VARIED})
    fail(failed, "beta", "hook 10-stamp ended with status 1")
    for run in (match, failed):
        run_compare(run, notify=lambda _: None)
    written = {
        name: write_report(run, notify=lambda _: None)
        for name, run in (("match", match), ("failed", failed))
    }
    return {"differ": page, **written}


@pytest.mark.parametrize(
    ("state", "verdict"),
    [("match", "the builds match"), ("differ", "the builds differ"), ("failed", "beta failed")],
)
@pytest.mark.parametrize("look", ["light", "dark"])
def test_everybody_can_use_it(
    state: str, verdict: str, look: str, pages: dict[str, Path], tmp_path: Path
) -> None:
    """axe-core finds no violation, the focus can be seen, and words tell the verdict."""
    options = (DARK,) * (look == "dark")
    found = measure(
        pages[state],
        tmp_path,
        "--virtual-time-budget=30000",
        *options,
        script=AXE.read_text() + JUDGE,
    )
    assert found["violations"] == []
    assert {"color-contrast", "heading-order", "region", "bypass"} <= set(found["passes"])
    assert all(focused and width >= 2 for focused, _, width in found["outlines"])
    html = pages[state].read_text()
    for words in (f'<span class="badge">{state}</span>', f"<strong>{verdict}", "<title>"):
        assert words in html
