# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration files: the project's own are valid, and mistakes are named."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.base.errors import UsageError
from pipeline.farm.config import load_environment, load_farm, load_image, parse_image

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {"memory_mib": 2048, "cpus": 1}
ARCHIVE = {"suites": ["trixie"], "components": ["main"], "keyring": "/usr/share/keyrings/x.gpg"}
FARM: dict[str, Any] = {
    "environments": {"alpha": ENVIRONMENT, "beta": ENVIRONMENT},
    "archives": {"debian": ARCHIVE},
}
IMAGE: dict[str, Any] = {"description": "small", "volume_id": "MINI"}


def write(path: Path, document: object) -> Path:
    path.write_text(yaml.safe_dump(document))
    return path


def test_the_projects_own_files_are_valid() -> None:
    farm = load_farm(ROOT / "farm.yaml")
    for name in farm.environments:
        assert load_environment(ROOT / f"images/hosts/{name}/environment.yaml").all
    assert [load_image(path) for path in (ROOT / "images/live").glob("*/image.yaml")]


def test_defaults_are_the_careful_ones(tmp_path: Path) -> None:
    farm = load_farm(write(tmp_path / "farm.yaml", FARM))
    assert farm.keys.release is None
    assert farm.keys.environments == {}
    assert farm.keys.tags.signed is True
    assert farm.keys.tags.signers == []
    assert farm.archives["debian"].urls is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"environments": {"alpha": ENVIRONMENT}}, "environments: "),
        ({"environments": {"alpha": ENVIRONMENT, "../x": ENVIRONMENT}}, "environments.../x"),
        ({"environments": {"alpha": ENVIRONMENT, "beta\n": ENVIRONMENT}}, "environments.beta"),
        ({"environments": {"a": ENVIRONMENT, "b": {"memory_mib": 5, "cpus": 1}}}, "b.memory_mib"),
        ({"archives": {}}, "archives"),
        ({"archives": {"debian": {**ARCHIVE, "urls": ["ftp://example.org"]}}}, "debian.urls.0"),
        ({"archives": {"debian": {**ARCHIVE, "at": "yesterday"}}}, "debian.at"),
        ({"keys": {"release": "ABCD"}}, "keys.release"),
        ({"keys": {"release": "0123456789ABCDEF"}}, "a key id is not enough"),
        ({"keys": {"release": 12}}, "keys.release"),
        ({"keys": {"tags": {"signers": ["A" * 39 + "G"]}}}, "keys.tags.signers.0"),
        ({"keys": {"environments": {"alpha": "zz"}}}, "keys.environments.alpha"),
        ({"key": {}}, "key: Extra inputs"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "farm.yaml", {**FARM, **change})
    with pytest.raises(UsageError) as caught:
        load_farm(path)
    assert message in str(caught.value)
    assert caught.value.remedy.endswith("configuration.md lists every key")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "is not YAML"),
        (b"\xff", "is not YAML"),
        (b"!!python/object/apply:os.system ['touch /tmp/x']", "is not YAML"),
        (b"[" * 400, "is not YAML"),
        (b"- a", "valid"),
        (b"", "valid"),
        (b"#" * (2 * 1024 * 1024), "is larger than"),
    ],
)
def test_what_is_no_configuration_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "image.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        load_image(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=message):
        parse_image(content, "image.yaml")


def test_fingerprints_are_taken_as_gpg_prints_them(tmp_path: Path) -> None:
    grouped = "4b1d 0c2e 9a7f 5b3d 8e6a  1c0f 9b2d 4e6a 8c0e 2f41"
    plain = "4B1D0C2E9A7F5B3D8E6A1C0F9B2D4E6A8C0E2F41"
    keys = {
        "release": grouped,
        "environments": {"alpha": "AB" * 32},
        "tags": {"signers": [plain.lower(), f" {plain}\n"]},
    }
    farm = load_farm(write(tmp_path / "farm.yaml", {**FARM, "keys": keys}))
    assert farm.keys.release == plain
    assert farm.keys.tags.signers == [plain, plain]
    assert farm.keys.environments == {"alpha": "ab" * 32}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*farm\.yaml"):
        load_farm(tmp_path / "farm.yaml")


@pytest.mark.parametrize(
    "change",
    [
        {"volume_id": "mini"},
        {"volume_id": "MINI\n"},
        {"volume_id": "A" * 33},
        {"architecture": "mips"},
        {"kernel_parameters": "quiet\ninsmod evil"},
        {"kernel_parameters": 'a" b'},
        {"kernel_parameters": "$(id)"},
    ],
)
def test_images_that_could_break_out_are_refused(tmp_path: Path, change: dict[str, str]) -> None:
    load_image(write(tmp_path / "image.yaml", IMAGE))
    with pytest.raises(UsageError):
        load_image(write(tmp_path / "image.yaml", {**IMAGE, **change}))


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("", "none"),
        ("upgrades: {from: none}", "none"),
        ("upgrades: {from: same-major}", "same-major"),
        ("upgrades: {from: [3.1, 3.10, '4', v2.0~]}", None),
        ("upgrades: {from: [3.1, 3.10, '4', 3.2.1]}", ["3.1", "3.10", "4", "3.2.1"]),
        ("upgrades: {from: []}", []),
        ("upgrades: {from: [4]}", None),  # YAML reads numbers in many bases: it must be quoted
        ("upgrades: {from: [../3.1]}", None),
        ("upgrades: {from: [3.1/x]}", None),
        ("upgrades: {from: all}", None),
        ("upgrades: {to: 3.4}", None),
        ("upgrades: {from_: none}", None),
        ("upgrade: perhaps", None),
    ],
)
def test_which_releases_have_kits(written: str, wanted: object) -> None:
    content = f"description: small\nvolume_id: MINI\n{written}\n".encode()
    if wanted is None:
        with pytest.raises(UsageError, match=r"image.yaml: upgrade"):
            parse_image(content, "image.yaml")
    else:
        image = parse_image(content, "image.yaml")
        assert image.upgrades.from_ == wanted
        assert image.upgrade is True
