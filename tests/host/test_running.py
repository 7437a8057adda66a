# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""A daemon whose parts cannot all be made leaves none of them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.held import held, wait_until_released
from vdsm_ovfstore import errors
from vdsm_ovfstore.host import drop_ins
from vdsm_ovfstore.host.config import Config
from vdsm_ovfstore.host.running import Running


def config(tmp_path: Path, port: int, group: str = "") -> Config:
    conf_dir = tmp_path / "conf.d"
    conf_dir.mkdir()
    (conf_dir / "50.conf").write_text(
        f"[host]\nport = {port}\n[tls]\nenable = no\n"
        f"[local]\nsocket = {tmp_path}/socket\ngroup = {group}\n"
        f"[limits]\nspool = {tmp_path}\n"
        f"[storage]\ndomains = {tmp_path}\n"
    )
    loaded: Config = drop_ins.load([str(conf_dir)]).config
    return loaded


def test_port_in_use(tmp_path: Path) -> None:
    before = held()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(errors.AddressUnavailable, match=f":{port}: "):
            Running(config(tmp_path, port))
    assert not os.path.lexists(tmp_path / "socket")
    wait_until_released(before)


def test_no_group(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    before = held()
    with pytest.raises(errors.ConfigInvalid, match="no group 'nobody-here'"):
        Running(config(tmp_path, port, "nobody-here"))
    wait_until_released(before)
    # The port is free again.
    socket.create_server(("127.0.0.1", port)).close()
    assert not os.path.lexists(tmp_path / "socket")
