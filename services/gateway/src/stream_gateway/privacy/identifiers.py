"""What is known how to find in a text: numbers that prove themselves, addresses, words of medicine, keys. Pure.

Each kind has a pattern that finds candidates and, mostly, a rule that a candidate must pass. The patterns are written
so that a search costs a text's length times a constant: a match begins where something else ends, and every repetition
has an upper bound. What looks alike but fails its check digit is not found.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from stream_core.detector_config import Kind


@dataclass(frozen=True, slots=True)
class Search:
    """How one thing is found."""

    words: str
    """For the reason that a client is told."""
    pattern: re.Pattern[str]
    proves: Callable[[re.Match[str]], bool] | None = None
    """Whether a candidate is one; None: each is."""
    needed: int = 1
    """How many different ones must be there."""
    beside: "Search | None" = None
    """What must stand in the same text, too."""
    hints: tuple[str, ...] = ()
    """One of these, in small letters, is in each match: looking for them first is far cheaper. None: not known."""


def is_card_number(match: re.Match[str]) -> bool:
    """Check the issuer's prefix, its lengths, and the check digit (Luhn, ISO/IEC 7812-1)."""
    digits = "".join(c for c in match[0] if c.isdecimal())
    if not any(low <= int(digits[: len(str(low))]) <= high and len(digits) in sizes for low, high, sizes in _ISSUERS):
        return False
    values = [int(c) for c in reversed(digits)]
    doubled = [2 * value - 9 * (value > 4) for value in values[1::2]]  # noqa: PLR2004  (the formula's own number)
    return (sum(doubled) + sum(values[::2])) % 10 == 0


def is_iban(match: re.Match[str]) -> bool:
    """Check the country, which stands before the match, its length and the check digits (ISO 13616, mod 97)."""
    plain = "".join(match.string[match.start() - 2 : match.end()].split()).upper()
    length = _IBAN_LENGTHS.get(plain[:2], 0)
    if not length or len(plain) < length:
        return False
    moved = plain[4:length] + plain[:4]
    return int("".join(str(int(c, 36)) for c in moved)) % 97 == 1


def is_ssn(match: re.Match[str]) -> bool:
    """Leave out the numbers that were printed in advertisements, and became the most used of all."""
    return "".join(c for c in match[0] if c.isdecimal()) not in {"078051120", "219099999"}


