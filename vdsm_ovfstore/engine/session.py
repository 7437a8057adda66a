# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""A session with an engine's API, by its SDK, and what goes wrong in one."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.engine import config

log = logging.getLogger("ovfstore.updater")

# What passes by itself: the engine starts, is busy, or went away.
_PASSING = (409, 429, 500, 502, 503, 504)
_RETRY = 30.0  # seconds

_MAX_SECRET = 64 * 1024  # characters of a token or password


class Session:
    """
    Connected when it is needed, and anew after each failure.

    source: what errors call the engine; sdk: the module ovirtsdk4.

    Raises errors.PackageMissing, where that is not installed.
    """

    def __init__(self, conf: config.Source, source: str) -> None:
        self.sdk = _import_sdk()
        self._conf = conf
        self._source = source
        self._connection: Any = None

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(self.sdk.Error):
                # A token that was given to us is not ours to revoke.
                connection.close(logout=not self._conf.token_file)

    def system(self) -> Any:
        """The root of the API's services."""
        if self._connection is None:
            conf = self._conf
            path = conf.token_file or conf.password_file
            secret = _secret(path, self._source)
            who = {"username": conf.user, "password": secret}
            self._connection = self.sdk.Connection(
                url=conf.url,
                ca_file=conf.ca or None,
                timeout=max(1, round(conf.timeout)),
                **({"token": secret} if conf.token_file else who),
            )
        return self._connection.system_service()

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """Turns what the SDK raises into errors.SourceFailed."""
        try:
            yield
        except errors.Error:
            raise
        except self.sdk.NotFoundError as e:
            raise self._failed(
                e, "Check [source] url: https://ENGINE/ovirt-engine/api"
            ) from None
        except self.sdk.AuthError as e:
            raise self._failed(
                e, "Check [source] user, password_file and token_file"
            ) from None
        except self.sdk.Error as e:
            code = getattr(e, "code", None)
            passing = code is None or code in _PASSING
            raise self._failed(
                e,
                "It is tried again soon; if it stays so, check the engine and "
                "[source] url and ca",
                _RETRY if passing else 0,
            ) from None
        except Exception as e:
            # What came is nothing that the SDK expects of an engine.
            log.debug("ANSWER", exc_info=True)
            raise self._failed(
                e, "Check [source] url: something else may answer there"
            ) from None

    def _failed(
        self, e: Exception, way_out: str, retry_after: float = 0
    ) -> errors.SourceFailed:
        # The SDK's connection is of no use after some errors.
        self.close()
        reason = " ".join(str(e).split())[:500] or type(e).__name__
        return errors.SourceFailed(
            source=self._source,
            reason=reason,
            way_out=way_out,
            retry_after=retry_after,
        )


def _import_sdk() -> Any:
    try:
        return importlib.import_module("ovirtsdk4")
    except ImportError:
        raise errors.PackageMissing(
            python=sys.executable,
            module="ovirtsdk4",
            package="python3-ovirt-engine-sdk4, or with pip: "
            "ovirt-engine-sdk-python",
        ) from None


def _secret(path: str, source: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(_MAX_SECRET).strip()
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or str(e)
        raise errors.SourceFailed(
            source=source,
            reason=f"{path}: {reason}",
            way_out="Put the password or token there, for this user to read",
        ) from None
