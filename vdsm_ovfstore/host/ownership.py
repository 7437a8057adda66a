# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Which lockspaces this daemon has joined itself, kept over a restart.

    {"<domain>": {"host_id": 1, "generation": 7}}

The file lies in the runtime directory, since a reboot leaves all lockspaces.
The generation is null until sanlock tells it, some seconds after the join.
After a kill before that nobody can tell our join from another's, so it is not
taken for ours.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from typing import Optional, TypedDict

from vdsm_ovfstore import errors
from vdsm_ovfstore.lease import lockspace

log = logging.getLogger("ovfstore.host")


class _Entry(TypedDict):
    host_id: int
    generation: Optional[int]


class Ownership:
    """Thread-safe. Every change is in the file before it returns."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._entries: dict[str, _Entry] = {}
        self._joining: set[str] = set()
        self._lock = threading.Lock()

    def load(self) -> None:
        """
        Read what an earlier daemon joined.

        A file that makes no sense is passed over: then what it named stays
        joined, which harms nobody.

        Raises errors.ConfigInvalid: the file cannot be written.
        """
        try:
            with open(self._path, encoding="ascii") as f:
                for name, entry in json.load(f).items():
                    if entry["generation"] is None:
                        log.warning("lockspace=%s may be another's", name)
                        continue
                    self._entries[name] = {
                        "host_id": int(entry["host_id"]),
                        "generation": entry["generation"],
                    }
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
            log.warning("STATE path=%s error=%s", self._path, e)
        try:
            self._save()
        except OSError as e:
            # It lies beside the socket.
            reason = f"[local] socket: {self._path}: {e.strerror or e}"
            raise errors.ConfigInvalid(path="", reason=reason) from None

    def __len__(self) -> int:
        return len(self._entries)

    def has(self, name: str) -> bool:
        with self._lock:
            return name in self._entries

    def joining(self, name: str, host_id: int) -> None:
        """A join begins; it ends with joined() or drop()."""
        with self._lock:
            self._joining.add(name)
            self._entries[name] = {"host_id": host_id, "generation": None}
            self._save_or_tell()

    def joined(self, name: str) -> None:
        """The join has come to a good end."""
        with self._lock:
            self._joining.discard(name)

    def drop(self, name: str) -> None:
        """It is not ours, or not any more."""
        with self._lock:
            self._joining.discard(name)
            if self._entries.pop(name, None) is not None:
                self._save_or_tell()

    def compare(self, joined: dict[str, lockspace.Lockspace]) -> None:
        """
        Forget what is not ours any more, as sanlock has it now.

        Raises errors.SanlockUnavailable.
        """
        with self._lock:
            before = json.dumps(self._entries)
            for name, entry in list(self._entries.items()):
                now = joined.get(name)
                if now is None:
                    if name not in self._joining:
                        del self._entries[name]
                    continue
                if now.moving:
                    continue
                generation = lockspace.generation(now)
                known = entry["generation"]
                if now.host_id != entry["host_id"] or (
                    generation and known and generation != known
                ):
                    log.info("lockspace=%s was joined by another", name)
                    del self._entries[name]
                elif generation:
                    entry["generation"] = generation
            if json.dumps(self._entries) != before:
                self._save_or_tell()

    def _save_or_tell(self) -> None:
        try:
            self._save()
        except OSError as e:
            log.error("STATE path=%s error=%s", self._path, e)

    def _save(self) -> None:
        new = self._path + ".new"
        with open(new, "w", encoding="ascii", opener=_for_us_only) as f:
            json.dump(self._entries, f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(new, self._path)


def _for_us_only(path: str, flags: int) -> int:
    # Whoever could write it could make us leave what is another's.
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
