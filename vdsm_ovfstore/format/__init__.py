# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What the bytes mean. No I/O policy, no processes; knows no other room."""
