# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A client of hosts of OVF stores. Knows errors only.

The types of the documents that it returns stand in documents.py, which
nothing imports at run time.
"""

from vdsm_ovfstore.client.client import Client
from vdsm_ovfstore.client.downloads import Download, DownloadResult
from vdsm_ovfstore.client.transfer import Ticket

__all__ = ["Client", "Download", "DownloadResult", "Ticket"]
