"""Tell addresses of remote storage from paths, and keep credentials out of records."""

from urllib.parse import urlsplit

from common.errors import SpecError


def is_uri(place: object) -> bool:
    """Return whether a place is a URI such as s3://bucket/prefix, and not a path."""
    return "://" in str(place)


def require_no_credentials(address: str, *, where: str) -> None:
    """Refuse a URI with credentials, because it is written to the run's records.

    Raises:
        SpecError: the URI has a user, a password or a key; the message does not repeat them.
    """
    parts = urlsplit(address)
    query = parts.query.lower()
    if not is_uri(address) or not (
        parts.username or parts.password or "access_key" in query or "secret" in query
    ):
        return
    raise SpecError(
        f"{where} {parts.scheme}://…{parts.path} has credentials in it, which would be written "
        "to the run's records; instead, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY on every "
        "node, or use an instance profile"
    )
