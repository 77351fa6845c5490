"""Reference of the configuration, made from its models: JSON schema, Markdown page, commented YAML of the defaults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from directcm.config import Config, StudentAxes, schema


def _plain(value: Any) -> Any:
    if isinstance(value, StudentAxes):
        return {"method": list(value.method), **value.model_dump(mode="json", exclude_defaults=True)}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value


def _flow(value: Any) -> str:
    """A value in YAML's flow style; plain words are not quoted."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(v) for v in value) + "]"
    if isinstance(value, float) and 0 < abs(value) < 1e-3:
        # All its digits, with a point, for without one YAML takes it for text.
        _, digits, _ = (exact := Decimal(repr(value)).normalize()).as_tuple()
        rest = "".join(map(str, digits[1:])) or "0"
        return f"{'-' if value < 0 else ''}{digits[0]}.{rest}e{exact.adjusted()}"
    # A bare "no" is a boolean to YAML 1.1.
    if isinstance(value, str) and value.isidentifier() and value not in ("no", "yes", "on", "off"):
        return value
    return json.dumps(value)


def _yaml(block: BaseModel, indent: int) -> Iterator[str]:
    pad = "  " * indent
    for name, info in type(block).model_fields.items():
        value = getattr(block, name)
        if isinstance(value, BaseModel):
            if indent == 0:
                yield ""
            yield f"{pad}{name}:  # {(type(value).__doc__ or '').strip().splitlines()[0].rstrip('.')}"
            yield from _yaml(value, indent + 1)
        elif name == "students":
            yield ""
            yield f"{pad}{name}:  # {(StudentAxes.__doc__ or '').strip().splitlines()[0].rstrip('.')}"
            yield from (f"{pad}  - {_flow(_plain(axes))}" for axes in value)
        else:
            if indent == 0 and name in ("metrics", "search"):
                yield ""
            note = f"  # {info.description}" if info.description else ""
            yield f"{pad}{name}: {_flow(_plain(value))}{note}"


def commented_yaml(config: Config) -> str:
    """A configuration as YAML with each key's description as a comment."""
    return "\n".join(_yaml(config, 0)) + "\n"


def _kind(annotation: Any) -> str:
    """A type as the page has it, without the bounds of its values."""
    name = getattr(annotation, "__name__", "")
    text = str(annotation) if name in ("", "Literal", "Optional", "Union", "list", "tuple") else name
    text = text.replace("typing.", "").replace("Annotated", "").replace("NoneType", "none")
    bounded = any(word in text for word in ("FieldInfo", "Ge(", "Gt("))
    return text.partition("[")[0] if bounded else text


def _rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    for name, info in model.model_fields.items():
        annotation = info.annotation
        key = f"{prefix}{name}"
        inner = [
            a
            for a in (annotation, *getattr(annotation, "__args__", ()))
            if isinstance(a, type) and issubclass(a, BaseModel)
        ]
        if inner and inner[0] is StudentAxes:
            yield key, "list", "see below", (StudentAxes.__doc__ or "").splitlines()[0]
            yield from _rows(StudentAxes, f"{key}[].")
        elif inner:
            yield from _rows(inner[0], f"{key}.")
        else:
            default = info.get_default(call_default_factory=True)
            yield key, _kind(annotation), _flow(_plain(default)), info.description or ""


def markdown() -> str:
    """docs/configuration.md: every key with its type, default and meaning."""
    lines = [
        "# Configuration",
        "",
        "`config.yaml` is the embedded default; `--configfile OVERLAY.yaml` lays another file over it, key by key.",
        "This page is made from the models in `src/directcm/config/` by `make docs`; a test fails when they drift.",
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    ]
    for key, kind, default, text in _rows(Config, ""):
        cells = (c.replace("|", "\\|") for c in (f"`{key}`", kind, f"`{default}`", text))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def render(suffix: str) -> str:
    """The reference for a file's suffix: .json the schema, .md the page, .yaml the defaults."""
    if suffix == ".md":
        return markdown()
    if suffix in (".yaml", ".yml"):
        return commented_yaml(Config())
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
