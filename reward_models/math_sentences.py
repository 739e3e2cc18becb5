r"""Reads an answer out of a sentence: "the answer is ...", in many languages, and the last value of a text.

It may assume text without reasoning and formatting tags; every scan is linear in it. A word that changes the value
("negative", "half of", "not") is never dropped: then the whole phrase is the answer, for math_compare to read.
It will not compute: "18 plus 2" stays a sum.
"""

import re

from .math_claims import claims_no_value, sentence_before, understood
from .math_languages import ENDING, MARKER_WORDS, MARKERS, MINUS_WORDS, NOT_WORDS
from .math_relations import value_named
from .math_structures import split_list
from .math_text import normalize
from .math_units import same_kind

TAIL_CHARACTERS = 4_000  # a spoken answer and a last number are looked for in the end of the text
PHRASE_CHARACTERS = 2_500

IS = (
    r"(?:is|are|was|were|equals?|becomes|remains"
    r"|(?:would|must|should|will|could|has to|have to|ought to|can only|turns? out to|comes? out to"
    r"|works? out to|comes? to)(?:\s+(?:then|thus|therefore|also))?(?:\s+be|\s+equal)?)"
)
DENIED = (
    r"(?:can(?:'|’)?t|cannot|can not|could(?:n't|n’t| not)|is(?:n't|n’t| not)|are(?:n't| not)|was(?:n't"
    r"| not)|wo(?:n't|n’t)|will not|would(?:n't| not)|must(?:n't| not)|should(?:n't| not)|does(?:n't"
    r"| not) (?:equal|seem to be))"
)
SPOKEN = re.compile(
    r"(?:"
    rf"\b(?:answers?|solutions?|(?:possible\s+|valid\s+)?(?:values|roots|zeros)(?=\s+(?:(?:of"
    rf"|for)\s[^.\n:=]{{1,40}}?\s)?are\b)|final\s+(?:result|value|total|amount|count|price|cost|number"
    rf"|score)|(?:correct|right|best)\s+(?:option|choice|letter|result))(?:\s+(?:to|for|of"
    rf"|in)\s[^.\n:=]{{1,80}}?)?"
    rf"\s*[*_]*\s*(?P<is>\b{DENIED}(?:\s+be\b)?|\b{IS}(?![\w'’])|=>|->|⇒|→|=|:|：|—"
    rf"|–)(?:\s*[*_]*\s*(?:equal\s+to\b|(?:therefore|thus|then|hence|simply|just|exactly|indeed|clearly"
    rf"|obviously|still|actually|now|hereby)\b,?|given by\b|as follows|option\b|choice\b|letter\b|=>|->|:"
    rf"|=))*"
    r"|^[ \t]*[#*_]+[ \t]*(?:the[ \t]+)?(?:final[ \t]+)?answer[ \t]*[*_:]*[ \t]*\n"
    r"|^[ \t>*#]*A(?:ns)?\s*\**\s*[:.](?!\w)|\b(?:I (?:would )?(?:choose|pick|select|go with)|choose"
    r"|select)\s+(?:(?:option|choice|answer)\b|(?=\(?[A-J]\)?(?![\w])))"
    r")[ \t*_]*",
    re.IGNORECASE | re.MULTILINE,
)
# Words without which SPOKEN finds nothing: searching for them is ten times faster.
SPOKEN_WORDS = re.compile(
    r"answer|solution|final|correct|values|roots|zeros|right|best|choose|pick|select|^[ \t>*#]*A(?:ns)?\s*\**\s*[:.]",
    re.IGNORECASE | re.MULTILINE,
)
FOREIGN = re.compile(rf"(?:{'|'.join(MARKERS)})[ \t*_]*", re.IGNORECASE)
STATED_CHOICE = re.compile(
    r"(?<![\w(])\(?([A-J])\)?\s+is\s+(?:the\s+|our\s+|my\s+)?(?:final\s+)?(?:correct|right|best|answer)\b|(?:选项|選項)\s*([A-J])\s*(?:是|为|為)?\s*(?:正确|正確|对)"
)
CHOICE_WORDS = re.compile("correct|right|answer|best|正确|正確|选项|選項")
LAST_MARKS = 64  # how many of them may be denials before the search ends
SENTENCE_END = re.compile(
    r"[.!?;,]?[ \t]*(?:\n|$)"
    r"|[.!?](?=\s)|[;,](?=\s+(?!which\b[^.\n]{0,60}=)(?=I\s|[^\W\d_]{2}|i\.e)(?!(?:and|or)\s+(?:[a-z]\s*="
    r"|[-+$\d\\(\x00])))|\s[-–—]\s(?=[a-z]{3})|[ \t]*<\||[。！？｡।۔؟]|[，；](?=\s*[^\W\d_])"
)
CLAUSE = re.compile(
    r"\s*(?:,\s*|\s)(?:because|since|as|so|which(?! [^.\n]{0,60}=)|given that|due to|hence|therefore|thus"
    r"|but|and not|where|meaning|making|giving|assuming|that is|i\.e\.|rather than|instead of|after"
    r"|when)\b(?!\s*$)|\s*(?:因为|因為|由于)"
)
EQUALS = re.compile(
    r"\b(?:equals"
    r"|(?:is|are)(?=\s*[-$\d\x00])|is equal to|gives|makes|comes to|totals|results in|yields|等于|等於)\b\s*:?|=(?!=)"
)
SMILEY = re.compile(r"\s*[:;]-?[)DP]\s*$")
NOTE = re.compile(r"\s*\((?!\s*mod\b)(?=[^()]*[A-Za-z]{3,}\s+[^()]*[^()\s])[^()]*\)?\s*[.!]?\s*$")
MATH_SPAN = re.compile(
    r"(?<![\\$])\$(?!\s)([^$\n]{1,400}?)(?<![\\\s])\$(?![$\d])|\$\$([^$]{1,400})\$\$"
    r"|\\\(([^\n]{1,400}?)\\\)|\\\[(.{1,400}?)\\\]",
    re.DOTALL,
)
NUMBER = re.compile(
    r"(?<![\w.^\\])(?<!\^\{)[-+\u2212\u2013\uff0d]?\s?(?:\\?[$]|[\u20ac\u00a3\u00a5])?\s?"
    r"(?:\d+[ -]\d+\s?/\s?\d+|(?<=\$)\d{1,3}(?: \d{3})+|\d{1,3}(?:(?:,|\{,\}|\\,|\\!"
    r"|[\u00a0\u2009\u202f])\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"(?:e[-+]?\d+)?(?:\s?/\s?\d+(?:\.\d+)?)?"
    r"(?![\d^]|\.\d|,\d|(?:st|nd|rd|th)\b|(?![mgkshlKMBL])[A-Za-z](?![A-Za-z]))"
    r"(?:\s?\\?%|\s?percent\b|\s(?:thousand|million|billion|trillion|hundred|dozen)\b)?"
)
# Languages without spaces: 有42个, 42です. A digit may follow their letters.
CJK_NUMBER = re.compile(r"(?<=[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af])[-+]?\d[\d,]*(?:\.\d+)?(?![\d^/.]\d)")

