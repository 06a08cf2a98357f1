"""Reading YAML that people write: one line for what is wrong with it, and plain values."""

from __future__ import annotations

import io
import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from equipoise.records import InputError


def parse_yaml(text: str, where: str, *, error: type[InputError] = InputError) -> Any:
    """The document with the lines of its keys (ruamel's round-trip values); raises `error` with file and line."""
    try:
        return YAML(typ="rt", pure=True).load(io.StringIO(text))
    except YAMLError as wrong:
        mark = getattr(wrong, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(wrong, "problem", None) or str(wrong).splitlines()[0]
        raise error(f"{where}{line}: not valid YAML: {problem}") from None
    except TypeError:  # ruamel on `{{a: 1}}`: a mapping cannot be the key of another
        raise error(f"{where}: not valid YAML: a key is itself a mapping or a list") from None


def plain(value: Any) -> Any:
    """ruamel's round-trip values as plain Python; `5e-6` without a dot is a number here."""
    if isinstance(value, dict):
        return {str(key): plain(child) for key, child in value.items()}
    if isinstance(value, list):
        return [plain(child) for child in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    text = str(value)
    return float(text) if re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+", text) else text
