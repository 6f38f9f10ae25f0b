# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs that run inside the machine and turn a job into artifacts.

They use the Python standard library only. They are copied into the machine as they are here,
together with `pipeline/documents/`, the only other package of the pipeline that they import; no
other package of the pipeline imports them.
"""
