"""How a function of option groups becomes a command: its options, its output, its exit code."""

from __future__ import annotations

import inspect
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from copy import copy
from dataclasses import MISSING, dataclass, fields
from functools import partial
from typing import Annotated, Any, get_type_hints

import typer
from rich.markup import escape
from typer.core import TyperCommand

from compressor.cli.progress import Progress, readable_warnings
from compressor.errors import CompressorError

__all__ = ["Command", "OutputOptions", "Result", "command", "reflowed"]


@dataclass(frozen=True)
class Result:
    """What a command found: `text` for people, `data` for `--json`."""

    text: str
    data: Mapping[str, object]


@dataclass(frozen=True)
class OutputOptions:
    """How a command speaks; every command has these."""

    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON object on stdout, and nothing else there.",
            rich_help_panel="Output",
        ),
    ] = False
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="No progress on stderr.", rich_help_panel="Output"),
    ] = False
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="Output"),
    ] = False


@dataclass(frozen=True)
class Command:
    """A function as a command of the same name.

    The function takes dataclasses whose fields are annotated as typer's parameters, and `progress`.
    Their fields become the options of the command; the function's docstring and `example` its help. Options
    in `many`, which are lists, take all the values that follow: `--models a b` is `--models a --models b`.
    """

    function: Callable[..., Result]
    example: str
    many: tuple[str, ...] = ()

    def enter(self, app: typer.Typer, name: str | None = None) -> None:
        """Add the command to an application, under another name where one is given."""
        name = name or self.function.__name__.replace("_", "-")
        kind = _taking_many(self.many) if self.many else None
        app.command(name, cls=kind, epilog=escape(_shown(self.example)))(_flat(self.function))


def command(*, example: str, many: Sequence[str] = ()) -> Callable[[Callable[..., Result]], Command]:
    """A decorator that makes a function a Command; `example` is a line or several."""
    return partial(Command, example=example, many=tuple(many))


def reflowed(text: str) -> str:
    """The paragraphs of a text, each on one line, for terminals of any width.

    >>> reflowed("one\\ntwo\\n\\nthree")
    'one two\\n\\nthree'
    """
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))


def _shown(example: str) -> str:
    """Each line as a paragraph: help texts are reflowed."""
    return "\n\n".join(["Example:", *filter(None, example.splitlines())])


def _taking_many(options: Sequence[str]) -> type[TyperCommand]:
    class TakingMany(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            return super().parse_args(ctx, list(_repeated(args, options)))

    return TakingMany


def _repeated(args: Sequence[str], options: Sequence[str]) -> Iterator[str]:
    """The words of a command line with an option of `options` before each of its values.

    >>> list(_repeated(["out", "--models", "a", "b", "--quiet"], ["--models"]))
    ['out', '--models', 'a', '--models', 'b', '--quiet']
    """
    current = ""
    for before, word in zip(["", *args], args, strict=False):
        if word.startswith("-"):
            current = word if word in options else ""
        elif current and before != current:
            yield current
        yield word


def _flat(function: Callable[..., Result]) -> Callable[..., None]:
    """The function with the fields of its option groups as its own parameters."""
    hints = get_type_hints(function)
    groups = {name: kind for name, kind in hints.items() if name not in ("progress", "return")}
    parameters = [p for kind in (*groups.values(), OutputOptions) for p in _parameters(kind)]

    def run(**values: Any) -> None:
        given = {name: _filled(kind, values) for name, kind in groups.items()}
        _run(function, given, _filled(OutputOptions, values))

    run.__doc__ = escape(reflowed(inspect.getdoc(function) or ""))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _parameters(kind: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=_literal(hints[field.name]),
        )
        for field in fields(kind)
    ]


def _literal(annotation: Any) -> Any:
    """The annotation of an option with a help in which square brackets are no markup: compressor[onnx]."""
    option = copy(annotation.__metadata__[0])
    option.help = escape(option.help)
    return Annotated[annotation.__origin__, option]


def _filled(kind: Any, values: Mapping[str, Any]) -> Any:
    return kind(**{field.name: values[field.name] for field in fields(kind)})


def _run(function: Callable[..., Result], given: Mapping[str, object], output: OutputOptions) -> None:
    """Print the result of `function(**given)`; an error of the library becomes exit code 1."""
    try:
        # Whatever a model or an exporter prints must not end up in the JSON.
        with redirect_stdout(sys.stderr), readable_warnings():
            result = function(**given, progress=Progress(quiet=output.quiet))
    except CompressorError as error:
        if output.debug:
            traceback.print_exc()
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        raise typer.Exit(1) from None
    typer.echo(json.dumps(result.data, indent=2) if output.json else result.text)
