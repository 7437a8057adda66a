# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
metrics: the stores of this machine for Prometheus.

In its text format, for the textfile collector of node_exporter: a file that
is replaced as a whole, by a timer.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli import everywhere
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.store import SOUND, Document
from vdsm_ovfstore.client.targets import file_behind
from vdsm_ovfstore.format import record

_PREFIX = "ovfstore_"


class Metric(NamedTuple):
    """One sample; labels in the order in which they are written."""

    name: str
    help: str
    labels: dict[str, str]
    value: float


def metrics_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write the state of each store below PATH as metrics for Prometheus, "
        "for the textfile collector of node_exporter. A store that cannot be "
        "read shows as ovfstore_up 0."
    )
    everywhere.place_arguments(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="replace that file, as a whole; it must end in .prom (stdout)",
    )


def run_metrics(args: Any, console: Console) -> int:
    if args.output is not None and not args.output.endswith(".prom"):
        raise errors.UsageError(
            reason="metrics: the collector reads *.prom only; name it so"
        )
    if console.as_json:
        raise errors.UsageError(
            reason="metrics: it has a format of its own; leave out --json"
        )
    text = "".join(exposition(_collect(args, console)))
    if args.output is None:
        console.data(text.encode())
    else:
        # The collector is another user.
        with file_behind(args.output, 0o644) as write:
            write(text.encode())
    return errors.EXIT_OK


def _collect(args: Any, console: Console) -> Iterator[Metric]:
    problems: list[errors.Error] = []
    checked = everywhere.load(args.state)
    for domain in everywhere.domains(args.place, args, problems):
        path = domain.path
        console.progress.step(f"reading {path}")
        try:
            with everywhere.opened(path, args, console) as store:
                info = store.info()
        except errors.VolumeNotFound:
            continue  # a domain without a store
        except errors.Error as e:
            problems.append(e)
            yield _up(path, 0)
            continue
        yield _up(path, 1)
        yield from _of_store(info)
        yield from _of_check(checked.get(info["domain"]))
    yield Metric(
        "unreadable", "Domains that could not be read.", {}, len(problems)
    )
    yield Metric(
        "collected_timestamp_seconds",
        "When these metrics were written.",
        {},
        int(time.time()),
    )


def _up(path: str, value: int) -> Metric:
    return Metric(
        "up", "Whether the store could be read.", {"path": path}, value
    )


def _of_store(info: Document) -> Iterator[Metric]:
    store = {"domain": info["domain"]}

    def one(name: str, text: str, value: Any) -> Metric:
        return Metric(name, text, store, float(value))

    sound = info["verdict"] in SOUND
    yield one("healthy", "Whether nothing is wrong, at a quick look.", sound)
    copies = info["copies"]
    members = [c for c in copies if c["member"]]
    well = [c for c in members if c["verdict"] == "ok"]
    yield one("copies", "Volumes that belong to the store.", len(members))
    yield one("copies_healthy", "Of these, those that are sound.", len(well))
    newest = info["newest"]
    if newest is not None:
        number = newest["number"]
        yield one("generation", "Number of the newest generation.", number)
        yield one(
            "generation_timestamp_seconds",
            "When it was committed.",
            _seconds(newest["time"]),
        )
        entities = newest["entities"]
        yield one("entities", "VMs and templates in it.", entities)
        length = newest["length"]
        yield one("archive_bytes", "Length of its archive.", length)
    for copy in copies:
        labels = {**store, "copy": copy["volume"]}
        for name, text, value in (
            ("log_used_bytes", "Bytes of the log in use.", copy["log_used"]),
            ("log_bytes", "Bytes of the log.", copy["log_size"]),
            ("capacity_bytes", "Size of the volume.", copy["capacity"]),
        ):
            yield Metric(name, text, labels, max(0, value))


def _of_check(found: Optional[Document]) -> Iterator[Metric]:
    """What ovfstore maintain found last."""
    if found is None:
        return
    labels = {"domain": str(found["domain"])}
    sound = found.get("verdict") in SOUND
    yield Metric(
        "verified", "Whether the last full check ended well.", labels, sound
    )
    yield Metric(
        "verified_timestamp_seconds",
        "When the last full check ended.",
        labels,
        _seconds(found.get("time")),
    )


def exposition(metrics: Iterator[Metric]) -> Iterator[str]:
    """
    The text format, version 0.0.4: all samples of a name together.

    https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    families: dict[str, list[Metric]] = {}
    for metric in metrics:
        families.setdefault(metric.name, []).append(metric)
    for name, samples in families.items():
        yield f"# HELP {_PREFIX}{name} {samples[0].help}\n"
        yield f"# TYPE {_PREFIX}{name} gauge\n"
        for sample in samples:
            labels = ",".join(
                f'{key}="{_escaped(value)}"'
                for key, value in sample.labels.items()
            )
            braces = f"{{{labels}}}" if labels else ""
            yield f"{_PREFIX}{name}{braces} {float(sample.value):.17g}\n"


def _escaped(value: str) -> str:
    # A path that is no UTF-8 has surrogates, which no file can have.
    text = value.encode("utf-8", "replace").decode("utf-8")
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"')


def _seconds(when: Any) -> int:
    try:
        return record.timestamp({"time": when}, "time")
    except record.RecordInvalid:
        return 0
