"""Why a process that decoded a picture is gone."""

from enum import StrEnum


class Kill(StrEnum):
    """Why a process that decoded a picture is gone."""

    CPU_TIME = "cpu_time"
    GIVEN_UP = "given_up"
    CRASHED = "crashed"
