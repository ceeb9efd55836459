# SPDX-License-Identifier: Apache-2.0
"""How a boot ended: what outweighs what, and what is never claimed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.ends import CrashOf, EndKind, Evidence, judge, title
from pstored.ledger import Witness
from pstored.resetreason import Clue

PANIC = CrashOf("20261123T000000Z-aaaaaaaaaaaa", "null-deref", "panic", "BUG: NULL")
OOPS = PANIC._replace(severity="oops")
WARNING = PANIC._replace(severity="warning")
RESTART = PANIC._replace(kind="reboot", severity="unknown")
ORDERLY, BROKE_OFF = Witness(True, "it ends in order"), Witness(False, "it breaks off")
BITTEN = Clue("bootstatus", "0x20", "watchdog")
BROWN_OUT = Clue("power_on_reason", "brown-out reset", "power")
ORDERED = Clue("reset_reason", "software", "software")


@pytest.mark.parametrize(
    ("evidence", "kind", "unexplained"),
    [
        (Evidence((PANIC,)), "panic", False),
        (Evidence((PANIC,), (BROKE_OFF,), (BITTEN,)), "panic", False),  # a watchdog may reboot what panicked
        (Evidence((PANIC,), (ORDERLY,)), "panic", False),  # it died while it was being shut down
        (Evidence((OOPS, PANIC)), "panic", False),
        (Evidence((OOPS,), (BROKE_OFF,)), "oops", False),
        (Evidence((OOPS,)), "oops", False),
        (Evidence((OOPS,), (ORDERLY,)), "clean", False),  # survived
        (Evidence((), (ORDERLY,)), "clean", False),
        (Evidence((), (ORDERLY,), (BITTEN,)), "clean", False),  # boards that reboot by their watchdog
        (Evidence((), (BROKE_OFF, ORDERLY)), "clean", False),
        (Evidence((), (BROKE_OFF,)), "reset", True),
        (Evidence((WARNING,), (BROKE_OFF,)), "reset", True),  # nothing died of a warning
        (Evidence((RESTART,), (BROKE_OFF,)), "reset", False),  # a record tells of it
        (Evidence((), (BROKE_OFF,), (BITTEN,)), "watchdog", True),
        (Evidence((), (BROKE_OFF,), (BROWN_OUT,)), "reset", True),
        (Evidence((), (), (BITTEN,)), "watchdog", False),  # nobody would have seen an orderly end: no alarm
        (Evidence((), (), (BROWN_OUT,)), "reset", False),
        (Evidence((), (), (ORDERED,)), "unknown", False),
        (Evidence(), "unknown", False),
        # told before: what was settled then stands, though the journal has forgotten
        (Evidence((PANIC._replace(kind="watchdog", severity="reset"),)), "watchdog", False),
        (Evidence((PANIC._replace(kind="reset", severity="reset"),), (BROKE_OFF,)), "reset", False),
    ],
)
def test_evidence_comes_to_one_kind(evidence: Evidence, kind: str, unexplained: bool) -> None:
    """The table of what outweighs what."""
    end = judge(evidence)
    assert (end.kind, end.unexplained) == (kind, unexplained)


_EVIDENCE = st.builds(
    Evidence,
    st.lists(st.sampled_from([PANIC, OOPS, WARNING, RESTART])).map(tuple),
    st.lists(st.sampled_from([ORDERLY, BROKE_OFF])).map(tuple),
    st.lists(st.sampled_from([BITTEN, BROWN_OUT, ORDERED])).map(tuple),
)


@given(_EVIDENCE)
def test_every_end_has_evidence_in_words(evidence: Evidence) -> None:
    """Whatever is known: a sentence, also for what is not known; and it does not depend on the order of witnesses."""
    end = judge(evidence)
    assert end.evidence
    assert all(end.evidence)
    turned = judge(evidence._replace(witnesses=evidence.witnesses[::-1]))
    assert (turned.kind, turned.unexplained) == (end.kind, end.unexplained)


@given(_EVIDENCE)
def test_no_alarm_without_a_witness_or_against_one(evidence: Evidence) -> None:
    """Unexplained is only what somebody watched, nobody saw end in order, and no record of a death tells of."""
    if judge(evidence).unexplained:
        assert evidence.witnesses
        assert not any(w.orderly for w in evidence.witnesses)
        assert {c.severity for c in evidence.crashes} <= {"warning"}


def test_titles_say_what_the_hardware_says() -> None:
    """A watchdog is named; a brown-out is quoted; otherwise both possibilities are left open."""
    broke_off = Evidence((), (BROKE_OFF,))
    assert "watchdog" in title(judge(broke_off._replace(clues=(BITTEN,))), (BITTEN,))
    assert "brown-out reset" in title(judge(broke_off._replace(clues=(BROWN_OUT,))), (BROWN_OUT,))
    assert title(judge(broke_off), ()).startswith("unexplained reset or power loss")
    assert judge(broke_off).kind is EndKind.RESET
