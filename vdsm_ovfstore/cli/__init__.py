# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The ovfstore command.

    main      where it begins
    call      one call: streams, signals, how errors are told
    options   the command line
    console   what goes to stdout and stderr, for people or as JSON
    make, upload, repair, download, extract, look, listing, entities, check,
    explain   the verbs, imported when they are called
    store     what they ask for documents: direct, or remote
    way, serving
              which of the two
"""
