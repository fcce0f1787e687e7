"""Values that a text states (times, dates, amounts, addresses, names, numbers), and which kind is asked for.

Patterns of English, and of what looks alike in every language (figures, addresses, capitals inside a sentence). Pure.
"""

import re
from typing import Final, NamedTuple

from stream_summarizer.terms import stem

_MONTH: Final = (
    "January|February|March|April|May|June|July|August|September|October|November|December"
    "|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec"
)
_DAY: Final = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"
_COUNT: Final = "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
_CLOCK: Final = rf"(?:\d{{1,2}}(?::\d\d)?|one|{_COUNT})"
_PART_OF_DAY: Final = r"in\s+the\s+(?:morning|afternoon|evening)"
_PATTERNS: Final = {
    "time": rf"(?:half|quarter)\s+(?:past|to)\s+{_CLOCK}(?:\s+{_PART_OF_DAY})?"
    rf"|\b{_CLOCK}\s?(?:[ap]\.?m\b\.?|o'?clock\b|{_PART_OF_DAY})|\b\d{{1,2}}:\d\d\b",
    "date": rf"\b(?:the\s+)?\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?(?:{_MONTH})\b(?:,?\s+\d{{4}}\b)?"
    rf"|\b(?:{_MONTH})\.?\s+(?:the\s+)?\d{{1,2}}(?:st|nd|rd|th)?\b(?:,?\s+\d{{4}}\b)?|\b(?:{_MONTH})\s+\d{{4}}\b"
    r"|\b\d{4}-\d\d-\d\d\b|\b\d{1,2}/\d{1,2}(?:/\d{2,4})?\b|\b(?:the\s+)?\d{1,2}(?:st|nd|rd|th)(?:\s+of\s+this\s+month)?\b"
    rf"|\b(?:(?:this|next|last)\s+)?(?:{_DAY})\b|\b(?:day\s+after\s+tomorrow|later\s+today|today|tomorrow|tonight)\b",
    "amount": r"[$\u20ac\u00a3]\s?\d[\d.,]*(?<=\d)|\b\d[\d.,]*\s?(?:dollars|euros|pounds|USD|EUR)\b",
    "contact": r"\b[\w.+-]{1,80}@[\w-]{1,80}\.\w[\w.]{0,80}|\bhttps?://[^\s)>\]]+"
    r"|\b\d{2,4}[-\s]\d{3}[-\s]\d{3,4}\b",
    "place": r"\b\d+\s+[A-Z][\w'\u2019]*(?:\s+[A-Z][\w'\u2019]*){0,5}(?:\s+#?\d+)?",
    "identifier": r"`[^`\n]{1,80}`|\b[A-Za-z0-9]+(?:_[A-Za-z0-9]+)+\b|\b[A-Za-z]+\d[\w.-]*\b|\b\d+(?:\.\d+){2,}\b",
    "name": r"\b[A-Z][\w'\u2019&.-]*(?:\s+(?:(?:of|the|and|de|by|at|&)\s+)?[A-Z][\w'\u2019&.-]*)*",
    "number": rf"\b(?:\d[\d.,]*%?|(?:{_COUNT})\b)(?:\s+[a-z][a-z-]+)?",
}
_FACT: Final = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _PATTERNS.items()))
_CUES: Final = {
    "time": "time hour clock when start schedule",
    "date": "date day when deadline month year weekday",
    "amount": "price cost much amount pay paid rent fee budget fare spend salary income rate",
    "contact": "phone number mail email contact website url",
    "place": "city location place address where area destination origin station pickup street town country venue",
    "name": "name who whom person contact receiver title brand company city location place where destination origin"
    " airport station category type event area cuisine genre track device method class kind town country venue",
    "number": "number count many seat ticket room size people guest quantity length long old age how",
    "identifier": "version code function file variable api class id",
}
_ASKS: Final = {
    word: frozenset(kind for kind, cues in _CUES.items() if word in {stem(cue) for cue in cues.split()})
    for word in sorted({stem(cue) for cues in _CUES.values() for cue in cues.split()})
}
_PRIOR: Final = {
    "time": 0.3,
    "date": 0.3,
    "amount": 0.3,
    "contact": 0.3,
    "place": 0.5,
    "identifier": 0.1,
    "name": 0.4,
    "number": 0.1,
}
_OPENERS: Final = frozenset(
    re.findall(
        r"\S+",
        "I I'm I'd I'll I've Yes No Ok OK Okay Sure Please Thanks Thank The A An Do Does Did Can Could Would"
        " Will What When Where Which Who How Is Are Was It It's That That's There Here This These Have Has"
        " Great Good Perfect Sounds Alright And But So If In On At For To From Your You My We Not Any Also Let"
        " Let's Anything Nice Just One Should Hi Hello Well Of They He She Oh Awesome Excellent Right Try Then"
        " Now Some As With By Or Absolutely Certainly First Next Finally Make Use Add",
    )
)
"""Words with a capital because a sentence begins with them."""
_ENDERS: Final = _OPENERS | {"of", "the", "and", "de", "by", "at", "&"}


class Fact(NamedTuple):
    """One value."""

    kind: str
    text: str
    key: str  # equal for equal values

    @property
    def prior(self) -> float:
        """How likely a value of this kind is asked for, when nothing else is known."""
        return _PRIOR[self.kind]


def facts_of(sentence: str) -> tuple[Fact, ...]:
    """List the values that a sentence states, in order."""
    found: list[Fact] = []
    for match in _FACT.finditer(sentence):
        kind = match.lastgroup or ""
        text = match[0].strip(" .,;'")
        if kind == "name":
            text = _name(text, opens=match.start() == 0)
        if text:
            found.append(Fact(kind, text, text.casefold()))
    return tuple(found)


def _name(text: str, *, opens: bool) -> str:
    """Take words off that have a capital for another reason; a single word that opens a sentence is no name."""
    words = text.split()
    if opens and len(words) == 1:
        return ""
    while words and words[0].rstrip(".,") in _OPENERS:
        del words[0]
    while words and words[-1].rstrip(".,") in _ENDERS:
        del words[-1]
    return " ".join(words)


def kinds_asked(stems: frozenset[str]) -> frozenset[str]:
    """Tell which kinds of values a question asks for, by its words.

    Args:
        stems: of the whole question, its function words included.
    """
    return frozenset(kind for word in stems for kind in _ASKS.get(word, ()))
