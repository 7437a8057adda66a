# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What can be had where nothing is whole: no domain, no lock, no daemon.

    sources     what a path means: files, devices, the files of a domain
    source      one of them, opened to read and never to write
    scan        one pass over it, which finds structures by how they begin
    ahead       reading and looking at the same time
    findings    what was found
    carved      one generation, from whatever is left of its segments
    generation  what of a generation can be had, by its index or frames
    runs, tars  tars that lie about: heads, whole, cut or overwritten
    walk        the members of a tar with gaps
    fragment    what is left of an OVF that was cut
    versions    each VM's versions, graded by what proves them
    salvage     all of it in order
    document    what was found, as JSON types
    target      where the OVFs go, and where they must not
"""
