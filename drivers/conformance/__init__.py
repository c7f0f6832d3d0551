"""Says whether a driver keeps the contract: `python -m llmos.drivers.conformance NAME`."""

from .report import Finding, Report, Verdict
from .runner import check

__all__ = ["Finding", "Report", "Verdict", "check"]
