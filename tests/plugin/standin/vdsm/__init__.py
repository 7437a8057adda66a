# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""
A thin stand-in of VDSM: the names that the plugin uses, in the shape that
plugin/contract.py pins, with just enough behind them to be driven.

It leaves unproved what VDSM's own code does with them: its threads, tasks that
persist, resource locks, STOMP, recovery. That was tried by hand in a real
vdsmd; tests that need no more than its modules run with the real package
where that can be imported.
"""

import logging

log = logging.getLogger("vds")
