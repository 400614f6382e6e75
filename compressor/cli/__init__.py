"""The command line: every verb of the library from the shell, `compressor --help`."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from compressor import __version__
from compressor.cli.benching import bench_page
from compressor.cli.bundling import mobile
from compressor.cli.command import reflowed
from compressor.cli.explaining import explain
from compressor.cli.exporting import onnx
from compressor.cli.filters import filters
from compressor.cli.planning import plan
from compressor.cli.profiling import profile
from compressor.cli.pruning import apply, prune
from compressor.cli.reporting import report
from compressor.cli.searching import search
from compressor.cli.sensitivities import sensitivity
from compressor.cli.suggesting import suggest
from compressor.cli.verifying import verify

__all__ = ["app", "main"]

_HELP = """
Make PyTorch models smaller by removing channels, and prove the result.

profile shows what a model costs, explain what can be removed and why not the rest, prune does
everything at once; plan, apply, verify and export are its steps one by one; sensitivity and search
ask a function of yours which ratios cost least; report says in one file what was done; bench-page puts
exported files side by side on a phone; filters and suggest look at the weights. MODEL is a function of
yours, named package.module:attribute.

Exit codes: 0 all went well; 1 an error, in words on stderr (--debug shows where it was raised); 2 a
command line that makes no sense. Results go to stdout, progress and warnings to stderr.
"""

app = typer.Typer(
    name="compressor",
    help=reflowed(_HELP),
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,  # a bug shows Python's own traceback, which can be searched
    rich_markup_mode="rich",
)
export = typer.Typer(
    help="Write a model for other runtimes, each file checked against the model it came from.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
for _command in (profile, explain, prune, plan, apply, verify, sensitivity, search, report, bench_page):
    _command.enter(app)
app.add_typer(export, name="export")
app.add_typer(filters, name="filters")
app.add_typer(suggest, name="suggest")
for _command in (onnx, mobile):
    _command.enter(export)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"compressor {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass  # what it does, it does before any command


def main() -> None:
    """Run the command line and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a letter shows "?"
    app()