COPULA = re.compile(r"\b(?:is|are|was|were|equals|has|have|had|makes|leaves)\b(?!['’n])|=")
NOT_BUT_CJK = re.compile(r"^[^。.\n]{0,40}?(?:(?:では|じゃ)なくて?、?|不是[^。.\n]{0,20}?[，,]?\s*而是|아니라)\s*")
NOT_BUT = re.compile(r"\bnot\b[^.;\n]*?\bbut\s+(?:rather\s+)?[$]?$", re.I)
RESULT_OF = re.compile(r"=\s?[$]?\s?[-$\d.]?$")
REMARK = re.compile(
    r"\b(?:in|for|from|after|per|within|during|at|with|out of|of|to|into|than|every)\s+(?:(?:the|each|all"
    r"|his|her|their|its|only)\s+)?\s?[-$]?\s?$"
)
# A clause of circumstances behind the result: "she makes 46 dollars, selling 64 eggs".
CIRCUMSTANCE = re.compile(
    r",\s+(?:selling|buying|using|working|charging|having|assuming|including|excluding|counting|considering|given|if"
    r"|when|where|since|because|while|although|even though)\b[^.,;=\n]{0,32}$"
    r"|\b(?:after|before|by|from|for|when|while|without|since)\s+(?:\w+\s+)?\w+ing\s+(?:\w+\s+){0,4}[$]?$"
)
SCALE = r"(?:thousand|million|billion|trillion|hundred|dozen|percent|per cent|%|\\%)"
DENIAL = re.compile(
    rf"\b(?:not|never|cannot|neither|nor|either|between(?=\s+[-$\d\x00\\])|no longer"
    r"|unlikely|hardly|far from|anything but)\b|n['’]t\b"
    rf"|{NOT_WORDS}|[≠]|\\ne(?:q)?(?![a-z])",
    re.I,
)
UNDECIDED = re.compile(
    r"\b(?:whether|wonder if|if the (?:final )?answer|unsure|(?:don['’]t|do not|cannot|can['’]t|not)"
    r" (?:know|say|tell|sure|certain|think|believe)|doubt|no idea)\b[^.!?\n]{0,60}$"
    r"|\b(?:suppos(?:e|ing)|assum(?:e|ing)|imagine|pretend|if|unless|thought|guessed|claimed|said)\s+(?:that\s+)?"
    r"(?:the\s+|my\s+)?(?:(?:final|correct|right|only|true)\s+)?$",
    re.I,
)
CHANGED_BEFORE = re.compile(
    r"(?:\b(?:e to the|base|ln|log|lg|exp|sqrt|root|roots|twice|thrice|double|triple|half|third|quarter"
    r"|fifth|(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?|than|at least|at most"
    r"|over|under|above|below|almost|nearly|plus|times|mod|modulo|opposite|inverse|reciprocal|negation"
    r"|factorial|squared?|cubed?|or|up to|until|beyond"
    r"|exceeds?|exceeding|approaches|multiples?|divisible|oder|ou|или|hasta|bis|jusqu'à|до|more|less|fewer"
    r"|больше|меньше|более|менее|mehr|weniger|más|plus de|moins de|mayor|menor|größer|kleiner|أكثر|أقل"
    r"|root of|power|maximum|minimum|maybe|perhaps|possibly|except|unless|without|rather than)"
    r"|[\d\x00]\s*(?:to|through|and|of|out of|in|from|-|–|à|a|bis)|[<>]=?|[\u2264\u2265\u2260]|\\(?:ge|le|ne|gt"
    r"|lt)q?|\d(?:\s:|:(?!\s))|[*×/^±]|\\(?:times|cdot|pm|div|sqrt|ln|log|sin|cos|tan)"
    r"|负|マイナス以外|超过|至少|至多|少于|大于|小于|约|或|或者|から|から約)"
    r"\s*(?:(?:of|from|by|the|a|an|number|value|its|negative|minus)\s+)*[$(]?\s*$",
    re.I,
)
WHICH_IS = re.compile(
    r"\s*,?\s*(?:which|that|and (?:it|this|that))\s+(?:is|are|equals?|gives|makes|comes to|amounts to)\s+(?=\S)", re.I
)
NOT_AN_ARROW = re.compile(r"(?:->|=>|>{2,}|⇒|→|➜|➡|\\implies|\\Rightarrow|\\rightarrow|\\to)(?![a-zA-Z])\s*")
CHANGED_AFTER = re.compile(
    r"\s*(?:\(\s*mod|\\pmod|squared\b|cubed\b|factorial\b"
    r"|(?:more|less|fewer|greater|higher|lower|larger|smaller) than\b"
    r"|plus\b|minus\b|times\b(?=\s*(?:[-$\\(\d\x00]|[a-z](?![a-z])))"
    r"|multiplied\b|divided\b|at (?:most|least)\b|and (?:up|above|over|below|counting)\b|max(?:imum)?\b"
    r"|min(?:imum)?\b|pi\b|[π√]|\\pi|(?:per ?cent|percent|%) of\b|and an?\b|mod\b|modulo\b|choose\b|or\b"
    r"|per\s+\d|to the (?:\d|power|n|\w+ power)|below\b|short of\b|\\pm|±|\?|!(?!\s|$)"
    r"|(?:over|to|through|by|out of)\s+[-$\\(\d\x00]|in\s+[-$\\(\d\x00]+(?![\d.]*\s?[a-z]{3})|[-–~]\s?\d"
    r"|[-+*^×÷=<>]|/(?!\s?[a-z]{2})|至|到|或|から|부터|(?:of)\s+[-$\\(\d\x00])"
)
UNIT_WORDS = r"(?:\s*[^\W\d_]+\.?){0,3}?"
SAFE_BETWEEN = re.compile(
    rf"{UNIT_WORDS}\s+(?:for|at|after|during|while|where|with|on|every|each|per|within|if we)\b(?!.*\b(?:of"
    rf"|to|by|times|plus|minus|over|and|or|than)\s*[$(]?$)",
    re.I,
)
COMPOUND = re.compile(r"\d\s*([^\W\d_]+)\.?(?:\s*,)?\s*(?:and\s+|und\s+|y\s+|et\s+)?$")
LEAD = re.compile(
    r"^(?:(?:so|thus|hence|therefore|then|and|finally|now|ok|okay|well|we (?:get|have|find|obtain"
    r"|conclude)|this gives(?: us)?|it follows that|giving|that is|i\.e\.|∴|⇒|\\therefore|所以|因此|故"
    r"|因而|从而|于是|那么|综上|综上所述|よって|したがって|従って|ゆえに|つまり|따라서|그러므로|결국"
    r"|итак|donc|also|il y a|hay|es gibt|there (?:is|are)|por lo tanto|entonces)(?![\w])\s*[,:，、]?\s*)+",
    re.I,
)
HEADING = re.compile(r"^#{1,6}[ \t]+(?=\S)")
TRAIL = re.compile(r"\s*[,.;!]?\s*(?:done|qed|q\.e\.d|final|that's it|hooray|yay|ok|okay|hope this helps)\W*$", re.I)
PROSE = re.compile(
    r"[^\W\d_]{2,}[,:]?\s+(?:[^\W\d_]{2,}|[^\s\w]|\d)|[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]{2,}\s*[$\\(]*-?\d"
)
NO_PROSE = re.compile(
    r"\\(?:text|mathrm|textbf|mathbf)\s*\{[^{}]*\}|\\[a-zA-Z]+"
    r"|(?<![^\W_])(?:and|or|oder|und|ou|et|или|и|sqrt|sin|cos|tan|ln|log|exp|negative|minus|plus|times"
    r"|squared|cubed|over|option|choice|pi|square root of|percent|infinity)(?=[\s(]+[-+$\d\\(a-z/*^])"
    r"|(?<![^\W_])(?:inf|infinity|oo)(?=\s*[,)\]])",
    re.I,
)
RUN = re.compile(
    r"(?:\\(?!text|mbox|mathrm|quad|qquad|implies|therefore|Rightarrow|because)[a-zA-Z]+|\\[,;!{}|]"
    r"|(?<![A-Za-z])(?:sqrt|sin|cos|tan|ln|log|exp|pi)(?![a-zA-Z])|(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])"
    r"|[\d\s+\-*/^=()\[\]{}|.!_<>%×·÷√²³π$',])+$"
)
RUN_CHARACTERS = 160


