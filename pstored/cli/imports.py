# SPDX-License-Identifier: Apache-2.0
"""``import``: what lies elsewhere than in the store, into the archive; then the second stage."""

from argparse import Namespace
from functools import partial

from pstored.cli import output
from pstored.cli.collect import find_crashes
from pstored.cli.context import Context, open_context
from pstored.errors import ArchiveError, PstoredError, report
from pstored.intake.bundles import Import
from pstored.readers.model import Options


def import_(options: Namespace) -> int:
    """Each path in turn; one that cannot be read does not keep the others out."""
    context = open_context(options)
    done: list[Import] = []
    failures: list[PstoredError] = []
    for path in options.paths or [None]:
        try:
            done += _import(context, options, path)
        except ArchiveError:
            raise
        except PstoredError as e:
            failures.append(e)
    if options.list:
        crashes, complete = None, True
        found = None
    else:
        found, crashes = find_crashes(context)
        complete = all(crash["complete"] for crash in crashes)
    if options.json:
        facts: dict[str, object] = {"imports": [output.import_facts(i, listed=options.list) for i in done]}
        if found is not None:
            facts |= {"crashes": crashes, "notes": list(found.notes)}
        output.print_json(facts)
    else:
        for imported in done:
            output.print_listed(imported) if options.list else output.print_import(imported)
        if not done and not failures:
            print("nothing to import")
        if found is not None and crashes is not None:
            output.print_found(found, crashes)
    if found is not None and found.trouble is not None:
        failures.append(found.trouble)
    statuses = [report(failure) for failure in failures]
    failed = any(i.problems for i in done) or not complete or (found is not None and found.failures)
    return next(iter(statuses), int(bool(failed)))


def _import(context: Context, options: Namespace, path: str | None) -> list[Import]:
    from pstored.intake.elsewhere import import_last_kmsg, import_received
    from pstored.intake.flash import import_mtdoops, import_nvram
    from pstored.intake.neighbours import import_bert, import_efi_variables, import_ramoops_memory
    from pstored.intake.salvage import Wanted, import_path
    from pstored.intake.systemdpstore import import_systemd_pstore
    from pstored.stages import with_room

    host, config = context.host, context.config
    if path is None:
        takers = (
            import_systemd_pstore,
            import_received,
            import_last_kmsg,
            import_efi_variables,
            import_mtdoops,
            import_nvram,
            import_ramoops_memory,
            import_bert,
        )
        take = (partial(t, host, config, only_list=options.list) for t in takers)
        done = [with_room(host, context.archive, config, one) for one in take]
        return [one for one in done if one is not None]
    wanted = Wanted(
        kind=options.kind,
        options=Options(parameters=dict(options.parameter), erased=options.deleted),
        offset=options.offset,
        size=options.size,
        only_list=options.list,
    )
    return with_room(host, context.archive, config, lambda: list(import_path(host, config, path, wanted)))
