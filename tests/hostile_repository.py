# SPDX-License-Identifier: GPL-3.0-or-later
"""A working tree whose repository names a program wherever git's configuration can name one.

Each program leaves a mark, a file with the name of the setting that started it.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_DATE": "1766400000 +0000",
    "GIT_COMMITTER_DATE": "1766400000 +0000",
    "GIT_AUTHOR_NAME": "Mallory",
    "GIT_AUTHOR_EMAIL": "mallory@example.org",
    "GIT_COMMITTER_NAME": "Mallory",
    "GIT_COMMITTER_EMAIL": "mallory@example.org",
}
# What git-config(1) lets name a program or a command line, for the names that the tree uses.
PROGRAMS = (
    "alias.status",
    "alias.ls-files",
    "browser.evil.cmd",
    "browser.evil.path",
    "core.alternateRefsCommand",
    "core.askPass",
    "core.editor",
    "core.fsmonitor",
    "core.gitProxy",
    "core.pager",
    "core.sshCommand",
    "credential.helper",
    "diff.evil.command",
    "diff.evil.textconv",
    "diff.external",
    "difftool.evil.cmd",
    "difftool.evil.path",
    "filter.evil.clean",
    "filter.evil.process",
    "filter.evil.smudge",
    "gpg.openpgp.program",
    "gpg.program",
    "gpg.ssh.defaultKeyCommand",
    "gpg.ssh.program",
    "gpg.x509.program",
    "interactive.diffFilter",
    "man.evil.cmd",
    "merge.evil.driver",
    "mergetool.evil.cmd",
    "pager.grep",
    "pager.log",
    "pager.ls-files",
    "pager.status",
    "remote.origin.receivepack",
    "remote.origin.uploadpack",
    "sendemail.ccCmd",
    "sequence.editor",
    "tar.tar.command",
    "tar.evil.command",
    "trailer.evil.command",
    "trailer.evil.cmd",
    "uploadpack.packObjectsHook",
    "web.browser",
)
# What makes git come to use them.
CIRCUMSTANCES = {
    "diff.tool": "evil",
    "extensions.partialClone": "origin",
    "log.showSignature": "true",
    "merge.default": "evil",
    "pager.diff": "true",
    "protocol.allow": "always",
    "protocol.ext.allow": "always",
    "remote.origin.partialclonefilter": "blob:none",
    "remote.origin.promisor": "true",
    "safe.directory": "*",
    "status.submoduleSummary": "true",
    "submodule.sub.update": "checkout",
    "uploadpack.allowFilter": "true",
}
HOOKS = (
    "fsmonitor-watchman",
    "post-checkout",
    "post-index-change",
    "pre-auto-gc",
    "reference-transaction",
)
# Repositories in the working tree, a bare one among them, and their configurations.
NESTED = {"vendor": ".git/config", "sub": ".git/config", "embedded": "config"}
SIGNATURE = (
    "gpgsig -----BEGIN PGP SIGNATURE-----\n \n iHUEABYKAB0WIQQ=\n -----END PGP SIGNATURE-----\n"
)


def every_setting() -> tuple[str, ...]:
    """Return all that this machine's git can be configured with."""
    argv = ["git", "help", "--config"]
    listed = subprocess.run(argv, env=ENVIRONMENT, check=True, capture_output=True, text=True)
    names = [line for line in listed.stdout.splitlines() if "." in line and " " not in line]
    replaced = ["evil" if name.startswith(("diff.<", "filter.<")) else "origin" for name in names]
    return tuple(
        name.split("<")[0] + other + name.split(">")[-1] if "<" in name and ">" in name else name
        for name, other in zip(names, replaced, strict=True)
        if "*" not in name
    )


