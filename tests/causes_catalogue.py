# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue of injected causes: what loses reproducibility, and what must be found of it.

Each is a hook or a patch of a few shell lines, put into a build by `tests/synthetic_build.py`,
whose two machines differ as the farm's do. `tests/machine/test_causes.py` has some in real ones.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Hook:
    """A hook in the tree: what it does, and the path, kind and class that must be found."""

    name: str
    does: str
    path: str
    kind: str
    cause: str
    inside: str = ""  # where, path and kind of the innermost place, for what is packed


@dataclass(frozen=True)
class Patch:
    """A piece that is made in another way: the shell lines before it, and what must be found.

    `inside` is the innermost place, after the piece itself; no `cause` is none that is known.
    """

    piece: str
    name: str
    does: str
    inside: str
    kind: str
    cause: str


HOOKS = (
    Hook("ctime", "date >etc/built", "etc/built", "content", "time-text"),
    Hook("iso-time", "date -u +%FT%TZ >etc/since", "etc/since", "content", "time-text"),
    Hook("epoch", "date +%s >etc/epoch", "etc/epoch", "content", "time-text"),
    Hook(
        "cache",
        """perl -e 'print "CACHE\\0\\0\\0", pack("Lx8", $ARGV[0])' "$(date +%s)" >x.cache-8""",
        "x.cache-8",
        "content",
        "time-binary",
    ),
    Hook(
        "time-zone",
        'date --date="@$SOURCE_DATE_EPOCH" "+%F %T %z" >etc/committed',
        "etc/committed",
        "content",
        "time-zone",
    ),
    Hook(
        "gzip",
        'echo same >doc; touch -d "@$(date +%s)" doc; gzip doc',
        "doc.gz",
        "content",
        "gzip-time",
        "gzip [header time] time",
    ),
    Hook(
        "jar",
        'echo same >a; touch -d "@$(date +%s)" a; zip -q -X x.jar a; rm a',
        "x.jar",
        "content",
        "zip-time",
        "zip a time",
    ),
    Hook(
        "tar",
        'echo same >a; touch -d "@$(date +%s)" a; tar -cf x.tar a; rm a',
        "x.tar",
        "content",
        "tar-time",
        "tar a time",
    ),
    Hook(
        "library",
        'echo same >a.o; touch -d "@$(date +%s)" a.o; env -u SOURCE_DATE_EPOCH ar rcU lib.a a.o; '
        "rm a.o",
        "lib.a",
        "content",
        "ar-time",
        "ar a.o time",
    ),
    Hook(
        "cpio",
        'echo same >a; touch -d "@$(date +%s)" a; echo a | cpio -o -H newc --quiet '
        "--reproducible >x.cpio; rm a",
        "x.cpio",
        "content",
        "cpio-time",
        "cpio a time",
    ),
    Hook(
        "package",
        "mkdir -p p/DEBIAN p/etc; hostname >p/etc/made-on; "
        "printf 'Package: p\\nVersion: 1\\nArchitecture: all\\nMaintainer: p <p@example.org>\\n"
        "Description: p\\n' >p/DEBIAN/control; find p -exec touch -d '@1700000000' {} +; "
        "chmod -R u=rwX,go=rX p; dpkg-deb --root-owner-group -Zxz -b p p.deb >/dev/null; rm -r p",
        "p.deb",
        "content",
        "host-name",
        "ar data.tar.xz > xz content > tar etc/made-on content",
    ),
    Hook(
        "picture",
        'perl -MPOSIX=gmtime -e \'@t = gmtime($ARGV[0]); print "\\x89PNG\\r\\n\\x1a\\n", '
        'pack("Na4", 7, "tIME"), pack("nC5", $t[5] + 1900, $t[4] + 1, @t[3, 2, 1, 0]), pack("N", 0)'
        '\' "$(date +%s)" >x.png',
        "x.png",
        "content",
        "png-time",
    ),
    Hook(
        "messages",
        """printf 'msgid ""\\nmsgstr ""\\n"POT-Creation-Date: %s\\\\n"\\n' """
        '"$(date "+%F %H:%M%z")" >x.po',
        "x.po",
        "content",
        "po-date",
    ),
    Hook(
        "compiled",
        'echo "x = 1" >x.py; touch -d "@$(date +%s)" x.py; env -u SOURCE_DATE_EPOCH '
        'python3 -c \'import py_compile; py_compile.compile("x.py", "x.pyc")\'; rm x.py',
        "x.pyc",
        "content",
        "pyc",
    ),
    Hook(
        "password",
        'echo "root:*:$(($(date +%s) / 86400)):0:99999:7:::" >etc/shadow',
        "etc/shadow",
        "content",
        "shadow-day",
    ),
    Hook("host", 'echo "built on $(hostname)" >etc/motd', "etc/motd", "content", "host-name"),
    Hook("user", 'echo "packager = $(whoami)" >etc/by', "etc/by", "content", "user"),
    Hook("prefix", 'echo "-I$BUILD_PATH/include" >x.pc', "x.pc", "content", "build-path"),
    Hook("link", 'ln -s "$BUILD_PATH/x" etc/link', "etc/link", "target", "build-path"),
    Hook("language", 'echo "LANG=$LC_ALL" >etc/locale', "etc/locale", "content", "locale"),
    Hook(
        "letters",
        'printf "na\\303\\257ve\\n" | iconv -f UTF-8 -t "$(locale charmap)//TRANSLIT" >words',
        "words",
        "content",
        "locale",
    ),
    Hook("kernel", 'echo "for $(uname -r)" >etc/kernel', "etc/kernel", "content", "kernel"),
    Hook("jobs", 'echo "make -j $(nproc)" >etc/jobs', "etc/jobs", "content", "cpu-count"),
    Hook("disk", 'echo "root on $SCRATCH here" >etc/fs', "etc/fs", "content", "file-system"),
    Hook("board", 'echo "made on $MACHINE here" >etc/board', "etc/board", "content", "machine"),
    Hook(
        "memory",
        'printf "MemTotal:       %s kB\nHugePages_Free: 0\n" $((1978312 * CPUS)) >etc/memory',
        "etc/memory",
        "content",
        "memory",
    ),
    Hook(
        "uptime",
        'echo "$((NOW % 997)).25 $((NOW % 1999)).50" >etc/uptime',
        "etc/uptime",
        "content",
        "uptime",
    ),
    Hook("lock", 'echo "pid $((NOW % 9973))" >etc/lock', "etc/lock", "content", "process-id"),
    Hook("log", 'echo "done in 0.$((NOW % 97)) s" >etc/log', "etc/log", "content", "duration"),
    Hook(
        "seed", 'echo "seed $((NOW % 99991))" >etc/seed', "etc/seed", "content", "changing-number"
    ),
    Hook("variables", "env | grep ^QZ >etc/env", "etc/env", "content", "environment"),
    Hook(
        "accounts",
        "printf 'one\\ntwo\\n' | $READDIR | awk '{print $1 \":x:\" 900 + NR \":5::/:/bin/false\"}' "
        "| sort >etc/passwd",
        "etc/passwd",
        "content",
        "account-order",
    ),
    Hook(
        "certificate",
        "{ echo '-----BEGIN CERTIFICATE-----'; hostname | sha512sum | base64; } >etc/x.pem",
        "etc/x.pem",
        "content",
        "key",
    ),
    Hook(
        "jobs-at-once",
        "seq -f 'job %03g' 40 | if [ $READDIR = cat ]; then cat; else "
        "sed 'N; s/\\(.*\\)\\n\\(.*\\)/\\2\\n\\1/'; fi >etc/done",
        "etc/done",
        "content",
        "job-order",
    ),
    Hook(
        "one-or-two",
        "echo same >one; if [ $CPUS = 1 ]; then cp one two; else ln one two; fi",
        "two",
        "links",
        "hard-link",
    ),
    Hook("sometimes", "[ $CPUS = 1 ] || : >etc/many", "etc/many", "only-in-alpha", "only-in-one"),
    Hook(
        "temporary",
        "if [ $CPUS = 1 ]; then : >opt.x7Qd0Zpa; else : >opt.Kf2mV9bL; fi",
        "opt.Kf2mV9bL",
        "only-in-alpha",
        "temporary-name",
    ),
    Hook("umask", 'umask "$UMASK"; echo same >etc/private', "etc/private", "mode", "umask"),
    Hook(
        "rights",
        "echo same >etc/rights; chmod $((600 + 40 * (CPUS - 1))) etc/rights",
        "etc/rights",
        "mode",
        "set-mode",
    ),
    Hook(
        "kind", "if [ $CPUS = 1 ]; then mkdir kind; else : >kind; fi", "kind", "type", "file-type"
    ),
    Hook(
        "word",
        "if [ $CPUS = 1 ]; then echo 'with larch'; else echo 'with tarn'; fi >etc/word",
        "etc/word",
        "content",
        "changing-word",
    ),
    Hook("uuid", "cat /proc/sys/kernel/random/uuid >etc/id", "etc/id", "content", "uuid"),
    Hook(
        "record",
        "hostname | md5sum | sed -E 's/^(.{12}).(.{3}).(.{15}).*/\\14\\29\\3/' | "
        'perl -e \'print "\\0R" x 99, pack("H32", <STDIN>), "\\0R" x 99\' >x.db',
        "x.db",
        "content",
        "uuid",
    ),
    Hook(
        "machine-id",
        "tr -d - </proc/sys/kernel/random/uuid >etc/machine-id",
        "etc/machine-id",
        "content",
        "machine-id",
    ),
    Hook(
        "key",
        'echo "key $(od -An -N16 -tx1 /dev/urandom | tr -d " \\n")" >etc/key',
        "etc/key",
        "content",
        "random-identifier",
    ),
    Hook(
        "build-id",
        """perl -e 'print "\\x7fELF", pack("LLL", 4, 20, 3), "GNU\\0", pack("H40", <STDIN>)' """
        "<<X >x.so\n$(hostname | sha1sum)\nX",
        "x.so",
        "content",
        "build-id",
    ),
    Hook(
        "pointer",
        """perl -e 'print "object at ", (\\my $x) =~ s/.*\\((.*)\\)/$1/r, "\\n"' >x.log""",
        "x.log",
        "content",
        "address",
    ),
    Hook(
        "set",
        """perl -e '%h = map { $_ => 1 } "aa" .. "bz"; print "$_\\n" for keys %h' >set""",
        "set",
        "content",
        "hash-order",
    ),
    Hook(
        "list",
        "mkdir so; for n in 4 9 1 7 3; do : >so/x$n.so; echo so/x$n.so; done | $READDIR >list",
        "list",
        "content",
        "directory-order",
    ),
    Hook(
        "padding",
        """perl -e 'print "HEADER  ", "\\0" x 9, pack("H*", substr(<STDIN>, 0, 8)), "\\0" x 9' """
        "<<X >x.bin\n$(hostname | md5sum)\nX",
        "x.bin",
        "content",
        "uninitialised",
    ),
    Hook(
        "modules",
        'mkdir "lib-$(uname -r)"',
        "lib-6.12.117+deb13-cloud-amd64",
        "only-in-alpha",
        "kernel",
    ),
)