_ISSUERS: Final = (
    (4, 4, (13, 16, 19)),
    (51, 55, (16,)),
    (2221, 2720, (16,)),
    (34, 34, (15,)),
    (37, 37, (15,)),
    (6011, 6011, (16, 19)),
    (644, 659, (16, 19)),
    (3528, 3589, (16, 17, 18, 19)),
    (300, 305, (14, 16, 19)),
    (36, 36, (14, 16, 19)),
    (38, 39, (14, 16, 19)),
    (62, 62, (16, 17, 18, 19)),
)
"""First digits, from and to, and numbers of digits."""
_IBAN_LENGTHS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("NO",), 15),
    **dict.fromkeys(("BE",), 16),
    **dict.fromkeys(("DK", "FI", "FO", "GL", "NL"), 18),
    **dict.fromkeys(("MK", "SI"), 19),
    **dict.fromkeys(("AT", "BA", "EE", "KZ", "LT", "LU", "XK"), 20),
    **dict.fromkeys(("CH", "HR", "LI", "LV"), 21),
    **dict.fromkeys(("BG", "BH", "CR", "DE", "GB", "GE", "IE", "ME", "RS", "VA"), 22),
    **dict.fromkeys(("AE", "GI", "IL", "IQ", "TL"), 23),
    **dict.fromkeys(("AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN", "VG"), 24),
    **dict.fromkeys(("LY", "PT", "ST"), 25),
    **dict.fromkeys(("IS", "TR"), 26),
    **dict.fromkeys(("FR", "GR", "IT", "MC", "MR", "SM"), 27),
    **dict.fromkeys(("AL", "AZ", "BY", "CY", "DO", "GT", "HU", "LB", "NI", "PL", "SV"), 28),
    **dict.fromkeys(("BR", "EG", "PS", "QA", "UA"), 29),
    **dict.fromkeys(("JO", "KW", "MU"), 30),
    **dict.fromkeys(("MT", "SC"), 31),
    **dict.fromkeys(("LC",), 32),
    **dict.fromkeys(("RU",), 33),
}
_MEDICINE: Final = Search(
    "words of medicine",
    re.compile(
        r"(?i)(?<!\w)(?:allerg(?:y|ies|ic)|amputat(?:ed|ion)|anamnes(?:is|e)|antidepressants?|biops(?:y|ie)|blutdruck|"
        r"cancer|carcinoma|chemotherap(?:y|ie)|comorbidit(?:y|ies)|depression|diabet(?:es|ic|iker)|diagnos(?:is|ed|e)|"
        r"dialysis|epilep(?:sy|sie|tic)|hepatitis|hiv|hospitali[sz]ed|hypertension|insulin|krankenakte|krebs|"
        r"medical (?:record|history)|metastas(?:is|es|en)|miscarriage|oncolog(?:y|ist)|patients?|patientin|"
        r"prescri(?:bed|ption)|psychiatr(?:y|ic|ist)|schizophrenia|surgery|symptoms?|tumou?r|versichertennummer)(?!\w)"
    ),
    needed=3,
    hints=(
        *("allerg", "amputat", "anamnes", "antidepress", "biops", "blutdruck", "cancer", "carcinoma", "chemotherap"),
        *("comorbid", "depression", "diabet", "diagnos", "dialysis", "epilep", "hepatitis", "hiv", "hospital"),
        *("hypertension", "insulin", "krankenakte", "krebs", "medical", "metastas", "miscarriage", "oncolog"),
        *("patient", "prescri", "psychiatr", "schizophrenia", "surgery", "symptom", "tumo", "versicherten"),
    ),
)
# The first thing in each pattern is what is rare in a text: `re` jumps to it. What must not stand before is asked next.
SEARCHES: Final[Mapping[Kind, tuple[Search, ...]]] = {
    "card_number": (
        Search("card number", re.compile(r"\d(?<![\w.-]\d)(?:[ \u00a0-]?\d){12,18}(?!\w)"), is_card_number),
    ),
    "iban": (
        Search(
            "IBAN",
            re.compile(r"\d(?<=(?<!\w)[A-Za-z]{2}\d)\d(?:[ \u00a0]?[A-Za-z0-9]){11,30}(?!\w)", re.ASCII),
            is_iban,
        ),
    ),
    "us_ssn": (
        Search(
            "social security number",
            re.compile(r"[0-8](?<![\w-][0-8])(?<!0(?=00))(?<!6(?=66))\d\d([- ])(?!00)\d{2}\1(?!0000)\d{4}(?![\w-])"),
            is_ssn,
        ),
    ),
    "email": (
        Search(
            "e-mail address",
            re.compile(r"@(?<=[\w%+-]@)(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w@])"),
            hints=("@",),
        ),
    ),
    "phone": (
        Search(
            "phone number", re.compile(r"\+(?<![\w.+/-]\+)[1-9](?:[ ()./\u00a0-]{0,2}\d){7,14}(?!\w)"), hints=("+",)
        ),
        Search("phone number", re.compile(r"[2-9](?<![\w.-][2-9])\d{2}\)?[ .-]{1,2}[2-9]\d{2}[ .-]\d{4}(?![\w.-])")),
    ),
    "health": (
        _MEDICINE,
        # A code of the ICD-10 alone could be the number of a chapter.
        Search(
            "code of a disease",
            re.compile(r"[A-TV-Z](?<!\w[A-Z])\d[0-9A-B]\.\d{1,2}(?![\w.])"),
            beside=replace(_MEDICINE, needed=1),
        ),
    ),
    "secret": (
        Search("private key", re.compile(r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY")),
        Search(
            "API key",
            re.compile(
                r"(?<![A-Za-z0-9_-])(?:sk-[A-Za-z0-9_-]{20}|(?:AKIA|ASIA)[0-9A-Z]{16}(?!\w)|gh[pousr]_[A-Za-z0-9]{36}|"
                r"github_pat_[A-Za-z0-9_]{22}|glpat-[A-Za-z0-9_-]{20}|xox[abeprs]-[A-Za-z0-9-]{10}|AIza[A-Za-z0-9_-]{35}|"
                r"hf_[A-Za-z0-9]{30}|[rs]k_live_[A-Za-z0-9]{16}|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50})"
            ),
            hints=(
                *("sk-", "akia", "asia", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox"),
                *("aiza", "hf_", "k_live_", "npm_", "pypi-"),
            ),
        ),
        Search(
            "signed token",
            re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,200}\.eyJ[A-Za-z0-9_-]{8}"),
            hints=(".eyj",),
        ),
    ),
}
