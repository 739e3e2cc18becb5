r"""Whether the last value of a text that marks no answer is claimed to be one: "Step 14", "perhaps 14?", "12, 13, 14".

It may assume the end of a text, with its math spans masked. A sentence that is not understood claims nothing.
It will not look at answers that are marked: a box or "the answer is" claims by itself.
"""

import re

# A number that names a step, a case or a place in the text; one of a row of numbers; a sentence that claims nothing.
LABEL = re.compile(
    r"\b(?:step|case|part|options?|choices?|question|problem|exercise|example|equations?|eq|figure|fig|table|page|line"
    r"|chapter|section|attempt|approach|method|rule|theorem|lemma|claim|item|version|paso|schritt|étape|шаг|passo"
    r"|第|步骤|ステップ|단계)[ .#(:]*$",
    re.I,
)
ROW = re.compile(r"[\d\x00)][^\W\d_]{0,3}(?:\s*[,，、;]\s*(?:and\s+|or\s+)?|\s+(?:and|or|und|y|et|и)\s+)[$]?$")
CLAIMS_NOTHING = re.compile(
    r"\b(?:maybe|perhaps|possibly|might|could|guess(?:ed|ing)?|suppose|assum(?:e|ing)|let['’]?s|let us|try|trying|wait"
    r"|hmm+|wrong|incorrect|mistaken?|false|options?|choices?|candidates?|impossible|at first|initially|originally"
    r"|first thought|i thought|need to|have to|used to|would have"
    r"|unclear|uncertain|quizás|vielleicht|peut-être|возможно)\b"
    r"|可能|也许|假设|かもしれ|아마",
    re.I,
)
TAKEN_BACK = re.compile(
    r"\b(?:wrong|incorrect|mistake|not (?:right|correct|true)|doesn['’]t work|does not work|impossible|too (?:big|large"
    r"|small|high|low|many|few)|not sure|unsure|hard to say|contradict\w*)\b|不对|错了|不正确",
    re.I,
)
# Words that may stand between "the answer is" and its number; any other may change the number: "half of", "más de".
STATING = re.compile(
    r"(?:\b(?:is|are|was|were|be|equals?|has|have|had|gets?|makes?|made|earns?|pays?|paid|needs?|spends?|spent|costs?|owes?"
    r"|takes?|took|leaves?|left|gives?|total(?:s|ed)?|becomes?|remains?|sold|sells?|buys?|bought|travels?|reads?|eats?|ate"
    r"|sind|ist|es|son|est|sont|beträgt|равен|равна|равно|hat|tiene|è|é)\b(?!['’n])|[=:→])",
    re.I,
)
UNDERSTOOD = frozenset(
    re.findall(
        r"\S+",
        """
    a an the that he she it they we you there this these its his her their our your my exactly simply just
    precisely approximately about around roughly equal equals to value number sum cost amount total answer
    result therefore thus so then hence now also still all in only of final correct is are be x option choice
    letter price distance area length volume speed age time profit probability ratio perimeter perfect whole
    positive integer usd us indeed obviously clearly altogether overall given by as follows namely finally
    actually always negative minus menos moins meno negativ минус ناقص سالب la el los las le les l il lo der
    die das den ein eine un una uno igual égal égale gleich exactamente aproximadamente exactement environ
    genau etwa ungefähr insgesamt totale donc por tanto somit exatamente esattamente circa что это ровно
    примерно всего равен равна равно итого هو هي حوالي تقريبا بالضبط की का के लगभग है là khoảng adalah sekitar
    wynosi około
""",
    )
)
TOTAL_OF = re.compile(
    r"\b(?:of course|in fact)\b|\b(?:total|sum|value|answer|number|amount|cost|price|result|area|length|volume|speed"
    r"|distance|age|profit|probability|ratio|perimeter|importe|suma|valor|somme|valeur|wert)\s+(?:of|de|von)\b",
    re.I,
)
CONTRAST = re.compile(r"\b(?:but|however|yet|pero|aber|mais|но)\b|但", re.I)
# A sentence that sets out from its value, and what follows a value that is only the subject of its sentence.
PREMISE = re.compile(
    r"(?:but\s+|so\s+)?(?:if|since|because|when|given|first|firstly|next|note|recall|consider|unless|although"
    r"|(?:we|he|she|they|i|you)\s+(?:start|starts|started|begin|begins|began)\b|wenn|si|если|如果|若|もし|假如)(?![^\W\d_])",
    re.I,
)
TELLS_MORE = re.compile(
    r"\b(?:cannot|can|isn|not|fails?|works?|but|must|should|would|will|shows?|means|divides?)\b", re.I
)
THE_ANSWER = re.compile(
    r"\b(?:is|are) (?:indeed |therefore )?(?:the |our |my )?(?:final |correct |right |only )?"
    r"(?:answer|solution|result|correct|right)\b"
    r"|\bworks\b",
    re.I,
)
DANGLING = re.compile(
    r"(?:\b(?:and|or|the|of|to|is|are|a|an|with|for|we|so|then|by|from|that|which|plus|minus|times|if|but|because)"
    r"|[,+*=/(\-])\s*$",
    re.I,
)


def sentence_before(text: str, position: int) -> str:
    """What stands before a position in its sentence or line."""
    start = max(text.rfind(stop, 0, position) for stop in (". ", "\n", "? ", "! ", "; ", "。"))
    return text[start + 1 : position]


def claims_no_value(masked: str, begin: int, end: int) -> bool:
    """True if the value from `begin` to `end` is a label, one of a row, guessed, asked for, taken back or cut short.

    masked: the text with its math spans as NUL characters.
    """
    sentence = sentence_before(masked, begin)
    stop = re.search(r"[.!?](?=\s|$)|\n|。|？", masked[end:])
    rest = masked[end : end + stop.start()] if stop else masked[end:]
    if LABEL.search(sentence) or ROW.search(sentence) or (stop and stop[0] in "?？"):
        return True
    if CLAIMS_NOTHING.search(CONTRAST.split(sentence)[-1] + " # " + rest) or TAKEN_BACK.search(masked[end:]):
        return True
    if (PREMISE.match(sentence.strip()) and "," not in sentence) or (
        TELLS_MORE.search(rest) and not THE_ANSWER.search(rest)
    ):
        return True
    return DANGLING.search(masked) is not None


def understood(before: str) -> bool:
    """True if every word between "the answer is" and its number is known to leave the number as it is."""
    words = re.findall(r"[^\W\d_]+", TOTAL_OF.sub(" ", STATING.split(before)[-1]).lower())
    spaced = [word for word in words if not re.match(r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]", word)]
    return all(word in UNDERSTOOD for word in spaced) and not re.search(r"\bof\s*$", TOTAL_OF.sub(" ", before), re.I)
