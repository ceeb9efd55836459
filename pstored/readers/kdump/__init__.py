# SPDX-License-Identifier: Apache-2.0
"""kdump: the crashed kernel's memory as it was saved, and the log in it.

A dump file gives physical memory and VMCOREINFO (:mod:`.elf`, :mod:`.diskdump`, either of them in :mod:`.flattened`
form); :mod:`.memory` finds kernel addresses in it, :mod:`.ring` and :mod:`.oldlog` the messages there; :mod:`.vmcore`
is the reader.  :mod:`.dmesgtext` reads the text files that are put beside a dump.
"""
