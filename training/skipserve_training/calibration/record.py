"""A calibration as JSON: what the command prints, and what its report holds."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from skipserve_client.evaluate.retention import Interval
from skipserve_training.calibration.calibrating import Calibration, Duel, Found, Outcome, Rival
from skipserve_training.calibration.confirming import Confirmed
from skipserve_training.calibration.search import Point


def policies_json(calibration: Calibration) -> dict[str, Any]:
    """Return what was found, by name, and on what."""
    return {
        **calibration.conditions,
        "policies": {name: found_json(found) for name, found in calibration.found.items()},
        "full": confirmed_json(calibration.full),
        "catalog": [duel_json(duel) for duel in calibration.duels],
    }


def record_json(calibration: Calibration) -> dict[str, Any]:
    """Return all that was found."""
    anatomy = calibration.anatomy
    return {
        **policies_json(calibration),
        "anatomy": None if anatomy is None else asdict(anatomy),
        "layers": [asdict(layer) for layer in calibration.layers],
        "frontier": [point_json(point) for point in calibration.frontier],
        "rivals": [rival_json(rival) for rival in calibration.rivals],
    }


def found_json(found: Found) -> dict[str, Any]:
    """Return a table and what it reached."""
    return {
        **confirmed_json(found.confirmed),
        "seconds_ratio": found.time,
        "ranking": point_json(found.point),
    }


def confirmed_json(found: Confirmed) -> dict[str, Any]:
    """Return what a policy reached on unseen questions."""
    return {
        "digest": found.policy.digest,
        "flops_ratio": found.cost,
        "accuracy": found.accuracy.value,
        "low": found.accuracy.low,
        "high": found.accuracy.high,
        "full": found.full,
        "n": len(found.right),
        "retention": None if found.retention is None else _interval(found.retention),
        "agreement": _interval(found.agreement),
    }


def duel_json(duel: Duel) -> dict[str, Any]:
    """Return a policy of the catalog beside the table that costs no more."""
    return {
        "name": duel.rival.policy.name,
        "theirs": confirmed_json(duel.theirs),
        "ours": confirmed_json(duel.ours),
        "outcome": duel.outcome.value,
        "p_value": duel.p_value,
    }


def rival_json(rival: Rival) -> dict[str, Any]:
    """Return a policy of the catalog and the best table that costs no more, as they rank."""
    return {
        "name": rival.policy.name,
        "cost": rival.cost,
        "damage": rival.damage,
        "ours": None if rival.ours is None else point_json(rival.ours),
        "is_beaten": rival.is_beaten,
    }


def point_json(point: Point) -> dict[str, Any]:
    """Return a table that was measured."""
    return {"cost": point.cost, "damage": point.damage, "rules": point.table.rules}


def _interval(interval: Interval) -> Mapping[str, float]:
    return asdict(interval)


def notes_of(calibration: Calibration, budgets: Sequence[float]) -> list[str]:
    """Return what a reader must know: budgets that nothing keeps, rivals that were not beaten."""
    lost = [duel for duel in calibration.duels if duel.outcome is Outcome.NOT_BEATEN]
    cheapest = min(point.cost for point in calibration.frontier)
    missing = [budget for budget in budgets if budget < cheapest]
    return [
        *(
            f"nothing was found that costs {budget:.0%} or less; the cheapest costs {cheapest:.0%}"
            for budget in missing
        ),
        *(
            f"{duel.rival.policy.name} was not beaten: {duel.theirs.accuracy} of its answers are "
            f"right, and {duel.ours.accuracy} of those of what was found at its cost"
            for duel in lost
        ),
    ]
