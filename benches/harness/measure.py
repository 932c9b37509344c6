"""What a cell measures, and the verdict: ratios to the relay, the relay against itself, the bar.
A measure may name another mode than the relay to be compared with.

A bar on a ratio is met when the median of the paired ratios keeps it with the spread of the relay
against itself as allowance, and never when it is missed by more than a tenth.
"""

import dataclasses
import statistics

CLAIM_ROUNDS = 5
NEVER = 0.10


@dataclasses.dataclass(frozen=True)
class Measure:
    """One figure of the samples. `bar` binds its ratio to `base`, `limit` the figure itself: at most, or
    at least where `higher_is_better`. `base`: the mode that ratios are to."""

    key: str
    unit: str
    bar: float | None = None
    higher_is_better: bool = False
    limit: float | None = None
    mode: str = "firebreak"
    base: str = "relay"


def judge(measure, samples, mode):
    """Judges one mode of a cell. `samples`: mode name -> list of samples, one per round.
    The bar is told for every mode and binds the measure's own."""
    own = column(samples, mode, measure.key)
    base = column(samples, measure.base, measure.key)
    relay = column(samples, "relay", measure.key)
    again = column(samples, "relay2", measure.key)
    ratios = paired(own, base)
    noise = paired(again, relay)
    verdict = {
        "measure": measure.key,
        "unit": measure.unit,
        "mode": mode,
        "base": measure.base,
        "rounds": len(own),
        "median": {name: middle(column(samples, name, measure.key)) for name in samples},
        "ratio": middle(ratios),
        "ratio_min": min(ratios, default=None),
        "ratio_max": max(ratios, default=None),
        "relay_again": middle(noise),
        "spread": abs(middle(noise) - 1) if noise else None,
        "bar": measure.bar,
        "limit": measure.limit,
        "higher_is_better": measure.higher_is_better,
        "met": None,
    }
    if not own or mode != measure.mode:
        return verdict
    met = []
    if measure.limit is not None:
        own = middle(own)
        met.append(own >= measure.limit if measure.higher_is_better else own <= measure.limit)
    if measure.bar is not None and ratios:
        met.append(keeps(measure, verdict["ratio"], verdict["spread"] or 0.0))
    verdict["met"] = all(met) if met else None
    return verdict


def keeps(measure, ratio, spread):
    allowance = min(spread, NEVER)
    if measure.higher_is_better:
        return ratio >= measure.bar - allowance
    return ratio <= measure.bar + allowance


def column(samples, mode, key):
    return [sample[key] for sample in samples.get(mode, []) if sample.get(key) is not None]


def paired(own, base):
    if len(own) != len(base):
        return []
    return [one / other for one, other in zip(own, base) if other]


def middle(values):
    return statistics.median(values) if values else None
