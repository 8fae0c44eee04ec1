"""The arithmetic of a drain, once more and from its definition: what the chart calculates and refuses is compared with it.

README: of --grace the --margin is kept back; of what is left a quarter, at least 500 ms, belongs to the workers, the rest may be
--lb-wait; a --drain-timeout comes after that. The kubelet counts whole seconds.
"""

import itertools
import re
from fractions import Fraction

from engine import Refused

UNITS = {"ms": Fraction(1, 1000), "s": Fraction(1), "m": Fraction(60), "h": Fraction(3600)}


def seconds(text):
    if text in ("0", 0):
        return Fraction(0)
    parts = re.findall(r"([0-9.]+)(ms|s|m|h)", text)
    assert parts and "".join(number + unit for number, unit in parts) == text, text
    return sum(Fraction(number) * UNITS[unit] for number, unit in parts)


def fits(grace, margin, wait, timeout):
    budget = grace - margin
    if budget <= 0:
        return False
    if wait > max(Fraction(0), budget - max(budget / 4, Fraction(1, 2))):
        return False
    return timeout is None or wait + timeout <= budget


def least_grace(margin, wait, timeout):
    """Whole seconds; by trying, so as to owe nothing to anybody's formula."""
    return next(grace for grace in itertools.count(1) if fits(Fraction(grace), margin, wait, timeout))


def env_faults(rendering):
    """What a rendering tells drainit, beside what it tells the kubelet."""
    env, grace = rendering.env, rendering.pod["terminationGracePeriodSeconds"]
    low, high = env["DRAINIT_LB_WAIT"].split("..")
    timeout = env.get("DRAINIT_DRAIN_TIMEOUT")
    found = []
    if env["DRAINIT_GRACE"] != f"{grace}s":
        found.append(f"DRAINIT_GRACE is {env['DRAINIT_GRACE']}, and terminationGracePeriodSeconds {grace}")
    if seconds(low) > seconds(high):
        found.append(f"DRAINIT_LB_WAIT is {low}..{high}")
    if not fits(Fraction(grace), seconds(env["DRAINIT_MARGIN"]), seconds(high), timeout and seconds(timeout)):
        found.append(f"of {grace} s do not fit {env}")
    return found


GRACES = [None, 1, 5, 10, 30, 60, 300]
MARGINS = ["0", "250ms", "5s"]
# 500 ms of 1 s, and a quarter of 30 s less 5 s: as much as fits, and a millisecond more.
WAITS = ["0", "500ms", "501ms", "18750ms", "18.751s", "1m30s"]
TIMEOUTS = [None, "1s", "14s", "2m"]


def sweep(chart):
    """Every combination of these, and the faults: what is refused and should not be, or the other way round; a grace period
    that is not the least; advice that does not help."""
    found, done = [], 0
    for grace, margin, wait, timeout in itertools.product(GRACES, MARGINS, WAITS, TIMEOUTS):
        done += 1
        drain = {"margin": margin, "lbWait": {"min": "0", "max": wait}, "timeout": timeout or ""}
        if grace is not None:
            drain["terminationGracePeriodSeconds"] = grace
        exact = seconds(margin), seconds(wait), timeout and seconds(timeout)
        least = least_grace(*exact)
        if grace is None:
            expected = least if timeout else max(30, least)
        else:
            expected = grace if fits(Fraction(grace), *exact) else None
        try:
            rendering = chart.render({"drainit": {"drain": drain}})
        except Refused as refused:
            if expected is not None:
                found.append(f"{drain} is refused: {refused}")
            found += advice_faults(chart, drain, str(refused), least)
            continue
        got = rendering.pod["terminationGracePeriodSeconds"]
        if got != expected:
            found.append(f"{drain} gives {got}, not {expected}")
        found += env_faults(rendering)
    return found, done


def advice_faults(chart, drain, sentence, least):
    """`takes at most X, or terminationGracePeriodSeconds from N on`: N is the least there is, and either alone will do."""
    advised = re.search(r"drainit\.drain\.(\S+) is .*; takes (at most|less than) (\S+), or \S+ from (\d+) on", sentence)
    if not advised:
        return [f"{drain}: no advice in {sentence}"]
    name, kind, most, grace = advised.groups()
    if int(grace) != least:
        return [f"{drain}: advises {grace} s, and {least} s are the least"]
    found = []
    tries = [{**drain, "terminationGracePeriodSeconds": least}]
    # With less of one of them another may still be too much; a time-out is what is looked at last.
    if name == "timeout":
        tries.append({**drain, "timeout": most})
    elif name == "lbWait.max" and not drain["timeout"]:
        tries.append({**drain, "lbWait": {"min": "0", "max": most}})
    for each in tries:
        try:
            chart.render({"drainit": {"drain": each}})
        except Refused as refused:
            found.append(f"{drain}: advised {each}, which is refused: {refused}")
    return found
