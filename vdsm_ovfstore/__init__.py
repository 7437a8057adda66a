# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Keep the OVFs of virtual machines on the storage their disks lie on."""

__version__ = "0.1.0"