PATCHES = (
    # SquashFS
    Patch(
        "squashfs",
        "when it was made",
        'options="-mkfs-time $(date +%s)"',
        "squashfs [time of making]",
        "time",
        "image-time",
    ),
    Patch(
        "squashfs",
        "times of its files",
        'options="-all-time $(date +%s)"',
        "squashfs etc",
        "time",
        "file-time",
    ),
    Patch(
        "squashfs",
        "times that somebody set",
        'options="-all-time 150000000$CPUS"',
        "squashfs etc",
        "time",
        "set-time",
    ),
    Patch(
        "squashfs",
        "owners",
        'options="-force-uid $((1000 + CPUS))"',
        "squashfs etc",
        "owner",
        "owner",
    ),
    Patch(
        "squashfs",
        "a file more",
        'echo "etc/made f 644 0 0 hostname" >more; options="-pf more"',
        "squashfs etc/made",
        "content",
        "host-name",
    ),
    Patch(
        "squashfs",
        "compressed in another way",
        'options="-Xcompression-level $((CPUS + 3))"',
        "squashfs [compressor options]",
        "structure",
        "",
    ),
    # initramfs, and what the kernel finds before it
    Patch(
        "initramfs",
        "times",
        "when=$(date +%s)",
        "cpio kernel",
        "time",
        "cpio-time",
    ),
    Patch(
        "initramfs",
        "order",
        "read=$READDIR",
        "cpio [order of entries]",
        "order",
        "directory-order",
    ),
    Patch(
        "initramfs",
        "host name",
        "hostname >initramfs/etc/modprobe.conf",
        "cpio part 02 > zstd content > cpio etc/modprobe.conf",
        "content",
        "host-name",
    ),
    Patch(
        "initramfs",
        "umask",
        'umask "$UMASK"; echo same >initramfs/etc/new; umask 022',
        "cpio part 02 > zstd content > cpio etc/new",
        "mode",
        "umask",
    ),
    Patch(
        "initramfs",
        "name of the kernel",
        'mkdir "initramfs/$(uname -r)"; chmod 755 initramfs/6*',
        "cpio part 02 > zstd content > cpio 6.12.117+deb13-cloud-amd64",
        "only-in-alpha",
        "kernel",
    ),
    Patch(
        "initramfs",
        "gzip header",
        "compress='eval cat >a; touch -d @$NOW a; gzip -c a'",
        "cpio part 02 > gzip [header time]",
        "time",
        "gzip-time",
    ),
    # FAT
    Patch(
        "efi",
        "serial number",
        'serial=$(od -An -N4 -tx4 /dev/urandom | tr -d " ")',
        "fat [volume serial number]",
        "identifier",
        "uuid",
    ),
    Patch("efi", "times", "when=$(date +%s)", "fat EFI/BOOT/BOOTX64.EFI", "time", "file-time"),
    Patch("efi", "time zone", "zone=$TZ", "fat EFI/BOOT/BOOTX64.EFI", "time", "time-zone"),
    Patch(
        "efi",
        "file",
        "hostname >EFI/BOOT/BOOTX64.EFI",
        "fat EFI/BOOT/BOOTX64.EFI",
        "content",
        "host-name",
    ),
    Patch(
        "efi",
        "label",
        "label=$(hostname)",
        "fat [volume label]",
        "identifier",
        "host-name",
    ),
    Patch(
        "efi",
        "bytes behind the end of a file",
        """after() { perl -0777 -pi -e 's/(MZ\\n\\0{9})\\0{4}/$1 . pack("N", 7919 * $ENV{NOW})/e' \\
        binary/boot/grub/efi.img; }""",
        "fat [slack after a file's end]",
        "layout",
        "uninitialised",
    ),
    # ISO
    Patch(
        "iso",
        "when it was made",
        'stamp=$(date -u +%Y%m%d%H%M%S00); options="--set_all_file_dates 2026112218382700"',
        "iso9660 [primary volume descriptor: modification time]",
        "time",
        "image-time",
    ),
    Patch(
        "iso",
        "times of its files",
        'options="--set_all_file_dates $(date -u +%Y%m%d%H%M%S00)"',
        "iso9660 boot",
        "time",
        "file-time",
    ),
    Patch(
        "iso",
        "volume identifier",
        "volume=$(hostname)",
        "iso9660 [primary volume descriptor: volume identifier]",
        "identifier",
        "host-name",
    ),
    Patch(
        "iso",
        "a file",
        "hostname >binary/boot/grub/grub.cfg",
        "iso9660 boot/grub/grub.cfg",
        "content",
        "host-name",
    ),
    Patch(
        "iso",
        "umask",
        'umask "$UMASK"; echo same >binary/boot/new; umask 022',
        "iso9660 boot/new",
        "mode",
        "umask",
    ),
    # USB image
    Patch("usb", "disk GUID", "disk=R table=new", "disk [GPT disk GUID]", "identifier", "uuid"),
    Patch(
        "usb",
        "partition GUID",
        "identity=R table=new",
        "disk [GPT partition 1 GUID]",
        "identifier",
        "uuid",
    ),
    Patch(
        "usb",
        "serial number",
        'serial=$(od -An -N4 -tx4 /dev/urandom | tr -d " ")',
        "disk partition 1 > fat [volume serial number]",
        "identifier",
        "uuid",
    ),
    Patch(
        "usb",
        "a file",
        "hostname >binary/live/filesystem.module",
        "disk partition 1 > fat live/filesystem.module",
        "content",
        "host-name",
    ),
    Patch(
        "usb",
        "its SquashFS",
        "cp -a binary/live live; system=live squashfs=live/filesystem.squashfs; rm $squashfs; "
        'squash -mkfs-time "$(date +%s)" -all-time 0',
        "disk partition 1 > fat live/filesystem.squashfs > squashfs [time of making]",
        "time",
        "image-time",
    ),
    Patch(
        "usb",
        "times",
        "when=$(date +%s)",
        "disk partition 1 > fat live/filesystem.module",
        "time",
        "file-time",
    ),
    # kit
    Patch("kit", "times", "when=$(date +%s)", "tar FORMAT", "time", "tar-time"),
    Patch(
        "kit",
        "what it says",
        "from=$(hostname)",
        "tar control.json",
        "content",
        "host-name",
    ),
    Patch("kit", "owner", "tar_owner=--owner=$USER:0", "tar FORMAT", "owner", "owner"),
    Patch(
        "kit",
        "attributes",
        """after() { python3 - out/*.iuk <<X
import sys, tarfile
made = tarfile.open(sys.argv[1])
with tarfile.open("new", "w", format=tarfile.PAX_FORMAT) as new:
    for one in made:
        one.pax_headers = {"SCHILY.xattr.user.rank": "v$CPUS"}
        new.addfile(one, made.extractfile(one))
X
mv new out/*.iuk; }""",
        "tar FORMAT",
        "xattr",
        "extended-attribute",
    ),
    Patch(
        "kit",
        "order",
        "read=$READDIR",
        "tar [order of entries]",
        "order",
        "directory-order",
    ),
    Patch(
        "kit",
        "a file to boot from",
        'echo "linux /live/vmlinuz host=$(hostname)" >boot/live/3.3.cfg',
        "tar boot.tar > tar live/3.3.cfg",
        "content",
        "host-name",
    ),
    Patch(
        "kit",
        "its delta",
        'squashfs=delta; squash -mkfs-time 0 -all-time "$(date +%s)"',
        "tar 3.3.squashfs > squashfs etc",
        "time",
        "file-time",
    ),
)
