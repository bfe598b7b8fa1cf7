"""Addresses and keys of services."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from huggingface_hub import get_token


def check_address(base_url: str) -> None:
    """Check that an address is safe to log and show: httpx logs it, and settings hold it.

    Raises:
        ValueError: It is no HTTP address, or holds a name, a password or a query, which may be a key.
    """
    parts = urlsplit(base_url)
    if "@" in parts.netloc or parts.query:
        raise ValueError(
            f"base_url, an address at {parts.hostname}, has a name, a password or a query, which would stand in "
            "settings and logs: put the key into an environment variable, and name that in api_key_variable"
        )
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"base_url must begin with http:// or https://, got {base_url!r:.80}")


def service_key(variable: str | None, base_url: str | None) -> str | None:
    """Read the key of a service: from the environment variable, or else, for a provider, the Hub token.

    Raises:
        ValueError: The variable is not set, or holds what is no key.
    """
    if variable is None:
        return get_token() if base_url is None else None
    key = os.environ.get(variable, "")
    if not key:
        raise ValueError(f"the environment variable {variable} with the key is not set")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(f"the environment variable {variable} holds characters that no key has")
    return key
