# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows of docs/determinism.md that a generator makes in the tree: tests/container/test_rows.py.

Each is what an installation runs, in a few shell lines, and the files that it makes. `alone` says
whether these differ between two environments when no measure is taken.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

DIFFERS, EQUAL = "differs", "equal"


@dataclass(frozen=True)
class Row:
    """A generator: the number of its row, what it does in the tree, and the files it makes."""

    number: int
    name: str
    does: str
    files: tuple[str, ...]
    alone: str
    given: Mapping[str, str] = field(default_factory=dict)  # content by path, put there before
    hook: bool = True  # whether it runs as a hook, too; the build makes an initramfs by itself


LIB = "/usr/lib/x86_64-linux-gnu"
DESKTOP = "[Desktop Entry]\nType=Application\nName={0}\nExec={0}\nMimeType=text/plain;text/{0};\n"
MIME = (
    '<?xml version="1.0"?><mime-info xmlns="http://www.freedesktop.org/standards/shared-mime-info">'
    '<mime-type type="text/{0}"><comment>{0}</comment><glob pattern="*.{0}"/></mime-type>'
    "</mime-info>"
)
MANUAL = ".TH {0} 1\n.SH NAME\n{0} \\- is {0}\n"
AUTHORITIES = ("ISRG_Root_X1", "GlobalSign_Root_CA_-_R3", "DigiCert_Global_Root_G2")
NAMES = ("kappa", "alef", "omega", "beth", "zeta", "daleth")

