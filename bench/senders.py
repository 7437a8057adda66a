# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Uploads at the same time, from a process of its own.

    python -m bench.senders URL CA CERT KEY THREADS DOMAIN=TAR...

Says "ready", waits for a line, and ends with the last upload. Each thread
takes the next upload when it has done one.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from bench.hosting import Access, Host

_ID = 36  # characters of the id of a domain


@contextlib.contextmanager
def sending(
    host: Host,
    uploads: list[tuple[str, str]],
    threads: int,
    env: dict[str, str],
) -> Iterator[subprocess.Popen[bytes]]:
    """The process, which has just begun; it must end well."""
    wanted = [f"{domain}={tar}" for domain, tar in uploads]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.senders"]
        + [*host.access, str(threads), *wanted],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    with process:
        process.stdout.readline()
        process.stdin.write(b"go\n")
        process.stdin.flush()
        yield process
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, "senders")


def _main(
    access: Access, threads: int, uploads: list[tuple[str, str]]
) -> None:
    with access.client() as client, ThreadPoolExecutor(threads) as pool:
        client.ping()
        print("ready", flush=True)
        sys.stdin.readline()
        waiting = [
            pool.submit(client.upload, domain, tar, force=True)
            for domain, tar in uploads
        ]
        for upload in waiting:
            upload.result()


if __name__ == "__main__":
    _main(
        Access(*sys.argv[1:5]),
        int(sys.argv[5]),
        [(u[:_ID], u[_ID + 1 :]) for u in sys.argv[6:]],
    )
