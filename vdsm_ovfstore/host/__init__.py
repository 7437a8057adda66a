# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""How verbs and streams are served: HTTP, TLS, the daemon. Knows api."""
