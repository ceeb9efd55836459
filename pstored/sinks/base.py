# SPDX-License-Identifier: Apache-2.0
"""What an outgoing sink is: something that takes a parcel, and says whether it has it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pstored.delivery.metrics import Family
from pstored.delivery.payload import Parcel, Reporter


class Setting(NamedTuple):
    """What a sink is made with, besides its table."""

    reporter: Reporter
    timeout_s: float
    """How long it may take to take one parcel."""
    environ: Mapping[str, str]


class OutgoingSink(ABC):
    """Where crashes go to that leave the archive: over a network, to a program, to somebody else's file.

    Made in a process of its own, which runs as who delivers and may write nothing else; with nothing to send it is not
    made.  One that hangs is killed, and whatever it has been given and did not answer for is given to it again.
    """

    @abstractmethod
    def deliver(self, parcel: Parcel) -> dict[str, Any]:
        """Send one parcel, and see that it is taken; gives a receipt, which is kept (JSON).

        What arrives twice must be one thing to whoever gets it: ``parcel.uid`` is the same each time.  With ``pause_s``
        in the receipt the sink is left alone for so long.

        Raises:
            SinkError: it was not taken; ``retry`` says whether it may be later, ``pause`` whether the sink wants to be
                left alone for a while.
        """

    def measure(self, families: Sequence[Family]) -> None:
        """Take all metrics, at the end of a round, if they have changed; for sinks in ``settings.MEASURING``.

        Only the newest count: what is not taken is not kept; raises SinkError.
        """
        raise NotImplementedError

    def close(self) -> None:  # noqa: B027 - most have nothing to do
        """Nothing more comes in this run.  What goes wrong here has no consequence: each parcel has been answered."""
