"""What every block of the configuration is made of: kinds of values, and how YAML's are taken."""

from __future__ import annotations

import functools
import json
import operator
import re
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model, model_validator

from directcm.config.registry import broken, conditions, require
from directcm.config.specs import DATA_SETS, DISTANCES, LAYOUTS, METHODS, SOLVERS, TEACHERS, Kind

_EXPONENT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][+-]?[0-9]{1,3}")


def _numbers(value: Any) -> Any:
    """1e2 and 1e-3, which YAML 1.1 takes for text where they have no point, as the numbers they are; whole ones stay whole."""
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        exact = Decimal(value)
        return int(exact) if exact == exact.to_integral_value() and abs(exact) < 10**18 else float(value)
    if isinstance(value, list | tuple):
        return [_numbers(one) for one in value]
    if isinstance(value, dict):
        return {key: _numbers(one) for key, one in value.items()}
    return value


# Strict: a whole number is not text, and not a number with a point.
Positive = Annotated[int, Field(ge=1, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Inside = Annotated[float, Field(gt=0, lt=1)]
Guidance = Annotated[float, Field(ge=0, le=100)]
# An unquoted `no` is false to PyYAML and text to others; `dvc exp run --set-param` takes the quotes away.
Precision = Annotated[Literal["no", "fp16", "bf16"], BeforeValidator(lambda value: "no" if value is False else value)]
# What modules declare: the methods, solvers, distances, data sets, layouts of archives and teachers that there are.
if TYPE_CHECKING:
    Method = str
    Solver = str
    Loss = str
    DataKind = str
    DataLayout = str
    TeacherName = str
else:
    Method, Solver, Loss = Literal[tuple(METHODS)], Literal[tuple(SOLVERS)], Literal[tuple(DISTANCES)]
    DataKind, DataLayout, TeacherName = Literal[tuple(DATA_SETS)], Literal[tuple(LAYOUTS)], Literal[tuple(TEACHERS)]
ADAPTER = r"^(full|lora[1-9][0-9]*)$"
Adapter = Annotated[str, Field(pattern=ADAPTER)]
# How start times are distributed, the weight of the loss by time, and where a student's labels come from.
Density = Literal["uniform"] | Inside
Weight = Literal["one", "snr"]
LABELS = rf"^(ode|({'|'.join(METHODS)})(-{ADAPTER[1:-1]})?)$"
Labels = Annotated[str, Field(pattern=LABELS)]
# How final latents are moved onto the teacher's: not at all, its mean, the least-squares slope, its variance, its mean and covariance.
SCALINGS = ("raw", "mean", "slope", "variance", "affine")
if TYPE_CHECKING:
    Scaling = str
else:
    Scaling = Literal[SCALINGS]
ONE_SOLVER = " or ".join(", ".join(SOLVERS).rsplit(", ", 1))


class Block(BaseModel):
    """A block of settings: unknown keys are errors, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    @model_validator(mode="before")
    @classmethod
    def _as_yaml_means(cls, data: Any) -> Any:
        """No booleans in the place of numbers, and numbers with an exponent as numbers."""
        if not isinstance(data, dict):
            return data
        taken = {}
        for key, value in data.items():
            kind = cls.model_fields[key].annotation if key in cls.model_fields else bool
            # Blocks within see to theirs.
            as_is = kind in (str, str | None) or (isinstance(value, dict) and key != "methods")
            taken[key] = value if as_is else _numbers(value)
            truths = [one for one in (value if isinstance(value, list | tuple) else [value]) if isinstance(one, bool)]
            require(
                not truths or bool in (kind, *get_args(kind)) or (value is False and "no" in get_args(kind)),
                f'{key} is {str(*truths[:1]).lower()}, expected a number or text (text in quotes: "no" and "on" are truth values to YAML)',
            )
        return taken


def newer(default: Any, **how: Any) -> Any:
    """A key that is left out of what is written where it has its default: what was made before the key existed stays as it is."""
    return Field(default, exclude_if=functools.partial(operator.eq, default), **how)


B = TypeVar("B", bound=Block)


def _block(kind: Kind) -> type[Block]:
    """The block of a kind's SETTINGS, of which each keeps the type of its default and the kind's RANGES."""

    def keep(self: Any) -> Any:
        numbers = {k: v for k, v in self.model_dump().items() if isinstance(v, int | float)}
        wrong = broken(conditions(kind.ranges), numbers)
        require(wrong is None, str(wrong))
        return self

    types = {int: Annotated[int, Field(strict=True)], float: Annotated[float, Field(allow_inf_nan=False)]}
    made: dict[str, Any] = {
        "__doc__": f"{kind.about[0].upper()}{kind.about[1:]}.",
        "__validators__": {"keep": model_validator(mode="after")(keep)},
    }
    for key, (default, text) in kind.settings.items():
        one = str | None if default is None else types.get(type(default), type(default))
        made[key] = (one, Field(default, description=text))
    return create_model("".join(part.capitalize() for part in kind.name.split("_")), __base__=Block, **made)


def with_blocks(model: type[B], kinds: Iterable[Kind]) -> type[B]:
    """A model with a block, of their SETTINGS, for each of the kinds that has none in its class."""
    made: dict[str, Any] = {}
    for kind in kinds:
        if kind.name not in model.model_fields:
            default = _block(kind)()
            made[kind.name] = (type(default), newer(default))
    return create_model(model.__name__, __base__=model, __doc__=model.__doc__, **made) if made else model


def describe(error: ValidationError, where: str) -> str:
    """One line for a validation error: where, key, what is wrong, what would be right."""
    problems = error.errors(include_url=False)
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "unknown key; see config.yaml and docs/configuration.md for the keys there are"
    elif first["type"] == "string_type" and isinstance(first["input"], date | int | float):
        what = "date" if isinstance(first["input"], date) else "number"
        message = f"is {first['input']}, a {what} to YAML; put it in quotes where it is meant as text"
    elif first["type"] not in ("value_error", "missing"):
        shown = (
            str(first["input"])
            if isinstance(first["input"], dict)
            else json.dumps(first["input"], default=str, ensure_ascii=False)
        )
        message = f"is {shown[:80]}: {message[0].lower()}{message[1:]}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{where}: {key + ': ' if key else ''}{message}{more}"