class HostileRepository:
    """What an attacker has made for somebody to check, lock or build, in `folder`/tree."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.tree = folder / "tree"
        self.marks = folder / "marks"
        self._programs = folder / "programs"
        self.marks.mkdir()
        self._programs.mkdir()
        shutil.copytree(template, self.tree, symlinks=True)
        self.older = git(self.tree, "rev-parse", "HEAD~1:images/live/mini/lock")

    def arm(self, settings: Iterable[str], *, url: str = "") -> None:
        """Configure all of `settings` with programs that leave a mark; put hooks in, too."""
        values = {**CIRCUMSTANCES, **{name: self._program(name) for name in settings}}
        values["remote.origin.url"] = url or self.tree.as_uri()
        included = self._programs / "included"
        included.write_text(f"[core]\n\tfsmonitor = {self._program('include.path')}\n")
        values["include.path"] = os.fspath(included)
        lines = [_setting(name, value) for name, value in values.items()]
        with (self.tree / ".git/config").open("a") as config:
            config.write("".join(lines))
        for folder in ("hooks", "other-hooks"):
            for name in HOOKS:
                path = self.tree / ".git" / folder / name
                path.parent.mkdir(exist_ok=True)
                shutil.copy(self._program(f"{folder} {name}"), path)
        with (self.tree / ".git/config").open("a") as config:
            config.write(_setting("core.hooksPath", os.fspath(self.tree / ".git/other-hooks")))
        for name, nested in NESTED.items():
            with (self.tree / name / nested).open("a") as file:
                file.write(_setting("core.fsmonitor", self._program(f"fsmonitor of {name}")))
        (self.tree / ".git/info").mkdir(exist_ok=True)
        (self.tree / ".git/info/attributes").write_text("* filter=evil diff=evil merge=evil\n")

    def lose(self, object_id: str) -> None:
        """Remove an object, as if it had never been fetched: git then fetches it when asked."""
        (self.tree / ".git/objects" / object_id[:2] / object_id[2:]).unlink()
        pack = self.tree / ".git/objects/pack/pack-0.promisor"
        pack.parent.mkdir(exist_ok=True)
        pack.touch()

    def started(self) -> list[str]:
        """Return the settings whose programs were started."""
        return sorted(path.name for path in self.marks.iterdir())

    def _program(self, name: str) -> str:
        path = self._programs / name.replace(" ", "-")
        path.write_text(f"#!/bin/sh\n: >'{self.marks / name}'\nexit 1\n")
        path.chmod(0o755)
        return os.fspath(path)


def git(tree: Path, *arguments: str) -> str:
    argv = ["git", "-C", str(tree), *arguments]
    done = subprocess.run(argv, env=ENVIRONMENT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def make_template(tree: Path) -> None:
    """Make the repository, in which nothing is armed yet."""
    tree.mkdir()
    git(tree, "init", "--quiet", "--initial-branch=main", "--template=")
    for content in ("old", "new"):
        _write(tree / "images/live/mini/lock", f"Format: {content}\n")
        _write(tree / "images/live/mini/image.yaml", "description: small\n")
        _write(tree / "hooks/chroot/10-a.hook.chroot", "#!/bin/sh\n")
        _write(tree / "changed", "before\n")
        git(tree, "add", "--all")
        git(tree, "commit", "--quiet", "-m", content)
    _sign_head(tree)
    for name in NESTED:
        (tree / name).mkdir()
        bare = ["--bare"] * (name == "embedded")
        git(tree / name, "init", "--quiet", "--template=", *bare)
        if not bare:
            git(tree / name, "commit", "--quiet", "--allow-empty", "-m", "nested")
            _write(tree / name / "file", "nested\n")
    commit = git(tree, "rev-parse", "HEAD")
    git(tree, "update-index", "--add", "--cacheinfo", f"160000,{commit},sub")
    _write(tree / ".gitattributes", "* filter=evil diff=evil merge=evil\n")
    _write(tree / "changed", "after the commit\n")


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def _sign_head(tree: Path) -> None:
    header, _, message = git(tree, "cat-file", "commit", "HEAD").partition("\n\n")
    argv = ["git", "-C", str(tree), "hash-object", "-t", "commit", "-w", "--stdin"]
    content = f"{header}\n{SIGNATURE}\n{message}\n".encode()
    made = subprocess.run(argv, input=content, env=ENVIRONMENT, check=True, capture_output=True)
    git(tree, "update-ref", "HEAD", made.stdout.decode().strip())


def _setting(name: str, value: str) -> str:
    section, _, rest = name.partition(".")
    below, _, key = rest.rpartition(".")
    return f'[{section}{f" {chr(34)}{below}{chr(34)}" if below else ""}]\n\t{key} = "{value}"\n'
