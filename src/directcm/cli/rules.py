"""A rule's shell command, from the declaration of its verb."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from directcm.cli.declare import flags
from directcm.cli.verbs import VERBS


def command(
    verb: str,
    given: str = "",
    *,
    wildcards: str = "",
    before: str = "",
    everywhere: Mapping[str, str] = MappingProxyType({}),
    **values: str,
) -> str:
    """The line `directcm VERB …`, for Snakemake to fill in: all that the verb needs, its threads, and what is `given` of the rest.

    A flag's value is the rule's parameter of its name, or what its declaration says (`Option.filled`), its wildcard where it is
    among those, or what `values` say. A name with a "?" is a parameter that holds the flag too, or nothing at all. `before`
    stands before the verb. `everywhere`: values of flags, for the verbs that have them. Raises ValueError for a name that is no flag of the verb's.
    """
    found = {flag.name: flag for flag in flags(VERBS[verb])}
    values = {name: f"{{wildcards.{name}}}" for name in wildcards.split()} | values
    named = given.split()
    if unknown := {*(name.removesuffix("?") for name in named), *values} - set(found):
        raise ValueError(f"directcm {verb} has no flag for {', '.join(sorted(unknown))}")
    words = [f"directcm {before}{verb}"]
    for name, flag in found.items():
        filled = flag.option.filled or "params.NAME"
        if f"{name}?" in named:
            words.append(f"{{params.{name}}}")
        elif flag.required or filled == "threads" or name in named or name in values:
            value = values.get(name, f"{{{filled.replace('NAME', name)}}}")
            words.append(value if flag.bare else f"{flag.text} {value}")
    words += [f"{found[name].text} {value}" for name, value in everywhere.items() if name in found]
    return " ".join([*words, "--log {log}"])