ROWS = (
    Row(
        20,
        "locales",
        "rm -f /usr/lib/locale/locale-archive; locale-gen >/dev/null 2>&1",
        ("usr/lib/locale/locale-archive",),
        EQUAL,
        {"etc/locale.gen": "de_DE.UTF-8 UTF-8\n"},
    ),
    Row(
        5,
        "machine-id",
        "rm -f /etc/machine-id; systemd-machine-id-setup",
        ("etc/machine-id",),
        DIFFERS,
    ),
    Row(
        6,
        "passwords",
        "userdel row6 2>/dev/null || :; useradd --system row6",
        ("etc/shadow", "etc/shadow-"),
        DIFFERS,
    ),
    Row(
        8,
        "library-cache",
        "rm -f /etc/ld.so.cache; ldconfig",
        ("etc/ld.so.cache",),
        EQUAL,
    ),
    Row(
        8,
        "library-times",
        "rm -f /var/cache/ldconfig/aux-cache; ldconfig",
        ("var/cache/ldconfig/aux-cache",),
        DIFFERS,
    ),
    Row(
        8,
        "journal-catalog",
        "journalctl --update-catalog",
        ("var/lib/systemd/catalog/database",),
        EQUAL,
    ),
    Row(
        8,
        "hardware",
        "systemd-hwdb --usr update",
        ("usr/lib/udev/hwdb.bin",),
        EQUAL,
    ),
    Row(
        8,
        "logs",
        "dpkg --configure --pending; "
        "update-alternatives --quiet --install /usr/bin/row8 row8 /usr/bin/true 1",
        ("var/log/dpkg.log", "var/log/alternatives.log"),
        DIFFERS,
    ),
    Row(
        8,
        "apt-caches",
        "touch --date=@$(date +%s) /var/lib/dpkg/status; "  # as dpkg does, but by this clock
        "apt-cache gencaches",
        ("var/cache/apt/*.bin",),
        DIFFERS,
    ),
    Row(
        8,
        "apt-lists",
        "mkdir /tmp/$(hostname); cd /tmp/$(hostname); : >Packages; "  # each builds at another path
        'echo "deb [trusted=yes] copy:$PWD ./" >/tmp/own.list; apt-get update --quiet '
        "--option Dir::Etc::SourceList=/tmp/own.list --option Dir::Etc::SourceParts=-",
        ("var/lib/apt/lists/**",),
        DIFFERS,
    ),
    Row(
        8,
        "kernel-hooks",
        "run-parts --arg=6.12.0-row --arg=/boot/vmlinuz-6.12.0-row /etc/kernel/postinst.d",
        ("etc/kernel/**", "etc/apt/apt.conf.d/*"),
        EQUAL,
    ),
    Row(
        9,
        "fontconfig",
        "rm -rf /var/cache/fontconfig/*; fc-cache --system-only",
        ("var/cache/fontconfig/*", "usr/share/fonts/**/.uuid"),
        DIFFERS,
    ),
    Row(
        10,
        "gdk-pixbuf",
        f"{LIB}/gdk-pixbuf-2.0/gdk-pixbuf-query-loaders --update-cache",
        (f"{LIB[1:]}/gdk-pixbuf-2.0/2.10.0/loaders.cache",),
        EQUAL,
    ),
    Row(
        11,
        "gio",
        f"{LIB}/glib-2.0/gio-querymodules {LIB}/gio/modules",
        (f"{LIB[1:]}/gio/modules/giomodule.cache",),
        EQUAL,
    ),
    Row(
        12,
        "gtk",
        f"{LIB}/libgtk-3-0t64/gtk-query-immodules-3.0 --update-cache",
        (f"{LIB[1:]}/gtk-3.0/3.0.0/immodules.cache",),
        EQUAL,
    ),
    Row(
        13,
        "desktop-files",
        "rm -f /usr/share/applications/mimeinfo.cache; "
        "update-desktop-database --quiet /usr/share/applications",
        ("usr/share/applications/mimeinfo.cache",),
        EQUAL,
        {f"usr/share/applications/{name}.desktop": DESKTOP.format(name) for name in NAMES},
    ),
    Row(
        13,
        "mime-types",
        "update-mime-database /usr/share/mime",
        ("usr/share/mime/**",),
        EQUAL,
        {f"usr/share/mime/packages/{name}.xml": MIME.format(name) for name in NAMES},
    ),
    Row(
        14,
        "icons",
        "rm -f /usr/share/icons/*/icon-theme.cache; update-icon-caches /usr/share/icons/*",
        ("usr/share/icons/*/icon-theme.cache",),
        EQUAL,
        {
            f"usr/share/icons/hicolor/{size}/apps/{name}.svg": "<svg/>\n"
            for name in NAMES
            for size in ("16x16", "scalable")
        },
    ),
    Row(
        15,
        "settings",
        "glib-compile-schemas /usr/share/glib-2.0/schemas",
        ("usr/share/glib-2.0/schemas/gschemas.compiled",),
        EQUAL,
    ),
    Row(
        15,
        "dconf",
        "rm -f /etc/dconf/db/site; dconf update",
        ("etc/dconf/db/site",),
        EQUAL,
        {
            f"etc/dconf/db/site.d/{name}": f"[org/row/{name}]\nkey='{name}'\nother=1\n"
            for name in NAMES
        },
    ),
    Row(
        16,
        "cracklib",
        "rm -f /var/cache/cracklib/*; update-cracklib >/dev/null",
        ("var/cache/cracklib/*",),
        EQUAL,
    ),
    Row(
        17,
        "manuals",
        "rm -rf /var/cache/man/*; mandb --create --quiet",
        ("var/cache/man/**",),
        EQUAL,
        {f"usr/share/man/man1/{name}.1": MANUAL.format(name) for name in NAMES},
    ),
    Row(
        18,
        "byte-code",
        "touch --date=@$(date +%s) /usr/local/lib/python3.13/dist-packages/row18.py; "
        "python3 -c 'import row18'",
        ("usr/local/lib/python3*/dist-packages/__pycache__/*",),
        DIFFERS,
        {"usr/local/lib/python3.13/dist-packages/row18.py": "x = {'a', 'b', 'c'}\n"},
    ),
    Row(
        19,
        "apparmor",
        "rm -rf /var/cache/apparmor/*; "
        "apparmor_parser --skip-kernel-load --write-cache --cache-loc=/var/cache/apparmor "
        "--kernel-features=/etc/apparmor.d/abi/4.0 /etc/apparmor.d/row19",
        ("var/cache/apparmor/**",),
        EQUAL,
        {"etc/apparmor.d/row19": "profile row19 /usr/bin/row19 {\n  /etc/* r,\n  /tmp/** rw,\n}\n"},
    ),
    Row(
        21,
        "certificates",
        "update-ca-certificates --fresh >/dev/null",
        ("etc/ssl/certs/*",),
        EQUAL,
        {"etc/ca-certificates.conf": "".join(f"mozilla/{name}.crt\n" for name in AUTHORITIES)},
    ),
    Row(
        22,
        "host-keys",
        "rm -f /etc/ssh/ssh_host_*; ssh-keygen -q -A",
        ("etc/ssh/ssh_host_*",),
        DIFFERS,
    ),
    Row(
        22,
        "snakeoil",
        "make-ssl-cert generate-default-snakeoil --force-overwrite",
        ("etc/ssl/certs/ssl-cert-snakeoil.pem", "etc/ssl/private/ssl-cert-snakeoil.key"),
        DIFFERS,
    ),
    Row(
        3,
        "initramfs",
        "env -u SOURCE_DATE_EPOCH update-initramfs -c -k 6.12.0-row",
        ("boot/initrd.img-*", "var/lib/initramfs-tools/*"),
        DIFFERS,
        {
            "boot/vmlinuz-6.12.0-row": "no kernel\n",
            "usr/lib/modules/6.12.0-row/modules.order": "",
            "usr/lib/modules/6.12.0-row/modules.builtin": "",
            "etc/initramfs-tools/conf.d/row": "MODULES=list\nCOMPRESS=gzip\n",
        },
        hook=False,
    ),
)
