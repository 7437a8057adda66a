# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Where the bytes lie: direct I/O, domains, volumes. Knows format only."""
