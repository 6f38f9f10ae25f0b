# SPDX-License-Identifier: GPL-3.0-or-later
"""The records that a machine sends over its serial port while it builds, one JSON object a line.

{"record": "step", "step": name}            a step begins
{"record": "step-done", "step": name, "seconds": float}
{"record": "log", "line": text}             what a program printed
{"record": "layer", "step": name, …}        what the step changed is on the layers disk:
                 `offset`, `size`, `head` in bytes, `sha256` of these bytes, the ledger's
                 `digest`, and when the build `started` and the layer `ended`, in seconds by
                 the machine's clock
{"record": "damaged", "step": name}         a layer that went in is not what was kept
{"record": "alive"}                         every ALIVE_EVERY_S seconds
{"record": "failed", "status": 3, 4 or 5, "step": name, "what": text, "detail": text}
{"record": "done", "facts": {name: text}}
"""

# The name of the virtio-serial port that carries the records.
PROGRESS_PORT = "twinbuild.progress"

RECORDS = ("step", "step-done", "log", "layer", "damaged", "alive", "failed", "done")
ALIVE_EVERY_S = 5.0
RECORD_LIMIT = 1024 * 1024  # bytes of one line
LINE_LIMIT = 2000  # characters of a logged line

SCRATCH_FULL = "the scratch disk is full"

STATUS_BUILD_FAILED, STATUS_INFRASTRUCTURE, STATUS_INPUTS = 3, 4, 5
