"""Words and phrases that features and context look for. Pure data: adding one is a change of `FEATURES_VERSION`.

Single words are looked up in a dictionary, so their number costs no time; phrases are regular expressions without
nested repetition, so that no text makes them slow.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass


def _words(**lists: str) -> Mapping[str, str]:
    return {word: feature for feature, words in lists.items() for word in words.split()}


WORD_FEATURES: Mapping[str, str] = _words(
    # Kinds of question.
    explain_words="why how explain describe discuss interpret analyze analyse evaluate justify wherefore warum wieso "
    "pourquoi porque perché erkläre",
    fact_words="what which who whom whose when where name define identify was wer wann wo quel quelle qué quién cuál",
    negation="not except least incorrect false never neither nor cannot unlikely without",
    inference="suppose assume assuming given let if determine deduce infer conclude implies therefore hence thus "
    "following follows",
    calculation="calculate compute find evaluate estimate value approximate approximately maximum minimum percent "
    "percentage rate ratio average total sum amount",
    everyday_numbers="each day days week weeks month months year years old hours minutes dollars cents money "
    "bought buy sell sold spend spent pays paid cost costs price store apples friends school pounds miles many much "
    "more left twice half",
    # Fields, by the words that give them away.
    mathematics_words="polynomial integer integers prime theorem lemma matrix vector derivative integral equation "
    "function triangle circle radius probability divisible modulo group ring field homomorphism subgroup finite "
    "infinite convergent series sequence angle root roots real complex positive graph continuous differentiable "
    "eigenvalue manifold topology bijection permutation sqrt frac cos sin tan log",
    law_words="defendant plaintiff statute court contract jury trial attorney negligence liability liable evidence "
    "hearsay landlord tenant deed landowner conveyed crime murder felony homicide lawsuit sued sue damages breach "
    "constitutional constitution amendment judgment admissible testimony prosecution police offer acceptance buyer "
    "seller mortgage easement tort assault robbery larceny burglary",
    science_words="energy force mass velocity acceleration pressure temperature voltage current resistance circuit "
    "wavelength frequency electron electrons proton atom molecule molecules reaction equilibrium enthalpy entropy "
    "acid base solution mole moles molar concentration gas liquid solid heat thermal steam fluid flow density "
    "viscosity magnetic electric field charge capacitor inductance spring pendulum lens mirror orbit nucleus "
    "radiation isothermal adiabatic pipe beam load shaft motor generator transformer turbine refrigerant",
    life_words="cell cells gene genes dna rna protein proteins enzyme species evolution plant plants animal animals "
    "bacteria virus tissue blood muscle bone patient patients disease diseases symptoms syndrome diagnosis therapy "
    "treatment drug vaccine nerve brain hormone membrane chromosome organism population vitamin infection cancer",
    society_words="government political president war century empire king revolution treaty economic economy market "
    "demand supply firm inflation monetary fiscal tax trade social society culture cultural behavior psychologist "
    "psychology theory according women historical religion ancient civilization archaeological party policy citizens",
    philosophy_words="argument premise premises conclusion valid invalid logic predicate moral morality ethics "
    "ethical kant aristotle plato hume mill virtue utilitarianism utilitarian fallacy proposition sentence "
    "categorical syllogism claim claims justice rights duty",
    computing_words="algorithm computer program memory cache processor compiler network packet server database query "
    "thread array string stack queue tree bits bytes byte binary code python java javascript software loop list "
    "assert def return",
    # Demands that exam questions do not make; their weights are assumed.
    proof="prove proof proofs disprove demonstrate rigorous rigorously beweise beweis beweisen démontre "
    "démontrer prouve demuestra demostrar dimostra докажи докажите",
    derivation="derive deriving derivation derivations leite herleitung herleiten dérive dériver derivar deriva",
    design="design architect architecture refactor implement optimize optimise debug prototype benchmark scalable "
    "concurrent concurrency distributed asynchronous production entwirf entwickle implementiere",
)
"""Word, lower case -> the feature that it counts for."""


@dataclass(frozen=True, slots=True)
class Phrases:
    """A pattern that is looked for only where one of its signs is: most texts have none, which is told quickly."""

    pattern: re.Pattern[str]
    signs: tuple[str, ...]
    """Every match holds one of them."""

    def count(self, text: str) -> int:
        """Count its matches."""
        return len(self.pattern.findall(text)) if self.possible(text) else 0

    def found(self, text: str) -> bool:
        """Tell whether it matches anywhere."""
        return self.possible(text) and self.pattern.search(text) is not None

    def possible(self, text: str) -> bool:
        """Tell whether it may match."""
        return any(map(text.__contains__, self.signs))


REASONING = Phrases(
    re.compile(
        r"step[- ]by[- ]step|show (?:all )?(?:your )?(?:work|working|steps|reasoning)|think (?:carefully|hard|through)"
        r"|reason (?:carefully|through)|chain of thought|schritt für schritt|étape par étape|paso a paso|passo a passo"
        r"|一步一步|逐步"
    ),
    ("step", "show", "think", "reason", "chain", "schritt", "étape", "paso", "passo", "一步", "逐步"),
)
PROOF = Phrases(
    re.compile(r"show that|if and only if|iff\b|q\.e\.d|counter-?example|证明|証明|증명"),
    ("show that", "if and only", "iff", "q.e.d", "counter", "证", "証", "증"),
)
DERIVATION = Phrases(
    re.compile(r"leite .{0,60} her\b|from first principles|推导|導出"),
    ("leite ", "first principles", "推导", "導出"),
)
RESEARCH = Phrases(
    re.compile(
        r"trade-?offs?|compare and contrast|in depth|in-depth|critically|state of the art|root cause|end[- ]to[- ]end"
        r"|from scratch|edge cases|literature review|research (?:plan|proposal|question)|pros and cons"
    ),
    (
        "trade",
        "compare and",
        "in depth",
        "in-depth",
        "critical",
        "state of",
        "root cause",
        "end-to",
        "end to",
        "from scratch",
        "edge cases",
        "literature",
        "research ",
        "pros and",
    ),
)
STEP_MARK = re.compile(r"^\s{0,8}(?:\d{1,2}[.)]|[-*•]|\(?[a-h]\))\s", re.MULTILINE)
STEP_WORDS = Phrases(
    re.compile(r"\b(?:first|second|then|next|finally|afterwards)\b"),
    ("first", "second", "then", "next", "finally", "afterwards"),
)
"""Marks of a task in several parts."""

COURTESY = re.compile(
    r"\W*(?:hi|hello|hey|hiya|good (?:morning|afternoon|evening|night)|thanks|thank you|thx|cheers|bye|goodbye|great"
    r"|perfect|cool|nice|awesome|lol|how are you(?: doing)?|what'?s up|hallo|guten (?:morgen|tag|abend)|danke"
    r"|tschüss|bonjour|salut|merci|hola|gracias|ciao|grazie|olá|obrigad[oa]|你好|谢谢|こんにちは|ありがとう|привет"
    r"|спасибо|안녕하세요)"
    r"(?:[\s,!.]{1,3}(?:there|all|everyone|you|so much|very much|a lot|again|for (?:your|the) help|today|stream))"
    r"{0,2}\W*"
)
"""The whole message is a greeting, a thank-you or a farewell."""

EVERYDAY = re.compile(
    r"\W{0,4}(?:please |kindly |hi,? |hello,? |hey,? )?(?:(?:can|could|would|will) you (?:please )?)?"
    r"(?:translate|summari[sz]e|rephrase|paraphrase|reword|rewrite|proofread|spell|correct (?:the|this|my)"
    r"|fix the (?:grammar|spelling|typos?)|convert \d|list (?:some|a few|three|five|ten|\d{1,2}|the)"
    r"|tell me (?:a|about)|give me|suggest|recommend|remind me"
    r"|what time|what day|what(?:'s| is) the (?:weather|capital|date)"
    r"|(?:write|draft|compose) (?:me )?(?:an?|the) (?:\w{1,12} ){0,2}(?:e-?mail|message|reply|note|invitation|tweet"
    r"|post|caption|haiku|limerick|joke|greeting|slogan|title|headline)"
    r"|übersetze|fasse .{0,40} zusammen|traduis|résume|traduce|resume|traduci|riassumi|翻译|翻訳|переведи)"
)
"""The message begins with a small task of everyday writing or asking."""

CONVERSATION = re.compile(
    r"\b(?:please|can you|could you|would you|help me|i need|i want|i'd like|i am|i'm|my|me|we|our|thanks|tell me"
    r"|bitte|kannst du|mir|por favor|s'il (?:te|vous) pla[iî]t)\b"
)
"""Somebody speaks for themselves: no exam does."""

CODE_SIGNS = ("```", "=>", "->", "==", "!=", "+=", "&&", "||", "{}", "[]", "()", ";\n", "</")
CODE_WORDS = Phrases(
    re.compile(
        r"\b(?:def \w|class \w{1,64}[:({]|import \w|return\b|select\b.{1,80}\bfrom\b|public (?:static|class)"
        r"|function\s?\w{0,40}\(|fn \w|var \w|const \w)|#include"
    ),
    ("def ", "class ", "import ", "return", "select", "public ", "function", "fn ", "var ", "const ", "#include"),
)
LATEX = Phrases(
    re.compile(r"\\[a-z]{2,20}|\$[^$\n]{1,80}\$|\\\[|\\\("),
    ("\\", "$"),
)
_SIGN = r"[=<>^≤≥≠≈±\u00d7÷∑∫√∞∂∇∈⊂\u222a∩→∀∃π]"
_OPERATION = r"\d\s?[+*/-]\s?\d"
SIGN = re.compile(_SIGN)
OPERATION = re.compile(_OPERATION)
OPERATOR = re.compile(rf"{_SIGN}|{_OPERATION}|\b[a-z]\^\d|\b[a-z]\(\w\)")
"""All that is counted as one; its parts alone can be counted apart where there is neither "^" nor "("."""
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
UNIT = re.compile(
    r"\d\s?(?:°|%|(?:kg|g|mg|lb|lbs|lbm|lbf|km|m|cm|mm|nm|ft|in|inch|inches|s|sec|ms|hr|h|min|rpm|n|kn|j|kj|cal|kcal|btu"
    r"|w|kw|mw|hp|v|kv|a|ma|ohms?|hz|khz|mhz|ghz|pa|kpa|mpa|atm|torr|bar|psi|psia|mol|moles?|l|ml|k|c|f|ev|mev|t|mph"
    r"|fps)\b)"
)
OPTION = re.compile(r"^[ \t]{0,4}\(?[A-J][.):][ \t][^\n]*\n?", re.MULTILINE)
"""A lettered option, its whole line; on the text as written, since "a)" is a part of a task and "A." is an option."""
FEWEST_OPTIONS = 3
"""Fewer lettered lines than this are no options."""
ANSWER_FORMAT = re.compile(
    r"^[ \t]{0,4}(?:answer|final answer|the answer is)[ \t]{0,4}:?[ \t]{0,4}$", re.MULTILINE | re.IGNORECASE
)
QUOTATION = re.compile(r"[\"“„«]")
SENTENCE_END = re.compile(r"[.!?\u3002\uff01\uff1f](?=\s|$)|\n[ \t]{0,8}\n")
WORD = re.compile(r"[^\W\d_]+")
ASCII_WORD = re.compile(r"[a-z]+")
"""The same in text that is lower case and ASCII, three times as quick."""

SCRIPTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("Han", re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")),
    ("Kana", re.compile(r"[\u3040-\u30ff]")),
    ("Hangul", re.compile(r"[\uac00-\ud7af\u1100-\u11ff]")),
    ("Cyrillic", re.compile(r"[\u0400-\u052f]")),
    ("Greek", re.compile(r"[\u0370-\u03ff\u1f00-\u1fff]")),
    ("Arabic", re.compile(r"[\u0600-\u06ff\u0750-\u077f]")),
    ("Hebrew", re.compile(r"[\u0590-\u05ff]")),
    ("Indic", re.compile(r"[\u0900-\u0dff]")),
    ("Thai", re.compile(r"[\u0e00-\u0e7f]")),
    ("accented Latin", re.compile(r"[\u00c0-\u024f]")),
)
UNSPACED = frozenset({"Han", "Kana", "Thai"})
"""Scripts that put no spaces between words: two characters count as a word."""

_LEAD = r"\W{0,4}(?:(?:ok(?:ay)?|yes|yeah|yep|great|thanks|thank you|please|good|nice|hm+|well)[,.!]?\s{1,2}){0,2}"
REFERS = re.compile(
    _LEAD
    + r"(?:continue|go on|go ahead|go deeper|keep going|carry on|proceed|and|but|also|now|then|what about|how about"
    r"|what if|instead|try again|do the same|the same|weiter|mach weiter|fahr(?:e)? fort|und|et|continúa|sigue|continua"
    r"|继续|再|続けて|продолж\w{1,8}|дальше|계속)(?!\w)"
)
"""The message begins as only an answer to what was said before does."""
REFERS_IF_TERSE = re.compile(
    _LEAD + r"(?:yes|yeah|yep|sure|ok|okay|please do|why|how so|how come|how|really|so|or|more|again|another|next"
    r"|shorter|longer|simpler|briefer|elaborate|redo|proceed|in (?:\w{3,12}|one sentence|more detail)|with|without"
    r"|(?:auf|en) \w{4,12}|warum|noch|encore|pourquoi|por qué|y|e|ancora|perché|为什么|なぜ|почему)(?!\w)"
)
"""As above, but only in a message of very few words: "why?" leans on what was said, "why is the sky blue?" does not."""
POINTS_BACK = re.compile(
    r"\b(?:prove|show|explain|do|fix|translate|rewrite|shorten|summari[sz]e|improve|simplify|repeat|check|verify|extend"
    r"|convert|try|make|redo|write|put|say|turn|test|optimi[sz]e|finish|solve|generali[sz]e|implement|derive|of|about"
    r"|for|to|with|on) (?:it|that|this|these|those|them)\b(?! \w{1,20} (?:of|that|which))"
    r"|\b(?:is|was|does|did) (?:that|this|these|those)\b|\b(?:does|did) it\b|\bis it (?:right|true|correct|possible)\b"
    r"|\b(?:above|previous|last (?:answer|step|part|one|line)|your (?:answer|reply|code|solution|last)"
    r"|you (?:said|wrote)|the (?:same|former|latter|first one|second one))\b"
)
"""The message names something that stands outside it."""
