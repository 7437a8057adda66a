# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Extended headers of tar archives (POSIX pax), as far as we accept them.

The data of such a header is a sequence of records:

    "<length> <key>=<value>\\n"      e.g. "30 mtime=1350244992.0239604\\n"

where length counts the whole record. `tar --format=pax` writes the times in
full this way. A record may also rename the member after it, or change its
length: for a reader that ignores the record, the archive is another one.
"""

from __future__ import annotations

MAX_HEADER = 64 * 1024  # bytes

# Times, comments and ownership: nobody reads these from an archive of OVFs.
HARMLESS = frozenset(
    (
        "atime",
        "comment",
        "ctime",
        "gid",
        "gname",
        "mtime",
        "uid",
        "uname",
        "LIBARCHIVE.creationtime",
    )
)

# What renames the next member but leaves the structure as it is.
NAMING = frozenset(("path", "linkpath", "hdrcharset"))


def keys(data: bytes) -> set[str]:
    """
    The keys of an extended header.

    Raises:
        ValueError: Not a sequence of records.
    """
    found = set()
    while data:
        digits, space, _ = data[:8].partition(b" ")
        if not space or not digits.isdigit():
            raise ValueError("a record without length")
        length = int(digits)
        record = data[len(digits) + 1 : length]
        key, equals, _ = record.partition(b"=")
        if length > len(data) or not equals or not record.endswith(b"\n"):
            raise ValueError("a record that is not key=value")
        found.add(key.decode("utf-8", "backslashreplace"))
        data = data[length:]
    return found
