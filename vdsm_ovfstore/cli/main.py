# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Where the command begins: nothing is imported before an interrupt is heard.

The imports take longer than people need to change their mind.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Optional


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns the exit status."""
    # Until call.main() can tell an interrupt it ends us without a word. Not
    # where it is ignored, as behind "&" in a script.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from vdsm_ovfstore.cli import call

    return call.main(argv)


if __name__ == "__main__":
    sys.exit(main())
