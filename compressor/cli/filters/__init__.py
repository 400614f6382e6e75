"""The commands `compressor filters ...`: see filters, and keep those of many models."""

from __future__ import annotations

import typer

from compressor.cli.filters.compare import compare
from compressor.cli.filters.extract import extract
from compressor.cli.filters.merge import merge
from compressor.cli.filters.report import report
from compressor.cli.filters.sketch import sketch
from compressor.cli.filters.verify import verify

__all__ = ["filters"]

filters = typer.Typer(
    help="See what filters are like: reports, drift between models, stores of any size.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
for _command in (report, compare, extract, verify, sketch, merge):
    _command.enter(filters)
