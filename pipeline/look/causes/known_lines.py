# SPDX-License-Identifier: GPL-3.0-or-later
"""Patterns of lines that describe the running system: from /proc, and from common programs."""

import re
from dataclasses import dataclass

SIZE = r"[\d.,]+[KMGTPkB]?i?B?"
CPU_FIELDS = (
    r"processor|vendor_id|cpu family|model|model name|stepping|microcode|cpu MHz|cache size"
    r"|physical id|siblings|core id|cpu cores|(?:initial )?apicid|fpu|fpu_exception|cpuid level|wp"
    r"|flags|vmx flags|bugs|bogomips|TLB size|clflush size|cache_alignment|address sizes"
    r"|power management|CPU\(s\)|On-line CPU\(s\) list|Off-line CPU\(s\) list|CPU op-mode\(s\)"
    r"|Vendor ID|BIOS Vendor ID|Model|Model name|BIOS Model name|CPU family|BIOS CPU family"
    r"|Thread\(s\) per core|Core\(s\) per (?:socket|cluster)|Socket\(s\)|Cluster\(s\)|Stepping"
    r"|CPU (?:max |min )?MHz|CPU\(s\) scaling MHz|BogoMIPS|Virtualization(?: type)?"
    r"|Hypervisor vendor|L[123][di]?(?: cache)?|NUMA node\S*(?: CPU\(s\))?|Vulnerability .*|Flags"
    r"|Address sizes|Byte Order|Architecture"
)
COUNTERS = "cpu[0-9]*|intr|ctxt|btime|processes|procs_running|procs_blocked|softirq|page|swap"
DISKS = "[vsh]d[a-z]|nvme|loop|dm-|sr|fd"


@dataclass(frozen=True)
class Form:
    """A kind of lines: the cause that they show, a description, and a pattern.

    `dated` lines also have a date, which may be the difference.
    """

    cause: str
    what: str
    pattern: re.Pattern[str]
    dated: bool = False


def _form(cause: str, what: str, *patterns: str, dated: bool = False) -> Form:
    return Form(cause, what, re.compile("|".join(patterns)), dated)


