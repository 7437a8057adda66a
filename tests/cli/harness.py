# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The real command in a process of its own, on real LocalFS domains.

Whatever a test runs: there is no traceback, errors are one line and a next
step, and every JSON answer matches schema/cli.json with no field that is not
described there.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, NamedTuple, Optional

import jsonschema

from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store.reader import Reader

PROJECT = Path(__file__).parents[2]
SAMPLES = PROJECT / "samples" / "ovfs"
SCHEMA = json.loads((PROJECT / "schema" / "cli.json").read_text())

OVF = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<ovf:Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1/">'
    "<References/><Content><Name>{name}</Name></Content></ovf:Envelope>"
)
VMS = 6  # of a large archive
IDS = tuple(f"00000000-0000-4000-8000-{n:012}" for n in range(100))


def strict(schema: Any) -> Any:
    """The schema with every object closed."""
    schema = copy.deepcopy(schema)

    def close(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("properties"), dict):
                node["additionalProperties"] = False
            for below in node.values():
                close(below)
        elif isinstance(node, list):
            for below in node:
                close(below)

    close(schema)
    return schema


VALIDATORS = {
    name: jsonschema.Draft7Validator(
        {**strict(SCHEMA), "oneOf": [{"$ref": f"#/definitions/{name}"}]}
    )
    for name in SCHEMA["definitions"]
}


class Result(NamedTuple):
    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def is_error(self, code: int, status: int = 1) -> str:
        """Check an error's form; returns its message."""
        assert self.status == status, self
        lines = self.err.splitlines()
        assert len(lines) in (1, 2), self
        found = re.fullmatch(r"ovfstore: error (\d+): (.+)", lines[0])
        assert found is not None, self
        assert int(found[1]) == code, self
        for line in lines[1:]:
            assert line.startswith("ovfstore: "), self
            assert "DOMAIN" not in line, self
        return found[2]


class Cli:
    """Runs the command in a directory."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self.env = {
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "PYTHONDONTWRITEBYTECODE": "",
            "NO_COLOR": "1",
        }

    # Archives of these tests have nothing in common: uploads are insisted on.
    force = True

    def command(self, *args: object) -> list[str]:
        if self.force and args[:1] == ("upload",):
            args = (*args, "--force")
        return [sys.executable, "-m", "vdsm_ovfstore", *map(str, args)]

    def popen(self, *args: object, **options: Any) -> subprocess.Popen[bytes]:
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen(
            self.command(*args), cwd=self.cwd, env=self.env, **options
        )

    def __call__(self, *args: object, data: bytes = b"") -> Result:
        done = subprocess.run(
            self.command(*args),
            cwd=self.cwd,
            env=self.env,
            input=data,
            capture_output=True,
            timeout=100,
        )
        err = done.stderr.decode()
        assert "Traceback" not in err, err
        return Result(done.returncode, done.stdout, err)

    def ok(self, *args: object, data: bytes = b"") -> Result:
        result = self(*args, data=data)
        assert result.status == 0, result
        assert result.err == "", result
        return result

    def json(
        self, verb: str, *args: object, data: bytes = b"", status: int = 0
    ) -> Any:
        """The answer of a verb as JSON, validated."""
        result = self(verb, *args, "--json", data=data)
        assert result.status == status, result
        answer = result.json
        VALIDATORS[verb].validate(answer)
        assert answer["verb"] == verb
        return answer

    def error(
        self, *args: object, data: bytes = b"", status: int = 1
    ) -> dict[str, Any]:
        """The error as JSON, validated, and told on stderr as well."""
        result = self(*args, "--json", data=data)
        assert result.status == status, result
        answer = result.json
        VALIDATORS["error"].validate(answer)
        found: dict[str, Any] = answer["error"]
        if found["code"] != 3548:
            result.is_error(found["code"], status)
        return found


class Store:
    """A domain with a store, and the command to use it."""

    def __init__(self, path: Path, cli: Cli) -> None:
        self.path = path
        self.cli = cli

    def ok(self, verb: str, *args: object, data: bytes = b"") -> Result:
        return self.cli.ok(verb, self.path, *args, data=data)

    def json(self, verb: str, *args: object, **options: Any) -> Any:
        return self.cli.json(verb, self.path, *args, **options)

    def upload(self, *names: str) -> Any:
        """VMs of these names; the answer."""
        return self.json("upload", "-", data=archive(*names))

    def names(self, *args: object) -> list[str]:
        answer = self.json("vms", *args)
        return [e["name"] for e in answer["entities"]]

    def copies(self) -> list[Any]:
        status = self.cli("status", self.path, "--json")
        return list(status.json["copies"])

    def log(self, number: int) -> Path:
        volume = self.copies()[number]["volume"]
        return self.path / "ovf_store" / f"{volume}.log"

    def contents(self) -> dict[str, tuple[object, ...]]:
        """Every file, so that whatever is written shows."""
        found: dict[str, tuple[object, ...]] = {}
        for path in sorted(self.path.rglob("*")):
            st = path.lstat()
            digest = ""
            if path.is_file() and st.st_blocks:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
            key = str(path.relative_to(self.path))
            found[key] = (st.st_ino, st.st_mtime_ns, st.st_size, digest)
        return found


def archive(*names: str) -> bytes:
    """A tar of one small VM for each name."""
    return tar(*((f"{i}.ovf", OVF.format(name=n)) for i, n in zip(IDS, names)))


def tar(*members: tuple[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT
    ) as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            data = content.encode()
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def make_store(cli: Cli, parent: Path, size: int = 8) -> Store:
    """A LocalFS domain with a store of two empty copies."""
    path = cli.ok("init", parent, "--type", "localfs").text.strip()
    cli.ok("create", path, "--size", size)
    return Store(Path(path), cli)


def damage(path: Path, offset: int, length: Optional[int] = None) -> None:
    """Turn bytes round."""
    with path.open("r+b") as file:
        file.seek(offset)
        data = file.read(length or 1)
        file.seek(offset)
        file.write(bytes(b ^ 0xFF for b in data))


def large(seed: int) -> bytes:
    """VMs of half a MiB that compress badly: a frame for every two."""
    noise = random.Random(seed)
    members = []
    for number in range(VMS):
        text = "".join(noise.choices("abcdefghijklmnopqrstuvwxyz", k=500_000))
        ovf = OVF.format(name=f"vm{number}").replace(
            "<References/>", f"<References/><!--{text}-->"
        )
        members.append((f"{IDS[number]}.ovf", ovf))
    return tar(*members)


def frames(store: Store, copy: int, generation: int = 2) -> list[Any]:
    """(offset in the log, stored bytes, members) of each frame."""
    with Reader(FileDomain.open(str(store.path))) as reader:
        one = reader.copies[copy]
        entry = next(e for e in one.entries() if e.generation == generation)
        segment = one.segment(entry)
        return [(entry.offset + f.position, f.stored) for f in segment.frames]


def damage_frame(store: Store, copy: int, frame: int) -> None:
    offset, stored = frames(store, copy)[frame]
    damage(store.log(copy), offset + stored // 2)


def damage_head(store: Store, copy: int) -> None:
    """A header, so that what is left is no archive."""
    damage(Path(store.copies()[copy]["path"]), 148)
