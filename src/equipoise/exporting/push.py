"""Sends an export to the hub: a private repository by default, with the user's own token."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from equipoise.exporting.failure import ExportFailed
from equipoise.records import InputError

_UNREACHED: type[BaseException] = HfHubHTTPError.__bases__[0]
"""What the hub's client raises where a server cannot be reached; whose class it is depends on the client's version."""


@dataclass(frozen=True)
class Hub:
    """A repository of the hub that the user may write to, as far as the hub says so beforehand."""

    api: Any
    repo: str

    @classmethod
    def open(cls, repo: str) -> Hub:
        """Ask the hub who the token belongs to, before anything expensive.

        Raises InputError where the name is none, the machine is told to stay offline, there is no token, or the hub
        does not answer or refuses the token.
        """
        try:
            validate_repo_id(repo)
        except HFValidationError as error:
            raise InputError(f"--push {repo}: {str(error).splitlines()[0]}") from None
        if constants.HF_HUB_OFFLINE:
            raise InputError(f"--push {repo}: HF_HUB_OFFLINE is set; unset it, or leave --push out and upload later")
        token = huggingface_hub.get_token()
        if not token:
            raise InputError(f"--push {repo}: no token for the hub; set HF_TOKEN or log in with: hf auth login")
        api = huggingface_hub.HfApi(token=token)
        try:
            api.whoami()
        except (OSError, _UNREACHED) as error:
            raise InputError(f"--push {repo}: the hub does not answer, or refuses the token: {_line(error)}") from None
        return cls(api, repo)

    def upload(self, folder: Path, message: str) -> str:
        """Create the repository (private) where it is not there, upload `folder`, and return its address.

        Raises ExportFailed where the hub refuses; what was exported stays in `folder`.
        """
        try:
            url = self.api.create_repo(self.repo, private=True, exist_ok=True)
            self.api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message=message)
        except (OSError, _UNREACHED) as error:
            raise ExportFailed(
                f"{folder} is written, but {self.repo} did not get it: {_line(error)}; send it later with: "
                f"hf upload {self.repo} {folder}"
            ) from None
        return str(url)


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
