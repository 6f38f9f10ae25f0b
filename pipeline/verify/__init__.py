# SPDX-License-Identifier: GPL-3.0-or-later
"""Verify a release of Twinbuild: one file, the Python standard library (3.9 or later) and gpgv.

    python3 verify.py --url https://example.org --tag 3.3 --keyring KEY.asc --file mini.iso

It downloads SHA256SUMS and its signature from URL/TAG/, checks the signature against the keyring
that you give (never against a key that the server offers), then what the build environments state,
then your files. Exit status: 0 everything asked for holds, 1 a file or a statement differs from the
manifest, 2 wrong usage, 4 network or disk failed, 6 a signature is missing, bad or not trusted.
"""

# This file is longer than others of the project: people must be able to take it alone.
