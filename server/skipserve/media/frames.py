"""Which frames of a video are shown: so many, as far from each other as can be."""


def pick_frames(count: int, wanted: int) -> tuple[int, ...]:
    """Return the numbers of the frames that are shown, ascending; the first and the last are.

    Args:
        count: frames that there are, at least `wanted`.
        wanted: frames to show, two or more.
    """
    return tuple(round(index * (count - 1) / (wanted - 1)) for index in range(wanted))
