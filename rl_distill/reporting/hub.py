"""Publishing an exported folder on the Hugging Face Hub, with Trainer's settings: push_to_hub and hub_model_id.

The token is huggingface_hub's: HF_TOKEN or `hf auth login`. A missing one is reported before training starts.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from ..config import ConfigError, RunConfig


def check_hub(config: RunConfig) -> None:
    """Raises ConfigError if the run will be pushed and nobody is logged in to the hub."""
    if not config.push_to_hub:
        return
    try:
        HfApi().whoami()
    except (LocalTokenNotFoundError, HfHubHTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:150]
        raise ConfigError(
            f"push_to_hub: not logged in to the hub; run `hf auth login` or set HF_TOKEN ({reason})"
        ) from error


def push_to_hub(folder: Path, repo: str, private: bool | None = None) -> str:
    """Uploads the folder as a model repository, made if needed; returns its address."""
    api = HfApi()
    url = api.create_repo(repo, private=private, exist_ok=True)
    api.upload_folder(folder_path=folder, repo_id=url.repo_id, commit_message="Model trained with rl_distill")
    return str(url)


def repo_of(config: RunConfig) -> str:
    """The repository's name: hub_model_id, else the name of the output folder."""
    return config.hub_model_id or Path(config.output_dir).resolve().name
