# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The contract: every name of VDSM that the plugin uses.

VDSM promises none of them to anybody. So they stand here, in one place, as
they were read in VDSM 4.50.7 (commit fd4b0df20, June 2026), and are looked at
each time before anything is registered. One that is not as it is written here
keeps the plugin out, and vdsmd runs as if there were none.

    python3 -m vdsm_ovfstore.plugin.contract [--json]

says how things stand without starting anything: 0 all is well, 1 what is
not, 2 there is no VDSM here.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Optional

READ_IN = "4.50.7 (fd4b0df20)"

# For names whose parameters do not matter.
ANY: Optional[tuple[str, ...]] = None


class Name(NamedTuple):
    """
    One name.

    Attributes:
        path: within the module; "" for the module itself.
        parameters: the names of a function's parameters, in order.
        sets: attributes of self that the function sets or uses; a class
            does not show them otherwise.
    """

    module: str
    path: str = ""
    parameters: Optional[tuple[str, ...]] = ANY
    sets: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.module}.{self.path}" if self.path else self.module


class Failure(NamedTuple):
    """A name that is not as it has to be, and why."""

    name: str
    reason: str


CONTRACT = (
    # The launcher: run() calls serve_clients by its global name, after it
    # has set up logging.
    Name("vdsm.vdsmd", "main", ()),
    Name("vdsm.vdsmd", "serve_clients", ("log",)),
    Name("vdsm.common.dsaversion", "raw_version_revision"),
    # Schema and dispatch of verbs.
    Name(
        "vdsm.api.vdsmapi",
        "Schema.__init__",
        ("self", "schema_types", "strict_mode"),
        ("_methods", "_types"),
    ),
    Name("vdsm.api.vdsmapi", "SchemaType.VDSM_API"),
    Name("vdsm.rpc.Bridge", "command_info"),
    Name(
        "vdsm.rpc.Bridge",
        "DynamicBridge._dynamicMethod",
        ("self", "className", "methodName", "args", "kwargs"),
    ),
    Name("vdsm.API", "APIBase.ctorArgs"),
    Name("vdsm.API", "APIBase.__init__", ("self",), ("_cif", "_irs")),
    Name("vdsm.clientIF", "clientIF.getInstance"),
    Name("vdsm.clientIF", "clientIF.ready"),
    Name("vdsm.clientIF", "clientIF.start", ("self",)),
    Name("vdsm.clientIF", "clientIF.prepareForShutdown", ("self",)),
    # Jobs.
    Name("vdsm.jobs", "add", ("job",)),
    Name("vdsm.jobs", "Job.status"),
    Name("vdsm.jobs", "Job.progress"),
    Name("vdsm.jobs", "Job.error"),
    Name("vdsm.jobs", "Job.abort", ("self",)),
    Name("vdsm.jobs", "Job._autodelete_if_required", ("self",)),
    Name("vdsm.jobs", "Job._send_event", ("self",)),
    Name("vdsm.jobs", "JobNotActive"),
    Name("vdsm.jobs", "AbortNotSupported"),
    Name(
        "vdsm.storage.sdm.api.base",
        "Job.__init__",
        ("self", "job_id", "desc", "host_id"),
    ),
    # The pool, its SPM, its domains: from memory.
    Name("vdsm.storage.dispatcher", "Dispatcher.__init__", ANY, ("_obj",)),
    Name("vdsm.storage.hsm", "HSM._pool"),
    Name("vdsm.storage.hsm", "HSM.__init__", ("self",), ("domainMonitor",)),
    Name("vdsm.storage.sp", "SPM_ACQUIRED"),
    Name("vdsm.storage.sp", "DisconnectedPool.is_connected", ("self",)),
    Name("vdsm.storage.sp", "StoragePool.is_connected", ("self",)),
    Name(
        "vdsm.storage.sp",
        "StoragePool.__init__",
        ANY,
        ("spUUID", "poolPath", "spmRole", "id"),
    ),
    Name("vdsm.storage.monitor", "DomainMonitor.poolDomains"),
    Name("vdsm.storage.monitor", "DomainMonitor.getDomainsStatus", ("self",)),
    Name(
        "vdsm.storage.monitor",
        "DomainMonitor.stopMonitoring",
        ("self", "sdUUIDs"),
    ),
    Name("vdsm.storage.monitor", "Status.actual"),
    Name("vdsm.storage.monitor", "Status.valid"),
    Name("vdsm.storage.monitor", "Status.hasHostId"),
    Name("vdsm.storage.constants", "REPO_DATA_CENTER"),
    # Locks.
    Name("vdsm.storage.constants", "STORAGE"),
    Name("vdsm.storage.constants", "IMAGE_NAMESPACE"),
    Name(
        "vdsm.storage.resourceManager",
        "acquireResource",
        ("namespace", "name", "lockType", "timeout"),
    ),
    Name("vdsm.storage.resourceManager", "getNamespace", ("args",)),
    Name("vdsm.storage.resourceManager", "EXCLUSIVE"),
    Name("vdsm.storage.resourceManager", "SHARED"),
    Name("vdsm.storage.resourceManager", "RequestTimedOutError"),
    # Volumes are made as the engine makes them.
    Name(
        "vdsm.storage.hsm",
        "HSM.createVolume",
        (
            *("self", "sdUUID", "spUUID", "imgUUID", "size", "volFormat"),
            *("preallocate", "diskType", "volUUID", "desc", "srcImgUUID"),
            *("srcVolUUID", "initialSize", "addBitmaps", "legal", "sequence"),
            "bitmap",
        ),
    ),
    Name("vdsm.storage.hsm", "HSM.getTaskStatus", ("self", "taskID")),
    Name("vdsm.storage.hsm", "HSM.__init__", ("self",), ("taskMng",)),
    Name("vdsm.storage.taskManager", "TaskManager._getTask"),
    Name("vdsm.storage.task", "Task.wait", ("self", "timeout")),
    Name("vdsm.storage.task", "Task.deprecated_getStatus", ("self",)),
    Name("vdsm.storage.task", "Task.abort_callback", ("self", "callback")),
    Name("vdsm.common.threadlocal", "vars"),
    Name("vdsm.storage.hsm", "HSM.stopTask", ("self", "taskID")),
    Name("vdsm.storage.hsm", "HSM.clearTask", ("self", "taskID")),
    # The port, and the engine's own uploads and downloads.
    Name("vdsm.rpc.http", "Server.__init__", ANY, ("ImageRequestHandler",)),
    Name("vdsm.rpc.http", "ImageRequestHandler.do_PUT", ("self",)),
    Name("vdsm.rpc.http", "ImageRequestHandler.do_GET", ("self",)),
    Name("vdsm.rpc.http", "ImageRequestHandler._createImage", ("self",)),
    Name("vdsm.rpc.http", "ImageRequestHandler._getLength", ("self",)),
    Name("vdsm.rpc.http", "ImageRequestHandler.timeout"),
    Name("vdsm.rpc.http", "ImageRequestHandler.log"),
    *(
        Name("vdsm.rpc.http", f"ImageRequestHandler.HEADER_{name}")
        for name in (
            *("POOL", "DOMAIN", "IMAGE", "VOLUME", "TASK_ID"),
            *("CONTENT_LENGTH", "CONTENT_TYPE", "CONTENT_RANGE"),
        )
    ),
    Name("vdsm.rpc.http", "HttpDetector.HTTP_VERBS"),
    Name("vdsm.rpc.http", "HttpDetector.REQUIRED_SIZE"),
    Name("vdsm.rpc.http", "HttpDetector.detect", ("self", "data")),
    Name(
        "vdsm.API",
        "Image.downloadFromStream",
        ("self", "methodArgs", "callback", "volUUID"),
    ),
    Name(
        "vdsm.API",
        "Image.uploadToStream",
        ("self", "methodArgs", "callback", "startEvent", "volUUID"),
    ),
    Name(
        "vdsm.storage.image",
        "Image.copyToImage",
        ("self", "methodArgs", "sdUUID", "imgUUID", "volUUID"),
    ),
    Name(
        "vdsm.storage.image",
        "Image.copyFromImage",
        ("self", "methodArgs", "sdUUID", "imgUUID", "volUUID"),
    ),
    Name("vdsm.storage.exception", "StorageException"),
)