# The first match wins.
FORMS = (
    _form(
        "address",
        "a mapping in memory, of /proc/PID/maps",
        r"^[0-9a-f]{8,16}-[0-9a-f]{8,16} [r-][w-][x-][ps] [0-9a-f]{8,} [0-9a-f:]+ \d+",
    ),
    _form("address", "a symbol of the running kernel", r"^[0-9a-f]{16} [A-Za-z] [\w.$]+(?:\t|$)"),
    _form(
        "memory",
        "a line of /proc/meminfo or its like",
        r"^\s*[A-Z]\w+(?:\(\w+\))?:\s+\d+ kB$",
        r"^HugePages_\w+:\s+\d+$",
        r"^_?(?:AV)?PHYS_PAGES\b",
    ),
    _form(
        "memory",
        "a line of free or vmstat",
        rf"^(?:Mem|Swap|Low|High|Total|Speicher|-/\+ buffers/cache):(?:\s+{SIZE}){{2,6}}$",
        r"^\s*\d+ [KMB] (?:total|used|active|inactive|free|buffer|swap)\b",
    ),
    _form(
        "memory",
        "a counter of the kernel's pages",
        r"^(?:nr|pg\w*|numa|thp|workingset|zone|allocstall|compact|htlb|unevictable)_\w+ \d+$",
        r"^Node \d+, zone ",
    ),
    _form("machine", "a field of /proc/cpuinfo or lscpu", rf"^\s*(?:{CPU_FIELDS})\s*:(?: |\t|$)"),
    _form(
        "machine",
        "the machine's hardware",
        r"Standard PC|440FX|\bPIIX[34]?\b|\bICH9\b|\bQ35\b|SeaBIOS|QEMU (?:HARDDISK|DVD)",
        r"^[0-9a-f]{2,4}:[0-9a-f]{2}(?::[0-9a-f]{2})?\.[0-7] ",
    ),
    _form(
        "machine",
        "a disk of the machine",
        rf"^\s*\d+\s+\d+\s+\d+ (?:{DISKS})\w*",
        rf"^\W*(?:{DISKS})\w* +\d+:\d+ +[01] ",
    ),
    _form("uptime", "a line of /proc/uptime", r"^\d+\.\d\d \d+\.\d\d$"),
    _form(
        "uptime",
        "how long the machine has run",
        r"\bup (?:\d+ (?:min|day|week|hour|second)|\d+:\d\d\b)",
        r"\bload average:",
        r"(?i:\buptime\b)\W{0,4}(?:of |is |was )?\d",
    ),
    _form("uptime", "the machine's load", r"^\d+\.\d\d \d+\.\d\d \d+\.\d\d \d+/\d+ \d+$"),
    _form("uptime", "the kernel's clock", r"^(?:<\d+>)?\[ *\d+[.,]\d{6}\] "),
    _form(
        "uptime",
        "a counter since the machine's start",
        rf"^(?:{COUNTERS})(?: +\d+)+$",
        r"^ +(?:HI|TIMER|NET_[TR]X|BLOCK|IRQ_POLL|TASKLET|SCHED|HRTIMER|RCU):(?: +\d+)+$",
        r"^ *(?:\d+|[A-Z]{2,4}): +\d+ .*(?:interrupts|IO-APIC|XT-PIC|PCI-MSI)",
        r"^ *(?:eth|ens|enp|lo|wl)\w*:(?: +\d+){8,}$",
        rf"^ *\d+ +\d+ (?:{DISKS}|zram)\w*(?: \d+){{8,}}$",
    ),
    _form(
        "process-id",
        "a line of /proc about a process",
        r"^(?:Pid|Tgid|PPid|Ngid|TracerPid|NSpid|NSpgid|NStgid|NSsid):\s+\d+",
        r"^\d+ \([^)]*\) [RSDZTI](?: -?\d+){10}",
    ),
    _form(
        "process-id",
        "a line of ps",
        r"^ *(?:\S+ +)?\d+ +(?:[\d.:]+ +)*(?:pts/\d+|\?|tty\w+) +(?:\S+ +)*\d+:\d\d",
        dated=True,
    ),
    _form(
        "file-system",
        "a mounted file system",
        r"^\S+ /\S* [\w.]+ (?:rw|ro)[, ]",
        r"^\S+ on /\S* type [\w.]+ \(",
        r"^\d+ \d+ \d+:\d+ /\S* /",
        r"^[├└│─ ]*/\S* +\S+ +[\w.]+ +(?:rw|ro),",
    ),
    _form(
        "file-system",
        "a line of df",
        rf"^\S+ +(?:[a-z]\w+ +|- +)?{SIZE} +{SIZE} +{SIZE} +(?:\d+%|-) +/\S*$",
        r"^ *(?:Type +)?Inodes\b|^(?:Filesystem|Dateisystem) |\b1K-(?:blocks|Blöcke)\b|\bI?Use%",
    ),
    _form("file-system", "the blocks of a file, by du", rf"^{SIZE}\t(?!\d)\S"),
    _form("file-system", "the blocks of a folder, by ls", rf"^(?:total|insgesamt) {SIZE}$"),
    _form(
        "file-system",
        "numbers of the file system, by stat",
        r"^ *Device: |\bInode: \d+|^ *Size: \d+\s+Blocks: ",
        r"^ *Blocks: Total|^Inodes: Total|^ *ID: [0-9a-f]+ +Namelen|^ *Block size: ",
    ),
    _form(
        "file-system",
        "the number of an inode, by ls or find",
        r"^ *\d+ +(?:\d+ +)?[-dlbcps][-rwxsStT]{9}[.+]? ",
        dated=True,
    ),
)
# A folder in the output of `ls -l`; the groups are its mode, its owner and group, and its name.
FOLDER = re.compile(
    r"^ *(d[-rwxsStT]{9}\S?) +\d+ +(\S+ +\S+) +\d+ +"
    r"(?:\w{3} +\d+ +\d[\d:]+|\d+\. \w+ +\d[\d:]+|\d{4}-\d\d-\d\d(?: [\d:.]+(?: [-+]\d+)?)?) (.+)$"
)
# Numbers that may differ in lines that are otherwise equal.
NUMBERS = (
    _form(
        "process-id",
        "a process's number",
        r"(?i:(?<![a-z])pid(?![a-z])\W{0,3})\d+",
        r"(?<=\[)\d+(?=\]:)|(?<=/proc/)\d+\b",
        r"(?<=[-.])\d+(?=\.(?:pid|lock))",
    ),
    _form(
        "duration",
        "how long something took",
        r"\b(?:\d+m ?)?\d+(?:[.,]\d+)? ?(?:[nµum]s|[mu]?secs?|millis(?:econds?)?|s|seconds?)\b",
        r"\b\d+(?:[.,]\d+)? ?(?:minutes?|Sekunden?)\b|\b\d+:\d\d(?:\.\d+)?elapsed\b",
        r"\b\d+(?:[.,]\d+)? ?[kKMG]i?B/s(?!\w)",
    ),
)
