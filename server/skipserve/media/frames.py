"""Which frames of a video are shown: so many, as far from each other as can be."""

from skipserve.errors import UnusableImageError

# Each frame costs a little, however small it is.
_MAX_FRAMES = 1000


def check_frames(count: int, wanted: int, param: str) -> None:
    """Make sure that a video has enough frames to show, and not too many to decode.

    Raises:
        UnusableImageError: it has not.
    """
    if not wanted <= count <= _MAX_FRAMES:
        raise UnusableImageError(
            f"the video has {count} frame{'s' * (count != 1)}; it must have {wanted} to "
            f"{_MAX_FRAMES}",
            param,
        )


def pick_frames(count: int, wanted: int) -> tuple[int, ...]:
    """Return the numbers of the frames that are shown, ascending; the first and the last are.

    Args:
        count: frames that there are, at least `wanted`.
        wanted: frames to show, two or more.
    """
    return tuple(round(index * (count - 1) / (wanted - 1)) for index in range(wanted))