def check(names: Iterable[Name]) -> list[Failure]:
    """What is not as it has to be; imports VDSM's modules, and no more."""
    found = []
    for name in names:
        reason = _wrong(name)
        if reason:
            found.append(Failure(name.name, reason))
    return found


def vdsm_version() -> str:
    """The version of VDSM that is installed; "" without one."""
    try:
        found = importlib.import_module("vdsm.common.dsaversion")
        return str(found.raw_version_revision)
    except Exception:
        return ""


def _wrong(name: Name) -> str:
    try:
        thing: Any = importlib.import_module(name.module)
    except Exception as e:
        return f"cannot be imported: {type(e).__name__}: {e}"
    for part in filter(None, name.path.split(".")):
        try:
            thing = inspect.getattr_static(thing, part)
        except AttributeError:
            return "is not there"
    if isinstance(thing, (classmethod, staticmethod)):
        thing = thing.__func__
    if name.parameters is None and not name.sets:
        return ""
    # What decorators that keep the signature put around it.
    thing = inspect.unwrap(thing)
    if name.parameters is not None:
        try:
            parameters = tuple(inspect.signature(thing).parameters)
        except (TypeError, ValueError):
            return "is no function"
        if parameters != name.parameters:
            wanted = ", ".join(name.parameters)
            return f"takes ({', '.join(parameters)}), not ({wanted})"
    used = getattr(getattr(thing, "__code__", None), "co_names", ())
    missing = [attribute for attribute in name.sets if attribute not in used]
    if missing:
        return f"does not set {', '.join(missing)}"
    return ""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command; returns its exit status."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args not in ([], ["--json"]):
        print("usage: python3 -m vdsm_ovfstore.plugin.contract [--json]")
        return 2
    version = vdsm_version()
    failed = check(CONTRACT) if version else []
    if args:
        document = {
            "vdsm": version,
            "read_in": READ_IN,
            "names": len(CONTRACT),
            "failed": [failure._asdict() for failure in failed],
        }
        print(json.dumps(document, indent=2))
    elif not version:
        print("There is no VDSM here that can be imported")
    else:
        for failure in failed:
            print(f"{failure.name}: {failure.reason}")
        count = len(CONTRACT)
        print(
            f"VDSM {version}: {count - len(failed)} of {count} names are as "
            f"in {READ_IN}"
        )
        if failed:
            print("vdsmd will run without the plugin; update vdsm-ovfstore")
    if not version:
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
