# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs inside the machine: turns a job into artifacts.

Python standard library only. It is sent into the machine as it is here and imports nothing of the
rest of Twinbuild; nothing of the rest imports it.
"""
