import gc
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import doctor, dsse
from pipeline.config import Archive, EnvironmentEntry, Farm, TagPolicy
from pipeline.doctor import Finding
from pipeline.errors import ExitStatus, InfrastructureFailed, SignatureInvalid, UsageError
from tests.archive_server import archive_server

ARCHIVE = Archive(suites=["trixie", "trixie-updates"], components=["main"], keyring=Path("/none"))
FARM = Farm(
    environments={
        "alpha": EnvironmentEntry(memory_mib=2048, cpus=1),
        "beta": EnvironmentEntry(memory_mib=1024, cpus=1),
        "gamma": EnvironmentEntry(memory_mib=65536, cpus=1, engine="tcp://192.0.2.1:2376"),
    },
    archives={"debian": ARCHIVE},
)


def test_findings_are_one_line_each_and_decide_the_exit_status() -> None:
    fine = Finding("disk", ok=True, text="plenty")
    retry = Finding("engine", False, "none answers", "start one", ExitStatus.INFRASTRUCTURE)
    wrong = Finding("key alpha", False, "missing", "make one", ExitStatus.SIGNATURE)
    assert str(fine).split() == ["disk", "OK", "plenty"]
    assert str(retry).endswith("none answers; start one")
    assert doctor.exit_status([fine]) == 0
    assert doctor.exit_status([fine, retry]) == 4
    assert doctor.exit_status([retry, wrong]) == 2


def test_a_broken_farm_yaml_is_the_only_finding(tmp_path: Path) -> None:
    (tmp_path / "farm.yaml").write_text("environments: 3\n")
    (finding,) = doctor.examine(tmp_path)
    assert not finding.ok
    assert finding.status == 2
    assert "environments" in finding.text


# The docker library leaves the socket open that could not connect.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(InfrastructureFailed, match="no Docker Engine answers"):
        doctor.engine_version(None)
    gc.collect()  # its complaint belongs to this test


def test_the_accelerator_must_open(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    assert "TCG" in doctor.accelerator(device)
    device.touch()
    assert "KVM present" in doctor.accelerator(device)


def test_disk_counts_each_file_system_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "FREE_DISK_GIB", 0)
    found = doctor.disk([tmp_path / "not" / "yet", tmp_path])
    assert found.count("GiB free") == 1
    monkeypatch.setattr(doctor, "FREE_DISK_GIB", 10**9)
    with pytest.raises(InfrastructureFailed, match="invoke clean"):
        doctor.disk([tmp_path])


def test_memory_is_that_of_the_environments_on_this_machine(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 99999999 kB\nMemAvailable: 3145728 kB\n")
    assert doctor.memory(FARM, meminfo) == "3072 MiB available, 3072 for the environments here"
    meminfo.write_text("MemTotal: 99999999 kB\nMemAvailable: 3145727 kB\n")
    with pytest.raises(InfrastructureFailed, match="3071 MiB"):
        doctor.memory(FARM, meminfo)


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *identity, "-C", folder, *arguments], check=True, capture_output=True)


def test_the_repository_and_whether_its_tree_is_what_would_be_built(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not the top of a git repository"):
        doctor.repository(tmp_path)
    git(tmp_path, "init", "--quiet")
    with pytest.raises(UsageError, match="no commit"):
        doctor.repository(tmp_path)
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "first")
    assert doctor.repository(tmp_path).endswith("clean")
    (tmp_path / "new").touch()
    assert "no build sees" in doctor.repository(tmp_path)


@pytest.fixture
def gpg_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # a short path: the agent's socket in it must not be longer than 107 bytes
    with tempfile.TemporaryDirectory(prefix="tw-", dir="/tmp", ignore_cleanup_errors=True) as home:
        monkeypatch.setenv("GNUPGHOME", home)
        monkeypatch.delenv("TWINBUILD_RELEASE_KEY", raising=False)
        yield Path(home)
        subprocess.run(["gpgconf", "--kill", "all"], check=False)


def make_release_key(usage: str, *, expires: str, now: str | None = None) -> str:
    clock = ["--faked-system-time", now] if now else []
    gpg = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "", *clock]
    key = [
        "--status-fd",
        "1",
        "--quick-generate-key",
        f"{usage}-{expires}@example.org",
        "ed25519",
        usage,
    ]
    made = subprocess.run([*gpg, *key, expires], check=True, capture_output=True, text=True)
    return made.stdout.split("KEY_CREATED")[1].split()[1]


@pytest.mark.usefixtures("gpg_home")
def test_the_release_key_must_be_there_and_able_to_sign() -> None:
    with pytest.raises(UsageError, match="nothing can be released"):
        doctor.release_key(None)
    with pytest.raises(UsageError, match="no secret key"):
        doctor.release_key("A" * 40)
    lasting = make_release_key("sign", expires="never")
    assert doctor.release_key(lasting) == f"{lasting}, does not expire"
    ending = make_release_key("sign", expires="20991231T000000")
    assert doctor.release_key(ending).endswith("expires 2099-12-31")
    gone = make_release_key("sign", expires="1d", now="20200101T000000")
    with pytest.raises(UsageError, match="has expired"):
        doctor.release_key(gone)
    only_certifies = make_release_key("cert", expires="never")
    with pytest.raises(UsageError, match="no secret key"):
        doctor.release_key(only_certifies)


def test_tags_need_signers() -> None:
    assert "no signature" in doctor.tags(TagPolicy(signed=False))
    assert "1 known" in doctor.tags(TagPolicy(signers=["A" * 40]))
    with pytest.raises(UsageError, match="no signer"):
        doctor.tags(TagPolicy())


def test_the_key_of_an_environment_must_be_the_pinned_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "alpha.pem"
    monkeypatch.setenv("TWINBUILD_KEY_ALPHA", str(path))
    with pytest.raises(UsageError, match="invoke keygen --environment alpha"):
        doctor.environment_key("alpha", None)
    with pytest.raises(SignatureInvalid, match="cannot read"):
        doctor.environment_key("alpha", "0" * 64)
    public = dsse.make_key(path)
    with pytest.raises(UsageError, match=f"add `alpha: {public}`"):
        doctor.environment_key("alpha", None)
    assert doctor.environment_key("alpha", public) == str(path)
    with pytest.raises(UsageError, match="not the one in"):
        doctor.environment_key("alpha", "0" * 64)


def test_an_archive_answers_for_every_suite(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for suite in ARCHIVE.suites:
        (tmp_path / "dists" / suite).mkdir(parents=True)
        (tmp_path / "dists" / suite / "InRelease").write_text("signed\n")
    with archive_server(tmp_path) as server:
        monkeypatch.setenv("TWINBUILD_MIRROR_DEBIAN", server.url)
        assert server.url in doctor.reach("debian", ARCHIVE, {})
        server.faults["trixie-updates/InRelease"] = "404"
        with pytest.raises(InfrastructureFailed, match="trixie-updates/InRelease"):
            doctor.reach("debian", ARCHIVE, {})
    with pytest.raises(InfrastructureFailed, match="InRelease"):
        doctor.reach("debian", ARCHIVE, {})  # nobody listens there any more
