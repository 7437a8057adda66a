# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What is served at which path."""

from __future__ import annotations

from typing import Any, Protocol

from vdsm_ovfstore.api import transfers
from vdsm_ovfstore.host import answers, rpc, streams
from vdsm_ovfstore.host.exchange import Exchange, PeerGone

RPC = "/ovf-store/rpc"
STATUS = "/ovf-store/status"

# Browsers send one of these: the first with what changes something, the
# other with everything to https and loopback. Pages cannot take them away.
_OF_BROWSERS = ("Origin", "Sec-Fetch-Site")


class Service(rpc.Service, Protocol):
    """What an App needs of api.service.Service."""

    @property
    def transfers(self) -> streams.Transfers: ...

    def status(self) -> dict[str, Any]: ...


class App:
    """Answers exchanges from any number of servers and threads."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def handle(self, exchange: Exchange) -> None:
        """
        Answer a request. Raises PeerGone.

        Afterwards the connection must be closed unless exchange.keep.
        """
        try:
            self._route(exchange)
        except PeerGone:
            exchange.keep = False
            raise
        except Exception as e:
            answers.send_error(exchange, e)

    def _route(self, exchange: Exchange) -> None:
        if any(name in exchange.headers for name in _OF_BROWSERS):
            # Any page in a browser on this host could else use what is
            # plain on loopback.
            raise answers.Refused(403, "browsers are not served")
        path = exchange.path
        if path == RPC:
            _allow(exchange, "POST")
            rpc.handle(exchange, self._service)
        elif path == STATUS and exchange.local:
            _allow(exchange, "GET")
            body = answers.encode(self._service.status())
            exchange.answer(200, body, answers.JSON)
        elif path.startswith(transfers.URL):
            self._transfer(exchange, path[len(transfers.URL) :])
        else:
            raise answers.Refused(404, "there is nothing at this path")

    def _transfer(self, exchange: Exchange, ticket: str) -> None:
        _allow(exchange, "GET", "PUT")
        if exchange.method == "PUT":
            streams.put(exchange, self._service.transfers, ticket)
        else:
            streams.get(exchange, self._service.transfers, ticket)


def _allow(exchange: Exchange, *methods: str) -> None:
    if exchange.method not in methods:
        allowed = ", ".join(methods)
        raise answers.Refused(
            405, f"only {allowed} can be used here", {"Allow": allowed}
        )
