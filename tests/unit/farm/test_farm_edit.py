# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys are put into farm.yaml, and nothing else of it changes."""

import difflib
from pathlib import Path

import pytest

from pipeline.base.errors import UsageError
from pipeline.farm.config import parse_farm
from pipeline.farm.farm_edit import pin

ROOT = Path(__file__).parents[3]
A, B = "A" * 40, "B" * 40
ALPHA, BETA = "a0" * 32, "b1" * 32
HEAD = (
    "environments: {alpha: {memory_mib: 1024, cpus: 1}, beta: {memory_mib: 1024, cpus: 1}}\n"
    "archives: {debian: {suites: [x], components: [main], keyring: k}}  # one\n"
)


def pinned(text: str) -> str:
    environments = {"alpha": ALPHA, "beta": BETA}
    return pin(text, "farm.yaml", release=A, environments=environments, signers=[A])


def test_the_projects_own_file_keeps_its_comments() -> None:
    text = (ROOT / "farm.yaml").read_text()
    lines = text.splitlines()
    changed = list(difflib.ndiff(lines, pinned(text).splitlines()))
    assert [line[2:].strip() for line in changed if line.startswith("- ")] == [
        *("release: null", "environments: {}", "signers: []")
    ]
    assert [line[2:] for line in changed if line.startswith("+ ")] == [
        f"  release: {A}",
        "  environments:",
        f"    alpha: {ALPHA}",
        f"    beta: {BETA}",
        f"    signers: [{A}]",
    ]


@pytest.mark.parametrize(
    "keys",
    [
        "",
        "# no keys yet",
        "keys:",
        "keys: null\n",
        "keys: {}",
        "keys: {}   # mine\n",
        "keys: # mine\n  # nothing yet\npublish: public\n",
        "keys:\n  release:\n  environments:\n  tags:\n    signers:\n",
        "keys:\n  release: ~ # later\n\n\npublish: public # there\n",
        f"keys: {{release: null, environments: {{alpha: {ALPHA}}}}}\n",
        f"keys:\n    release:\n    environments:\n        alpha: {ALPHA} # a\n\n# end",
        "keys:\r\n  release: null\r\npublish: public\r\n",
        "keys:\n  tags: {signers: []}\n  release:",
        f"keys: {{tags: {{signers: [{B}]}}}}",
        f"keys:\n  tags:\n    signers: [{B.lower()}]\n",
        f"keys:\n  tags:\n    signers:\n    - {B}  # theirs\n  environments: {{}}\n",
        f"keys:\n  tags:\n    signers:\n      - {B}\n",
        "'keys':\n  \"release\": null\n",
    ],
)
def test_every_way_of_writing_it(keys: str) -> None:
    before = parse_farm((HEAD + keys).encode(), "farm.yaml")
    edited = pinned(HEAD + keys)
    farm = parse_farm(edited.encode(), "farm.yaml")
    assert farm.keys.release == A
    assert farm.keys.environments == {"alpha": ALPHA, "beta": BETA}
    assert farm.keys.tags.signers == [*before.keys.tags.signers, A]
    assert farm.model_copy(update={"keys": before.keys}) == before
    comments = [line.partition("#")[2] for line in (HEAD + keys).splitlines() if "#" in line]
    assert [line.partition("#")[2] for line in edited.splitlines() if "#" in line] == comments
    assert pinned(edited) == edited
    assert ("\r\n" in edited) == ("\r\n" in keys)


def test_what_is_set_stays() -> None:
    text = HEAD + f"keys:\n  release: {B}\n  environments: {{alpha: {BETA}}}\n"
    edited = pin(text, "farm.yaml", release=A, environments={"alpha": ALPHA})
    assert edited == text


def test_what_cannot_be_edited_is_reported_and_stays() -> None:
    with pytest.raises(UsageError, match=f"stays as it is; put this under keys: release: {A}"):
        pinned(HEAD + "keys: &k\n  release: null\n")


def test_a_second_keys_block_is_refused() -> None:
    with pytest.raises(UsageError, match="the key 'keys' stands twice"):
        pinned(HEAD + "keys: {}\nkeys: {}\n")
