# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The sample OVFs are what the README and `make run` promise."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree

import pytest

OVFS = os.path.join(
    os.path.dirname(__file__), os.pardir, os.pardir, "samples", "ovfs"
)
SAMPLES = sorted(os.listdir(OVFS))
OVF_ID = "{http://schemas.dmtf.org/ovf/envelope/1/}id"
OVF_HREF = "{http://schemas.dmtf.org/ovf/envelope/1/}href"
XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"


def parsed(name: str) -> ElementTree.Element:
    return ElementTree.parse(os.path.join(OVFS, name)).getroot()


@pytest.mark.parametrize("name", SAMPLES)
def test_file_name_is_id_of_entity(name: str) -> None:
    ids = [
        section.get(OVF_ID)
        for section in parsed(name).iter("Section")
        if section.get(XSI_TYPE) == "ovf:OperatingSystemSection_Type"
    ]
    assert [f"{found}.ovf" for found in ids] == [name]


@pytest.mark.parametrize("name", SAMPLES)
def test_size_is_that_of_real_ones(name: str) -> None:
    assert 5 <= os.path.getsize(os.path.join(OVFS, name)) / 1024 <= 16


def test_names_and_kinds_differ() -> None:
    roots = [parsed(name) for name in SAMPLES]
    names = {root.findtext("Content/Name") for root in roots}
    templates = sum(r.find("Content/TemplateType") is not None for r in roots)
    diskless = sum(r.find("References/File") is None for r in roots)
    assert (len(names), templates, diskless) == (6, 1, 1)


def test_no_disk_belongs_to_two() -> None:
    disks = [
        file.get(OVF_HREF)
        for name in SAMPLES
        for file in parsed(name).iter("File")
    ]
    assert len(disks) == len(set(disks))
