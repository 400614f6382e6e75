"""The sections of a report in their order: each is one file with one function, and a line here.

A section says what it finds in a `Case`, or None where the case has nothing of its kind.
"""

from collections.abc import Callable

from compressor.reporting.case import Case
from compressor.reporting.document import Section
from compressor.reporting.sections.certificate import certificate
from compressor.reporting.sections.channels import channels
from compressor.reporting.sections.costs import costs
from compressor.reporting.sections.filters import filters
from compressor.reporting.sections.frontier import frontier
from compressor.reporting.sections.plan import plan
from compressor.reporting.sections.scores import scores
from compressor.reporting.sections.sensitivity import sensitivity
from compressor.reporting.sections.summary import summary

__all__ = ["SECTIONS"]

SECTIONS: tuple[Callable[[Case], Section | None], ...] = (
    summary,
    costs,
    channels,
    scores,
    sensitivity,
    frontier,
    filters,
    certificate,
    plan,
)
