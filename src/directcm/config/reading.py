"""Configurations from files, validated; a mistake is one line that names file and key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from directcm.config.base import ADAPTER, describe
from directcm.config.whole import Config
from directcm.errors import UserError

B = TypeVar("B", bound=BaseModel)


def local(path: str) -> Path:
    """A path of the configuration: ~ is the user's home; variables stay as they stand."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        # Of a user that this machine does not know.
        return Path(path)


def parse(model: type[B], settings: Any, where: str = "configuration") -> B:
    """Validate settings (a mapping) against a model; the first problem becomes a UserError of one line."""
    if not isinstance(settings, Mapping):
        raise UserError(f"{where}: expected a mapping of keys to values, found {type(settings).__name__}")
    try:
        return model.model_validate(dict(settings))
    except ValidationError as error:
        raise UserError(describe(error, where)) from None


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Lay an overlay over a base: mappings merge key by key, anything else is replaced (as Snakemake does)."""
    out = dict(base)
    for key, value in overlay.items():
        if isinstance(value, Mapping) and isinstance(out.get(key), Mapping):
            out[key] = merge(out[key], value)
        else:
            out[key] = value
    return out


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file's mapping; what is missing or malformed, or names a key twice, is a UserError with file and line.

    Numbers and dates are read as PyYAML's safe loader has them, which is what Snakemake uses.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """PyYAML's own takes the last of two equal keys without a word."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            first: dict[Any, int] = {}
            for key_node, _ in node.value:
                # Merged keys ("<<") are meant to be overridden.
                if key_node.tag == "tag:yaml.org,2002:merge":
                    continue
                key = self.construct_object(key_node, deep=True)
                line = key_node.start_mark.line + 1
                if isinstance(key, str | int | float) and key in first:
                    raise UserError(
                        f"{path}, line {line}: {key} is there twice, first in line {first[key]}; keep one of them"
                    )
                with suppress(TypeError):
                    first[key] = line
            return super().construct_mapping(node, deep)

        def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
            """YAML 1.1 reads 010 as eight and 1:30 as ninety, which nobody means here."""
            if re.fullmatch(r"[-+]?0[0-7]+|.*:.*", node.value):
                raise UserError(
                    f"{path}, line {node.start_mark.line + 1}: {node.value} is {super().construct_yaml_int(node)} to YAML; "
                    "write the number without a leading 0 or a colon, or put text in quotes"
                )
            return int(super().construct_yaml_int(node))

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise UserError(f"{path}: {key} is there twice; keep one of them")
        return dict(pairs)

    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        try:
            content = Loader(text).get_single_data()
        except yaml.YAMLError:
            try:
                # JSON is YAML but for tabs, with which it may be indented; Snakemake reads it.
                content = json.loads(text, object_pairs_hook=unique)
            except json.JSONDecodeError:
                content = None
            if content is None:
                raise
        json.dumps(content, default=str, skipkeys=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such configuration file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = str(getattr(error, "problem", None) or error)
        tab = "; indent with spaces, not with tabs" if "\\t" in problem else ""
        raise UserError(f"{path}{line}: not valid YAML; {problem}{tab}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not in UTF-8 ({error}); save it in that encoding") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: a value cannot be read ({error}); put text in quotes") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: expected keys and values at its top, found a {type(content).__name__}; write `key: value` lines"
        )
    return content


def check_yaml(*paths: str | Path) -> None:
    """What Snakemake's own reading of configuration files would miss, or would say without file and line: a UserError."""
    for path in paths:
        if not read_yaml(path):
            raise UserError(
                f"{path}: has no keys; give it those that are to be others than config.yaml's, or leave it out"
            )


def load_config(*paths: str | Path) -> Config:
    """Read a configuration and its overlays, in order, and validate the whole."""
    settings: dict[str, Any] = {}
    for path in paths:
        settings = merge(settings, read_yaml(path))
    return parse(Config, settings, " + ".join(str(p) for p in paths) or "configuration")


def settings_argument(model: type[B], text: str) -> B:
    """A verb's --settings: inline JSON (as the workflow passes it) or a JSON or YAML file."""
    where = "--settings"
    if text.lstrip().startswith("{"):
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"--settings: not valid JSON ({error})") from None
    else:
        content, where = read_yaml(text), text
    return parse(model, content, where)


def schema() -> dict[str, Any]:
    """The JSON schema of a whole configuration (workflow/schemas/config.schema.json)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def lora_rank(adapter: str) -> int | None:
    """The rank of a "loraR" adapter, None for "full"."""
    if not re.match(ADAPTER, adapter):
        raise UserError(f"adapter: {adapter!r} is neither full nor loraR with a rank R ≥ 1")
    return None if adapter == "full" else int(adapter[4:])
