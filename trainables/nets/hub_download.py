"""Download a network's weights from timm's hub: a program of its own, so that it can be ended.

Usage: hub_download.py REPOSITORY CACHE FILE...; it downloads the first FILE that the repository
has and prints its path. An error is printed as its type's name. It imports nothing of ours.
"""

import sys

import huggingface_hub
from huggingface_hub.errors import LocalEntryNotFoundError

ANSWER_SECONDS = 5.0
"""Time allowed for the hub's answer about a repository."""


def main(repository: str, cache: str, files: list[str]) -> str:
    """Return the path of the downloaded file; empty if the repository has none of `files`."""
    about = huggingface_hub.HfApi().model_info(repository, timeout=ANSWER_SECONDS)
    names = [file.rfilename for file in about.siblings or ()]
    for file in files:
        if file in names:
            return huggingface_hub.hf_hub_download(repository, file, cache_dir=cache)
    return ""


if __name__ == "__main__":
    try:
        print(main(sys.argv[1], sys.argv[2], sys.argv[3:]))  # noqa: T201
    except Exception as error:
        # The client's errors without a connection are those of its HTTP library, which changes.
        hidden = isinstance(error, LocalEntryNotFoundError) and error.__cause__
        sys.exit(type(hidden or error).__name__)
