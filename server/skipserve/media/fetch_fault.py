"""Why an image was not fetched."""

from enum import StrEnum


class FetchFault(StrEnum):
    """What was wrong with an image's URL, or with what its host answered."""

    URL = "url"
    HOST = "host"
    ADDRESS = "address"
    REDIRECTS = "redirects"
    UNREACHABLE = "unreachable"
    STATUS = "status"
    ENCODING = "encoding"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
