# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""`python -m vdsm_ovfstore` is the ovfstore command."""

import sys

from vdsm_ovfstore.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
