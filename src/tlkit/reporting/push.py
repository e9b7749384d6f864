"""Sends a trained classifier to the Hugging Face hub."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tlkit.errors import ExportError
from tlkit.inference.loading import find_model
from tlkit.reporting.card import card
from tlkit.utils.connectivity import hub_url, why_unreachable


def push(model: Path | str, repository: str, *, phase: str | None = None, private: bool = False) -> str:
    """Sends a model folder to a repository of the Hugging Face hub, which is made if it is missing.

    What is sent is the model folder with a card, which `tlkit.load` reads after it was downloaded, and timm
    as ``timm.create_model("hf-hub:…", pretrained=True)`` where it can. The account is the one that
    ``hf auth login`` has stored, or that of the environment variable ``HF_TOKEN``.

    Args:
        model: a run folder, whose card is written, or a model folder, whose README.md is sent if it has one.
        repository: such as "me/cats-and-dogs".
        phase: the phase of a run; its last unless given.
        private: whether a new repository is private.

    Returns:
        The address of what was sent.

    Raises:
        RunFolderError: there is no model that can be sent.
        ExportError: the hub cannot be reached, or refuses it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    folder = find_model(Path(model), phase)
    if not folder.is_dir():
        raise ExportError(f"{folder} is an exported file: push the run or model folder that it comes from")
    if (reason := why_unreachable(hub_url())) is not None:
        raise ExportError(f"{repository}: {hub_url()} cannot be reached: {reason}")
    if not sys.stderr.isatty():
        disable_progress_bars()
    hub = HfApi(endpoint=hub_url())
    with tempfile.TemporaryDirectory() as temporary:
        sent = Path(temporary) / "model"
        shutil.copytree(folder, sent)
        if (Path(model) / "recipe.toml").is_file():
            card(model, phase=phase, out=sent)
        try:
            hub.create_repo(repository, private=private, exist_ok=True)
            commit = hub.upload_folder(
                repo_id=repository, folder_path=sent, commit_message="Send a classifier with tlkit"
            )
        except (HFValidationError, LocalTokenNotFoundError, ValueError) as error:
            raise ExportError(f"{repository}: {error}") from error
        except HfHubHTTPError as error:
            reason = str(error).splitlines()[0]
            raise ExportError(
                f"{repository}: the hub refuses it ({reason}); use an account that may write there, with "
                "`hf auth login` or HF_TOKEN"
            ) from error
    return str(commit.commit_url)