def spoken_answer(tail: str) -> str | None:
    """What the last "the answer is" of a text says, or None if there is none; a denial is none."""
    end = max(_english_mark(tail), _foreign_mark(tail))
    choice = _last(STATED_CHOICE, tail) if CHOICE_WORDS.search(tail) else None
    if choice and choice.end() > end and not DENIAL.search(sentence_before(tail, choice.start())):
        return choice[1] or choice[2]
    said = tail[end:].lstrip(" \t\n*_:}、,，")
    return None if end == -1 or re.match(r"[^.!?,\n]{0,80}[?？]\s*(?:\n|$)", said) else read_sentence(said)


def _last(pattern: re.Pattern, text: str) -> re.Match | None:
    match = None
    for match in pattern.finditer(text):  # noqa: B007  only the last is wanted
        pass
    return match


def _english_mark(tail: str) -> int:
    """Where the last "the answer is" ends that is no denial, else -1."""
    if not SPOKEN_WORDS.search(tail):
        return -1
    marks = list(SPOKEN.finditer(tail))[-LAST_MARKS:]
    while marks and (_is_denied(marks[-1]) or UNDECIDED.search(tail[: marks[-1].start()][-120:])):
        marks.pop()
    return marks[-1].end() if marks else -1


def _is_denied(mark: re.Match) -> bool:
    return bool(mark["is"]) and re.match(DENIED, mark["is"], re.I) is not None


