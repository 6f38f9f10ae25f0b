"""What the machine and the outside agree on: disks, records, statuses and limits."""

# virtio-blk serial numbers
ROOT_DISK, INPUT_DISK, SCRATCH_DISK, OUTPUT_DISK = "root", "input", "scratch", "output"

# The name of the virtio-serial port that carries the records, one JSON object a line.
PROGRESS_PORT = "twinbuild.progress"

# {"record": "step", "step": name}            a step begins
# {"record": "step-done", "step": name, "seconds": float}
# {"record": "log", "line": text}             what a program printed
# {"record": "alive"}                         every ALIVE_EVERY_S seconds
# {"record": "failed", "status": 3, 4 or 5, "step": name, "what": text, "detail": text}
# {"record": "done", "facts": {name: text}}
RECORDS = ("step", "step-done", "log", "alive", "failed", "done")
ALIVE_EVERY_S = 5.0
RECORD_LIMIT = 1024 * 1024  # bytes of one line
LINE_LIMIT = 2000  # characters of a logged line

# The input disk is a tar archive in this order; `guest/`, `machine.json` and `job.json` come first.
REPOSITORY = "repository"  # an apt archive: dists/<suite>/…, pool/*.deb
SOURCE_TAR = "source.tar"
LOCK = "lock"

# The output disk is a tar archive: ARTIFACTS/<name>…, then LEDGER and TIMINGS.
ARTIFACTS = "artifacts"
LEDGER = "ledger.jsonl.gz"
TIMINGS = "timings.json"

STATUS_BUILD_FAILED, STATUS_INFRASTRUCTURE, STATUS_INPUTS = 3, 4, 5


def artifact_names(image: str, architecture: str, version: str) -> tuple[str, str, str]:
    """Return the names of the ISO, the package list and the ledger of the final tree."""
    stem = f"{image}-{architecture}-{version}"
    return f"{stem}.iso", f"{stem}.packages", f"{stem}.ledger.jsonl.gz"
