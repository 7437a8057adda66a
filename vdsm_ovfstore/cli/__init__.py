# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The ovfstore command.

    main      one call: streams, signals, how errors are told
    options   the command line
    console   what goes to stdout and stderr, for people or as JSON
    domain, make, upload, download, look, entities, check, explain
              the verbs, imported when they are called
"""
