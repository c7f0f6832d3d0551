"""What was found, for people and for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_WIDTH = 100


class Verdict(StrEnum):
    HOLDS = "holds"
    FAILS = "FAILS"
    ABSENT = "not offered"
    UNKNOWN = "not checked"


@dataclass(frozen=True)
class Finding:
    """One check and what came of it; `text` says why when it does not simply hold."""

    check: str
    verdict: Verdict
    text: str = ""


@dataclass(frozen=True)
class Report:
    """All checks of one driver; `kind` is device, filesystem, or empty when it could not be loaded."""

    driver: str
    kind: str
    findings: Sequence[Finding]

    @property
    def holds(self) -> bool:
        """Whether nothing fails. An optional part that is not offered is no failure."""
        return all(f.verdict in (Verdict.HOLDS, Verdict.ABSENT) for f in self.findings)

    def count(self, verdict: Verdict) -> int:
        return sum(finding.verdict is verdict for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        checks = [{"check": f.check, "verdict": f.verdict.value, "text": f.text} for f in self.findings]
        return {"driver": self.driver, "kind": self.kind, "holds": self.holds, "checks": checks}

    def table(self) -> str:
        """For people."""
        wide = max((len(finding.check) for finding in self.findings), default=0)
        lines = []
        for finding in self.findings:
            lines.append(f"  {finding.verdict.value:<11}  {finding.check}".rstrip())
            lines += textwrap.wrap(finding.text, _WIDTH, initial_indent=" " * 15, subsequent_indent=" " * 15)
        counts = ", ".join(f"{self.count(v)} {v.value}" for v in Verdict if v is Verdict.HOLDS or self.count(v))
        return "\n".join([f"{self.driver} ({self.kind or 'not loaded'})", *lines, "-" * (wide + 15), counts])
