# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""The plugin: the verbs, and the store for the engine's uploads, in vdsmd."""