def _foreign_mark(tail: str) -> int:
    lowered = tail.lower()
    if not any(word in lowered for word in MARKER_WORDS):
        return -1
    return max((mark.end() for mark in FOREIGN.finditer(tail)), default=-1)


def unmarked_answer(text: str, whole: bool = True) -> str | None:
    """The text itself where it is nothing but an answer, else its last formula or number that stands for a value.

    whole: the text was not shortened at its beginning.
    """
    stripped = TRAIL.sub("", LEAD.sub("", HEADING.sub("", text.strip())))
    arrow = NOT_AN_ARROW.split(stripped[-300:])
    if len(arrow) > 1 and arrow[-1].strip() and "\n" not in arrow[-1]:
        stripped = arrow[-1].strip(" *_")
    short = ENDING.sub("", stripped)
    if len(short) <= 200 and "\n" not in short and not looks_like_prose(short) and not _derives(short):
        return without_delimiters(short) if MATH_SPAN.search(short) else short
    tail = text[-TAIL_CHARACTERS:]
    return _last_value(tail, whole and len(tail) == len(text))


def read_sentence(rest: str) -> str | None:
    """The answer at the beginning of a text: its first sentence, without reasons and notes."""
    rest = NOT_BUT_CJK.sub("", rest[:PHRASE_CHARACTERS])
    masked = _masked(rest)
    end = SENTENCE_END.search(masked)
    length = end.start() if end else len(rest)
    clause = CLAUSE.search(masked, 1, length)
    equals = [m for m in EQUALS.finditer(masked, 0, length) if re.search(r"\d", masked[: m.start()])]
    if clause and not (
        equals and equals[-1].start() > clause.start() and equals[-1][0].strip() not in ("=", "is", "are")
    ):
        length = clause.start()
    further = WHICH_IS.match(rest, length)
    if further and not re.search(r"[\d\x00]", masked[:length]) and re.search(r"\s", rest[:length].strip()):
        return read_sentence(rest[further.end() :])  # "the number of days, which is 12"
    sentence = NOTE.sub("", SMILEY.sub("", rest[:length]))
    sentence = LEAD.sub("", ENDING.sub("", sentence).strip("*_ \t").rstrip("="))
    plain = without_delimiters(sentence)
    if re.search(r"\\[\])]$", plain) and not re.search(r"\\[\[(]", plain):  # \[Answer: 42\]
        plain = plain[:-2].strip()
    return plain if not looks_like_prose(plain) else _from_prose(sentence, plain)


