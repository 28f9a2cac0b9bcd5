"""Words and numbers for the page: escaping, and as many digits as a number deserves."""

from __future__ import annotations

import html
import math
import re

THIN = "\u202f"  # groups digits, and never breaks the line
NO_BREAK = "\u00a0"
MINUS = "\u2212"
MISSING = "–"
RAISED = "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"
SUPERSCRIPT = str.maketrans("-0123456789", RAISED)
PLAIN = str.maketrans(RAISED, f"{MINUS}0123456789")


def escape(text: object) -> str:
    """Any text from data, safe between tags and in quoted attributes."""
    return html.escape(str(text), quote=True)


def show(text: str) -> str:
    """A number from this module, escaped; its exponent as `<sup>`, since fonts draw raised digits unevenly.

    >>> show("4.5 × 10⁻⁷")
    '4.5 × 10<sup>−7</sup>'
    """
    return re.sub(f"[{RAISED}]+", lambda found: f"<sup>{found[0].translate(PLAIN)}</sup>", escape(text))


def fixed(value: float, decimals: int) -> str:
    """`value` with `decimals` digits after the point (negative: rounded before it), digits grouped from 10,000.

    >>> fixed(-53123.4, -2).replace(THIN, " ")
    '−53 100'
    """
    rounded = round(value, decimals)
    text = f"{abs(rounded):,.{max(decimals, 0)}f}"
    text = text.replace(",", THIN if abs(rounded) >= 1e4 else "")
    return f"{MINUS}{text}" if rounded < 0 else text


def number(value: float, digits: int = 3) -> str:
    """`value` to a number of significant digits; powers of ten outside 0.001 to a million.

    >>> number(0.04567), number(1234.5), number(4.5e-7), number(float("nan"))
    ('0.0457', '1234', '4.5 × 10⁻⁷', '–')
    """
    value = float(value)
    if not math.isfinite(value):
        return MISSING if math.isnan(value) else ("∞" if value > 0 else f"{MINUS}∞")
    if value == 0:
        return "0"
    exponent = _exponent(value, digits)
    if -4 < exponent < 6:
        return fixed(value, min(digits - 1 - exponent, 12)) if exponent < digits else fixed(value, 0)
    mantissa = f"{abs(value):.{digits - 1}e}".split("e")[0]
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{MINUS if value < 0 else ''}{mantissa} × 10{str(exponent).translate(SUPERSCRIPT)}"


def plus_minus(mean: float, sd: float) -> str:
    """`mean ± sd`, the standard deviation to two digits and the mean to the same place.

    >>> plus_minus(0.18734, 0.01234), plus_minus(412.62, 23.4), plus_minus(3.21e-7, 4.4e-8)
    ('0.187 ± 0.012', '413 ± 23', '(3.21 ± 0.44) × 10⁻⁷')
    """
    mean, sd = float(mean), float(sd)
    if not math.isfinite(mean):
        return MISSING
    if not math.isfinite(sd) or sd <= 0:
        return number(mean, 4)
    largest = _exponent(max(abs(mean), sd), 2)
    if -4 < largest < 6:
        decimals = 1 - _exponent(sd, 2)
        return f"{fixed(mean, decimals)} ± {fixed(sd, decimals)}"
    mean, sd = mean / 10**largest, sd / 10**largest
    decimals = 1 - _exponent(sd, 2)
    if decimals > 8:
        return number(mean * 10**largest, 4)
    return f"({fixed(mean, decimals)} ± {fixed(sd, decimals)}) × 10{str(largest).translate(SUPERSCRIPT)}"


def percent(share: float) -> str:
    """A probability or share as per cent, two digits; the ends are not rounded away.

    >>> [percent(p).replace(NO_BREAK, " ") for p in (0.0, 2e-7, 0.00123, 0.0456, 0.6349, 0.9996, 1.0)]
    ['0 %', '2 × 10⁻⁷', '0.12 %', '4.6 %', '63 %', '> 99.9 %', '100 %']
    """
    value = 100 * float(share)
    if not math.isfinite(value):
        return MISSING
    if 0 < value < 0.001:
        return number(share, 2)
    if 99.9 < value < 100:
        return f">{NO_BREAK}99.9{NO_BREAK}%"
    if 99 < value < 99.95:
        return f"{value:.1f}{NO_BREAK}%"
    return f"{number(value, 2) if value < 100 else '100'}{NO_BREAK}%"


def power_of_ten(logarithm: float) -> str:
    """exp(logarithm) to the nearest power of ten, for what a float cannot hold.

    >>> power_of_ten(-921.0)
    '10⁻⁴⁰⁰'
    """
    return f"10{str(round(logarithm / math.log(10))).translate(SUPERSCRIPT)}"


def factor(posterior: float, prior: float) -> str | None:
    """How many times more probable, two digits; None where the prior has none or nothing is known."""
    if not (math.isfinite(posterior) and math.isfinite(prior)) or prior <= 0:
        return None
    ratio = posterior / prior
    return (
        number(ratio, 2) if ratio < 100 else fixed(ratio, 1 - _exponent(ratio, 2)) if ratio < 1e6 else number(ratio, 2)
    )


def quantity(value: str, unit: str) -> str:
    """A formatted number and its unit, escaped; a unit of one is left out."""
    return show(value) if unit in ("", "1") else f"{show(value)}{NO_BREAK}{escape(unit.replace(' ', NO_BREAK))}"


def count(value: int, noun: str, plural: str | None = None) -> str:
    """A whole number and its noun.

    >>> count(1, "molecule"), count(412, "molecule")
    ('1 molecule', '412 molecules')
    """
    return f"{fixed(value, 0)} {noun if value == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """A time in the unit a person would use.

    >>> [duration(s).replace(NO_BREAK, " ") for s in (0.0123, 4.56, 95.0, 7300.0)]
    ['0.01 s', '4.6 s', '1 min 35 s', '2 h 01 min']
    """
    seconds = float(seconds)
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 60:
        return f"{seconds:.2f}{NO_BREAK}s" if seconds < 1 else f"{seconds:.1f}{NO_BREAK}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NO_BREAK}min {rest}{NO_BREAK}s"
    return f"{minutes // 60}{NO_BREAK}h {minutes % 60:02d}{NO_BREAK}min"


def _exponent(value: float, digits: int) -> int:
    """Power of ten of the first significant digit once `value` is rounded to `digits` of them."""
    return int(f"{abs(value):.{digits - 1}e}".split("e")[1])
