"""A verb is a typed function: its signature is its command line, its docstring its help, and rules take their flags from it.

A parameter is a flag of its name; one before `/` is positional, and `*words` takes the rest of the line. Its type says what
the flag takes: a number, text, a Path, a Literal of choices, a bool (no value), a Sequence (several values), or a model of the
configuration (JSON or a file). A dataclass stands for the flags of its fields. What a type cannot say stands beside it:

    def targets(*, settings: Annotated[config.Targets, block("targets")], ode: Ode, shard: Index, job: Long) -> None:
        "Solve the ODE from a shard of the start points."

argparse does the rest. A library that reads signatures (cyclopts 5.5 was tried) doubles the time of `directcm --help`, and so
of every job's start, and names a missing flag before a wrong value.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from directcm.config import settings_argument

Verb = Callable[..., None]
_NEEDED = inspect.Parameter.empty
# Of a rule's parameter, for the shell.
QUOTED = "params.NAME:q"


@dataclass(frozen=True)
class Option:
    """What a parameter's type does not say of its flag; text alone beside a type is `help`.

    `read` makes a value of one word, or raises ArgumentTypeError: a wrong call. `opened` makes of it what the verb gets, when the
    verb runs: a UserError goes into its log. `least`: of a Sequence's values. `instead`: the parameter in whose place this one
    may stand; one of the two must. `was`: a former name, which is refused by a line that names this one. `filled`: where a rule has
    the value, else in its parameter (`rules`); NAME is the name.
    """

    help: str = ""
    metavar: str = ""
    read: Callable[[str], Any] | None = None
    opened: Callable[[Any], Any] | None = None
    choices: Sequence[str] = ()
    flag: str = ""
    least: int = 0
    instead: str = ""
    was: str = ""
    filled: str = ""


@dataclass(frozen=True)
class Flag:
    """A parameter as the command line has it. `kind` is its type, of a Sequence that of one value."""

    name: str
    option: Option
    kind: Any
    several: bool
    default: Any
    place: Any = inspect.Parameter.KEYWORD_ONLY

    @property
    def required(self) -> bool:
        return self.default is _NEEDED

    @property
    def bare(self) -> bool:
        return self.place is not inspect.Parameter.KEYWORD_ONLY

    @property
    def text(self) -> str:
        return self.name if self.bare else self.option.flag or "--" + self.name.replace("_", "-")


def _flag(name: str, hint: Any, *rest: Any) -> Flag:
    """The flag of a parameter; what stands outside in its type goes before what stands inside."""
    said: dict[str, Any] = {}
    several = False
    while (origin := get_origin(hint)) is not None:
        if origin is Annotated:
            hint, *notes = get_args(hint)
            for note in reversed(notes):
                said = ({"help": note} if isinstance(note, str) else {k: v for k, v in vars(note).items() if v}) | said
        elif origin in (Union, types.UnionType):
            (hint,) = (one for one in get_args(hint) if one is not types.NoneType)
        elif origin is Literal:
            hint, said = str, {"choices": get_args(hint)} | said
        elif origin is Sequence:
            (hint,), several = get_args(hint), True
        else:
            break
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        said = {"metavar": "JSON", "opened": functools.partial(settings_argument, hint), "filled": QUOTED} | said
    return Flag(name, Option(**said), hint, several, *rest)


@functools.cache
def _parameters(verb: Verb) -> dict[str, tuple[Any, list[Flag]]]:
    """Each parameter of a verb: its type, and its flags, of which a group has several."""
    found = {}
    for name, hint in get_type_hints(verb, include_extras=True).items():
        if (parameter := inspect.signature(verb).parameters.get(name)) is None:
            continue  # what it returns
        if is_dataclass(hint):
            inside = get_type_hints(hint, include_extras=True)
            given = [(f.name, _NEEDED if f.default is MISSING else f.default) for f in fields(hint)]
            found[name] = (hint, [_flag(n, inside[n], default) for n, default in given])
        else:
            found[name] = (hint, [_flag(name, hint, parameter.default, parameter.kind)])
    return found


def flags(verb: Verb) -> list[Flag]:
    """All flags of a verb, those without dashes first."""
    return [flag for _, found in _parameters(verb).values() for flag in found]


class Parser(argparse.ArgumentParser):
    """One line and exit code 2 for a wrong call, without the usage dump."""

    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


class _Renamed(argparse.Action):
    """A flag's former name; `dest` is the new one."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        parser.error(f"{self.option_strings[0]} is {self.dest} now")


def add(parser: argparse.ArgumentParser, verb: Verb) -> None:
    """Add a verb's flags to its parser."""
    rivals = {flag.option.instead for flag in flags(verb)} - {""}
    one_of = parser.add_mutually_exclusive_group(required=True) if rivals else parser
    for flag in flags(verb):
        option = flag.option
        how: dict[str, Any] = {"help": option.help or None}
        if not flag.bare:
            how |= {"dest": flag.name, "required": flag.required}
        elif flag.place is inspect.Parameter.VAR_POSITIONAL:
            how["nargs"] = argparse.REMAINDER
        elif not flag.required:
            how["nargs"] = "?"
        if flag.kind is bool:
            how["action"] = "store_true"
        else:
            how |= {"type": option.read or (str if option.opened else flag.kind), "metavar": option.metavar or None}
            how |= {"choices": list(option.choices)} if option.choices else {}
            how |= {"nargs": "+" if option.least else "*"} if flag.several else {}
            if not flag.required:
                how["default"] = list(flag.default) if isinstance(flag.default, tuple) else flag.default
        (one_of if option.instead or flag.name in rivals else parser).add_argument(flag.text, **how)
        if option.was:
            parser.add_argument(option.was, action=_Renamed, dest=flag.text, nargs="?", help=argparse.SUPPRESS)


def _opened(flag: Flag, value: Any) -> Any:
    make = flag.option.opened
    return value if make is None or value is None else [make(one) for one in value] if flag.several else make(value)


def call(verb: Verb, values: Mapping[str, Any]) -> None:
    """Call a verb with what its parser has read, opened in the order of its parameters. Raises UserError."""
    words: list[Any] = []
    named = {}
    for name, (hint, found) in _parameters(verb).items():
        made = {flag.name: _opened(flag, values[flag.name]) for flag in found}
        if is_dataclass(hint):
            named[name] = hint(**made)  # type: ignore[operator]
        elif found[0].bare:
            words += made[name] if found[0].place is inspect.Parameter.VAR_POSITIONAL else [made[name]]
        else:
            named[name] = made[name]
    verb(*words, **named)