def _derives(text: str) -> bool:
    """True if a text leads from an equation to a value: "2x = 10 and x = 5" states 5, not two answers."""
    items = [LEAD.sub("", item) for item in split_list(without_delimiters(text)) or []] if "=" in text else []
    named = [value_named(normalize(item)) is not None for item in items if "=" in item]
    return len(named) > 1 and named[-1] and not all(named)


def looks_like_prose(text: str) -> bool:
    """True if the text has a word that LaTeX commands, units and short names do not explain: at least two in a row."""
    return PROSE.search(NO_PROSE.sub(" ", text)) is not None


def without_delimiters(text: str) -> str:
    """The text with its math spans as plain LaTeX: "$3$ or $5$" is "3 or 5"."""
    text = MATH_SPAN.sub(lambda m: " " + next(group for group in m.groups() if group is not None) + " ", text)
    return re.sub(r" {2,}", " ", text).strip().strip("*_")


def _from_prose(sentence: str, plain: str) -> str:
    """The one value of a sentence with its unit; the whole of it where its words may change the value."""
    if re.match(r"\s*\(?[A-J]\)?[).:]\s", plain):  # "C) Paris is the capital"
        return plain
    values = _values(sentence)
    if not values:
        return plain
    equals = [m for m in EQUALS.finditer(_masked(sentence)) if values[0].start() < m.start() < values[-1].start()]
    if equals and (equals[-1][0].strip() not in ("is", "are") or values[0].start() > 2) and not DENIAL.search(sentence):
        return _after_equals(sentence, equals[-1], plain)
    first, before = values[0], _masked(sentence)[: values[0].start()]
    if (
        not understood(before)
        or DENIAL.search(before)
        or CHANGED_BEFORE.search(before)
        or (len(values) > 1 and not _safe(sentence, *values[:2]))
    ):
        return plain
    value, after = _with_scale(sentence, first)
    if CHANGED_AFTER.match(re.sub(rf"^{UNIT_WORDS}(?=\s(?:or|squared|cubed|to|plus|minus|times)\b)", "", after)):
        return plain
    return _signed(before, value)


