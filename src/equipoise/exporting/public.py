"""What may leave this machine: hub ids and file names, but no home folder, user name or token."""

from __future__ import annotations

import getpass
import re
from pathlib import Path

from equipoise.report.text import private
from equipoise.run_folder import write_text

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

_FILES = (".json", ".jsonl", ".parquet", ".csv", ".gz", ".yaml")


def hub_id(id: str | None) -> str | None:
    """Return `id` where it is one of the hub; None for a local folder or file, for `pocket` and for nothing."""
    if not id or id.endswith(_FILES) or not _HUB_ID.fullmatch(id):
        return None
    return None if Path(id).exists() else id


def base_name(id: str) -> str:
    """A hub id as it is; of a local folder or file the last part of its path."""
    return hub_id(id) or Path(id).name


def public(text: str) -> str:
    """Return `text` without home folders, tokens, and folders that are named like the user."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return private(text)
    return re.sub(rf"(?<=/){re.escape(user)}(?=/)", "~", private(text))


def make_public(path: Path) -> None:
    """Rewrite a text file where `public` changes it; a file that is not there stays absent."""
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        if public(text) != text:
            write_text(path, public(text))
