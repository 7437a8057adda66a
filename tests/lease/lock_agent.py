# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A process that holds a store lock, told what to do on its standard input.

The only argument is JSON for lock_for(). Each line in is a JSON list of a
command and its arguments, each line out the answer.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.lease import Lock, lock_for, sanlock_lease
from vdsm_ovfstore.lease.address import LeaseAddress


def acquire(
    lock: Lock, timeout: float, least_round: float | None = None
) -> float:
    if least_round is not None:
        sanlock_lease.LEAST_ROUND = least_round
    began = time.monotonic()
    lock.acquire(began + timeout)
    return time.monotonic() - began


def release(lock: Lock) -> None:
    lock.release()


def held(lock: Lock) -> bool:
    return lock.held


def inheritable(lock: Lock) -> bool:
    assert lock.fd is not None
    return os.get_inheritable(lock.fd)


def wait_for_hangup(lock: Lock, timeout: float) -> bool:
    assert lock.fd is not None
    poller = select.poll()
    poller.register(lock.fd, 0)
    events = poller.poll(timeout * 1000)
    return any(event & select.POLLHUP for _, event in events)


def race(lock: Lock, flag: str, rounds: int) -> list[str]:
    """Take the lock again and again; nobody else may be inside with us."""
    seen = []
    for _ in range(rounds):
        lock.acquire(time.monotonic() + 60)
        try:
            os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            seen.append("another holder")
        else:
            time.sleep(0.02)
            if not lock.held:
                seen.append("lock lost")
            os.unlink(flag)
        lock.release()
        time.sleep(0.01)
    return seen


COMMANDS = {
    f.__name__: f
    for f in (acquire, release, held, inheritable, wait_for_hangup, race)
}


def answer(lock: Lock, command: str, args: list[Any]) -> dict[str, Any]:
    try:
        return {"result": COMMANDS[command](lock, *args)}
    except errors.Error as e:
        return {
            "error": type(e).__name__,
            "text": str(e),
            "fields": e.fields(),
        }


def main() -> None:
    spec = json.loads(sys.argv[1])
    spec["addresses"] = [LeaseAddress(*a) for a in spec["addresses"]]
    lock = lock_for(**spec)
    for line in sys.stdin:
        command, *args = json.loads(line)
        print(json.dumps(answer(lock, command, args)), flush=True)


if __name__ == "__main__":
    main()