def _after_equals(sentence: str, equals: re.Match, plain: str) -> str:
    """The value behind the last "=" or "equals" of a sentence, or the whole equation where it names no value."""
    after = sentence[equals.end() :].strip()
    if equals[0] == "=":
        run = RUN.search(sentence[max(0, equals.start() - RUN_CHARACTERS) : equals.start()])
        equation = (run[0] if run else "") + "=" + after
        if run and run[0].strip(" ,.$") and value_named(normalize(equation)) is None and _has_variables(run[0]):
            return plain
    return without_delimiters(after) if not looks_like_prose(after) else _from_prose(after, without_delimiters(after))


def _has_variables(text: str) -> bool:
    return re.search(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])", text) is not None


def _safe(sentence: str, first: re.Match, second: re.Match) -> bool:
    """True if a second number belongs to a remark ("18 dollars for 3 days"), not to the value ("18 to 20")."""
    return SAFE_BETWEEN.match(sentence[first.end() : second.start()]) is not None


def _last_value(tail: str, whole: bool) -> str | None:
    values = _values(tail)
    if not values or (values[-1].start() == 0 and not whole):  # the number may begin before the tail
        return None
    last = _result(tail, values)
    begin = last.start() + len(last[0]) - len(last[0].lstrip())
    start = max(tail.rfind(stop, 0, begin) for stop in (". ", "\n", "? ", "! ", "。", "; ", "，", ", ", ": "))
    before = _masked(tail[start + 1 : begin])[-200:]
    value, after = _with_scale(tail, last)
    if _is_part_of_a_compound(before, after) or CHANGED_AFTER.match(after):
        return None
    if UNDECIDED.search(before) or claims_no_value(_masked(tail), begin, last.end()):
        return None
    if CHANGED_BEFORE.search(NOT_AN_ARROW.sub(" ", before)) or DENIAL.search(NOT_BUT.sub("", COPULA.split(before)[-1])):
        return None
    return _equation_or_value(
        tail[max(0, start + 1) : begin], _signed(before, value), re.match(r"\s?[a-z]{2}", after) is not None
    )


