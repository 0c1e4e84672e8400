"""What a comparison returns: one frozen interval with its proof and the record of every rung."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any, Literal

from gfviz.lazy import sparse as sp

Side = Literal["lower", "upper"]
Proof = Literal["bounds meet", "enumeration", "branch and bound"]


@dataclass(frozen=True)
class RungRecord:
    """One rung: its name, the end it bounds, the bound on GW_p (None if left out), its time, whether it ran, and why
    not."""

    name: str
    side: Side
    value: float | None
    seconds: float
    used: bool
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "side": self.side,
            "value": self.value,
            "seconds": self.seconds,
            "used": self.used,
            "note": self.note,
        }


@dataclass(frozen=True)
class GromovResult:
    """`lower <= GW_p <= upper`, in the units of the input (root taken).

    `coupling` csr [n, m] attains `upper`; `proof` is None, "bounds meet" (the outward-rounded interval is narrower than
    1e-9 of its upper end), "enumeration" or "branch and bound"; `note` says what the caller should know (interrupted).
    """

    lower: float
    upper: float
    proof: Proof | None
    coupling: sp.csr_array
    rungs: tuple[RungRecord, ...]
    lower_rung: str
    upper_rung: str
    p: float
    n: int
    m: int
    budget: str | float
    seconds: float = 0.0
    note: str = ""

    @property
    def gap(self) -> float:
        """(upper − lower) / upper, 0 where upper is 0."""
        return 0.0 if self.upper == 0 else (self.upper - self.lower) / self.upper

    def to_dict(self) -> dict[str, Any]:
        """Everything but the coupling, as JSON-ready values."""
        return {
            "lower": self.lower,
            "upper": self.upper,
            "gap": self.gap,
            "proof": self.proof,
            "lower_rung": self.lower_rung,
            "upper_rung": self.upper_rung,
            "p": self.p,
            "n": self.n,
            "m": self.m,
            "budget": self.budget,
            "seconds": self.seconds,
            "note": self.note,
            "rungs": [record.to_dict() for record in self.rungs],
        }

    def __str__(self) -> str:
        proof = f", proven by {self.proof}" if self.proof else ""
        return f"GW_{self.p:g} in [{self.lower:.6g}, {self.upper:.6g}] (gap {self.gap:.3f}{proof})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(r.name)}</td><td>{r.side}</td>"
            f"<td>{'–' if r.value is None else format(r.value, '.6g')}</td><td>{1e3 * r.seconds:.2f} ms</td>"
            f"<td>{html.escape(r.note)}</td></tr>"
            for r in self.rungs
        )
        return (
            f"<p><b>{html.escape(str(self))}</b><br>{self.n} and {self.m} nodes, "
            f"budget {html.escape(str(self.budget))}, "
            f"lower by {html.escape(self.lower_rung)}, upper by {html.escape(self.upper_rung)}</p>"
            f"<table><tr><th>rung</th><th>end</th><th>bound</th><th>time</th><th>note</th></tr>{rows}</table>"
        )
