# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Documents of real stores: what is in them, and what bounds them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.harness import (
    IDS,
    OVF,
    Cli,
    Store,
    archive,
    damage,
    make_store,
    tar,
)
from vdsm_ovfstore import errors
from vdsm_ovfstore.api import comparison, documents, verdict
from vdsm_ovfstore.api.faults import error_document
from vdsm_ovfstore.api.opened import open_store
from vdsm_ovfstore.api.schema import Definition
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store.reader import Reader

NAMES = ("web", "db", "app", "mail")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two generations: NAMES, then one VM of each kind of OVF."""
    parent = tmp_path_factory.mktemp("documents")
    store = make_store(Cli(parent), parent)
    store.upload(*NAMES)
    limit = documents.MAX_OVF - len(OVF.format(name="full"))
    store.json(
        "upload",
        "-",
        data=tar(
            (f"{IDS[0]}.ovf", OVF.format(name="größe")),
            (f"{IDS[1]}.ovf", OVF.format(name="full") + " " * limit),
            (f"{IDS[2]}.ovf", OVF.format(name="more") + " " * (limit + 1)),
        ),
    )
    return store


@pytest.fixture
def reader(made: Store) -> Iterator[Reader]:
    with open_store(FileDomain.open(str(made.path))) as reader:
        yield reader


def one_vm(reader: Reader) -> dict[str, Any]:
    return documents.vm(reader, "full")


@pytest.mark.parametrize(
    "verb,part,make",
    [
        pytest.param("getInfo", "result", documents.info, id="info"),
        pytest.param("getHistory", "result", documents.history, id="history"),
        pytest.param("listVms", "result", documents.vms, id="vms"),
        pytest.param("getVm", "result", one_vm, id="vm"),
        pytest.param("diff", "result", comparison.diff_page, id="diff"),
        pytest.param("verify", "job_result", documents.check, id="check"),
    ],
)
def test_is_what_the_verb_answers(
    reader: Reader, verb: str, part: str, make: Any
) -> None:
    made = make(reader)
    check = getattr(Definition.load(), f"check_{part}")
    check(verb, json.loads(json.dumps(made)))
    with pytest.raises(errors.Unexpected):
        check(verb, {**made, "more": 1})


class TestVms:
    @pytest.mark.parametrize(
        "first,count,names",
        [
            pytest.param(0, None, ["app", "db", "mail", "web"], id="all"),
            pytest.param(0, 2, ["app", "db"], id="first"),
            pytest.param(2, 2, ["mail", "web"], id="last"),
            pytest.param(3, 2, ["web"], id="rest"),
            pytest.param(4, 2, [], id="beyond"),
        ],
    )
    def test_page(
        self, reader: Reader, first: int, count: Any, names: list[str]
    ) -> None:
        made = documents.vms(reader, 1, first, count)
        assert [e["name"] for e in made["entities"]] == names
        assert (made["first"], made["total"]) == (first, len(NAMES))

    @pytest.mark.parametrize("wanted", [1, "1", "1:"], ids=repr)
    def test_generation(self, reader: Reader, wanted: Any) -> None:
        assert documents.vms(reader, wanted)["generation"]["number"] == 1
        opened = reader.open(reader.find("1"))
        assert documents.vms(reader, opened) == documents.vms(reader, 1)
        assert documents.vms(reader)["generation"]["number"] == 2


class TestVm:
    def test_text(self, reader: Reader) -> None:
        made = documents.vm(reader, "größe")
        assert made["ovf"] == OVF.format(name="größe")
        assert made["entity"]["id"] == IDS[0]

    def test_longest(self, reader: Reader) -> None:
        assert len(documents.vm(reader, "full")["ovf"]) == documents.MAX_OVF
        assert documents.vm(reader, "more")["ovf"] is None

    def test_not_utf8(self, tmp_path: Path) -> None:
        """As only a host without us writes it."""
        store = make_store(Cli(tmp_path), tmp_path)
        data = archive("vmvm").replace(b"<References/>", b"<!--\xff\xfe-->  ")
        for copy in store.copies():
            Path(copy["path"]).write_bytes(data)
        with open_store(FileDomain.open(str(store.path))) as reader:
            made = documents.vm(reader, IDS[0])
        assert made["ovf"] is None
        assert made["entity"]["id"] == IDS[0]


class TestArchive:
    def test_whole(self, reader: Reader) -> None:
        made, chunks = documents.archive(reader, 1)
        assert b"".join(chunks) == archive(*NAMES)
        assert made["generation"] == documents.vms(reader, 1)["generation"]


class TestCheck:
    def test_names_are_bounded(self, tmp_path: Path) -> None:
        """The numbers are not."""
        store = make_store(Cli(tmp_path), tmp_path)
        count = verdict.MAX_NAMES + 20
        ids = [f"00000000-0000-4000-8000-{n:012}" for n in range(count)]
        ovfs = [(f"{i}.ovf", OVF.format(name=i)) for i in ids]
        store.json("upload", "-", data=tar(*ovfs))
        with open_store(FileDomain.open(str(store.path))) as reader:
            places = []
            for copy in reader.copies:
                (entry,) = copy.entries()
                segment = copy.segment(entry)
                segment.index()  # reads where the frames are
                assert segment.frames is not None
                position = entry.offset + segment.frames[0].position
                places.append((copy.volume.path, copy.id, position))
        for path, volume, offset in places:
            damage(Path(path), 148)
            log = store.path / "ovf_store" / f"{volume}.log"
            damage(log, offset + 200, 64)
        with open_store(FileDomain.open(str(store.path))) as reader:
            made = documents.check(reader)
        (generation,) = made["generations"]
        assert generation["lost"] == ids[: verdict.MAX_NAMES]
        assert generation["recoverable_entities"] == 0
        assert generation["entities"] == count
        for copy in made["copies"]:
            (segment,) = copy["segments"]
            # All names are used up, but one says what is meant.
            assert segment["entities"] == ids[:1]
        out = store.cli("verify", store.path).text
        assert f"{ids[9]} and {count - 10} more\n" in out

    def test_progress(self, reader: Reader) -> None:
        seen: list[tuple[int, int]] = []
        documents.check(
            reader, True, lambda what, done, total: seen.append((done, total))
        )
        assert seen[0] == (0, 4)
        assert seen[-1] == (4, 4)


class TestOpen:
    def test_no_store(self, tmp_path: Path) -> None:
        path = Cli(tmp_path).ok("init", tmp_path, "--type", "localfs").text
        with pytest.raises(errors.VolumeNotFound):
            with open_store(FileDomain.open(path.strip())):
                pass

    def test_says_why_it_is_not_seen(self, tmp_path: Path) -> None:
        store = make_store(Cli(tmp_path), tmp_path)
        for copy in store.copies():
            Path(copy["path"] + ".meta").write_bytes(b"\xff" * 600)
        with pytest.raises(errors.VolumeMetadataUnreadable):
            with open_store(FileDomain.open(str(store.path))):
                pass


class _Own(errors.GenerationNotFound):
    hint = "Look elsewhere"


@pytest.mark.parametrize("kind", [errors.GenerationNotFound, _Own])
def test_error(kind: type[errors.Error]) -> None:
    """Its name is one that others know."""
    error = kind(generation="7", cause=ValueError())
    assert error_document(error) == {
        "type": "GenerationNotFound",
        "code": 3541,
        "message": "There is no generation 7 in this store",
        "next_step": kind.hint,
        "fields": {"generation": "7"},
    }