def _result(tail: str, values: list[re.Match]) -> re.Match:
    """The last value; the one behind the last `=` of its sentence where only "in 40 minutes" or the like follows, and
    the one before a clause of circumstances.
    """
    last = values[-1]
    if len(values) > 1 and CIRCUMSTANCE.search(tail[values[-2].end() : last.start()]):
        return values[-2]
    for value in reversed(values[-4:]):
        if RESULT_OF.search(tail[max(0, value.start() - 4) : value.start()] + value[0][:1]):
            return value
        between = tail[max(0, value.start() - 40) : value.start()]
        if not REMARK.search(between) or re.search(r"[.!?]\s|\n", tail[value.start() : last.start()]):
            return last
    return last


def _equation_or_value(before: str, value: str, has_unit: bool) -> str:
    """The value behind a final `=`; with its left side where that is an equation to be solved (2x = 10)."""
    if not re.search(r"=\s*\$?\s*$", before):
        return value
    run = RUN.search(re.sub(r"(?<=[\d\s])[xX](?=\s?[\d$])", "*", before[-RUN_CHARACTERS:]))
    left = re.sub(r"^(?:a|I|'s)\s+(?=[$\d])", "", run[0].strip(" ,.$\n").lstrip()) if run else ""
    if has_unit or value[-1:].isalpha():
        left = re.sub(r"(?<=\d)\s?[a-zA-Z](?![A-Za-z])", "", left)  # 60g * 4/5 = 48 grams
    if not _has_variables(left) or value_named(normalize(f"{left}{value}".replace("$", ""))) is not None:
        return value
    return without_delimiters(f"{left} {value}")


def _is_part_of_a_compound(before: str, after: str) -> bool:
    """10 minutes and 30 seconds, 5 feet 6 inches: two numbers, one quantity."""
    first, second = COMPOUND.search(before), re.match(r"\s*([^\W\d_]+)", after)
    return bool(first and second and same_kind(first[1], second[1]))


def _with_scale(text: str, value: re.Match) -> tuple[str, str]:
    """A value with the scale word, percent sign or unit right behind it, and the text after that."""
    content = next((group for group in value.groups() if group is not None), None) if value.groups() else None
    rest = text[value.end() :]
    scale = re.match(rf"\s?{SCALE}(?![a-zA-Z])", rest) if content is not None else None
    cjk = re.match(r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]{1,6}", rest)
    attached = scale or cjk or re.match(r"\s?π[²³]?(?:\s?/\s?\d+)?", rest)
    behind = attached[0] if attached else ""
    return (content if content is not None else value[0]) + behind, rest[len(behind) :]


def _signed(before: str, value: str) -> str:
    return "-" + value.strip() if re.search(rf"(?:{MINUS_WORDS})\s*$", before, re.I) else value


def _values(text: str) -> list[re.Match]:
    """Math spans and numbers outside of them, in order."""
    spans = list(MATH_SPAN.finditer(text))
    masked = _masked(text)
    numbers = [*NUMBER.finditer(masked), *CJK_NUMBER.finditer(masked)]
    return sorted([*spans, *numbers], key=lambda match: match.start())


def _masked(text: str) -> str:
    """The text with every character of a math span as NUL: what is inside ends no sentence and is no word."""
    return MATH_SPAN.sub(lambda m: "\x00" * len(m[0]), text)
