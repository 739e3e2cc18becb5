r"""What languages other than English write in and around an answer: digits, separators, units, "the answer is".

It may assume that a word is enough: no grammar of any language is attempted, and a word that is not here is unknown.
It will not decide what a comma between digits means: that is the caller's `decimal_comma`.
"""

import re
import unicodedata
from fractions import Fraction

PUNCTUATION = {
    "。": ". ", "｡": ". ", "、": ", ", "，": ", ", "；": "; ", "،": ", ", "؛": "; ", "٫": ".", "٬": ",", "۔": ". ",
    "।": ". ", "「": '"', "」": '"', "『": '"', "』": '"', "《": '"', "》": '"', "«": '"', "»": '"', "【": "[",
    "】": "]", "〜": "~", "～": "~", "％": "%", "٪": "%", "¥": "¥", "￥": "¥", "＄": "$",
}  # fmt: skip

CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af々〇"
LETTER = r"(?:[^\W\d_\u0900-\u097f\u0e00-\u0e7f]|[\u0900-\u0963\u0970-\u097f\u0e01-\u0e3a\u0e40-\u0e4e])"

# "or" and "and" between two values; one-letter words only between things that look like values (see VALUE_WORDS).
OR_AND = (
    "and", "or", "oder", "und", "или", "и", "либо", "أو", "और", "या", "または", "又は", "あるいは", "および", "及び",
    "또는", "혹은", "그리고", "或者是", "或者", "或是", "或", "以及", "和", "与", "及", "と", "ou", "et", "ve",
    "veya", "hoặc", "và", "lub", "oraz",
)  # fmt: skip
SEPARATOR_WORD = "(?:" + "|".join(
    sorted((re.escape(w) if re.match(f"[{CJK}]", w) else rf"\b{re.escape(w)}\b" for w in OR_AND), key=len, reverse=True)
) + ")"  # fmt: skip
VALUE_WORD = r"(?<=[\d)}\]$])\s+(?:o|u|y|e|i|و)\s*(?=[-+(\\$]|\d)"  # Spanish, Italian, Polish, Arabic
ANY_WORD = rf"(?:{SEPARATOR_WORD}|{VALUE_WORD})"

SCALES = {
    "十": 10, "百": 100, "千": 1000, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8, "兆": 10**12, "십": 10,
    "백": 100, "천": 1000, "만": 10**4, "억": 10**8, "조": 10**12,
}  # fmt: skip
SCALE_WORDS = {
    "тыс": 1000, "тысяч": 1000, "тысячи": 1000, "тысяча": 1000, "млн": 10**6, "миллион": 10**6, "миллиона": 10**6,
    "миллионов": 10**6, "млрд": 10**9, "миллиард": 10**9, "миллиарда": 10**9, "миллиардов": 10**9, "mil": 1000,
    "millón": 10**6, "millones": 10**6, "tausend": 1000, "million": 10**6, "millionen": 10**6, "milliarde": 10**9,
    "milliarden": 10**9, "mille": 1000, "millions": 10**6, "milliard": 10**9, "milliards": 10**9, "ألف": 1000,
    "آلاف": 1000, "مليون": 10**6, "ملايين": 10**6, "مليار": 10**9, "हज़ार": 1000, "लाख": 10**5, "करोड़": 10**7,
    "triệu": 10**6, "nghìn": 1000,
}  # fmt: skip
# English "mil" and "million" have their meaning in math_numbers.SCALES, which is asked first.

# Names as in math_units.UNITS. A counter that is not here (个, 名, 개) is a common noun.
UNITS = {
    "毫米": "mm", "厘米": "cm", "公分": "cm", "分米": "dm", "米": "m", "公尺": "m", "千米": "km", "公里": "km",
    "克": "g", "千克": "kg", "公斤": "kg", "毫克": "mg", "吨": "ton", "斤": "jin", "升": "l", "毫升": "ml",
    "小时": "hour", "时": "hour", "個小時": "hour", "个小时": "hour", "分钟": "minute", "分鐘": "minute",
    "分": "minute", "秒": "second", "秒钟": "second", "天": "day", "日": "day", "周": "week", "星期": "week",
    "个月": "month", "月": "month", "年": "year", "岁": "year", "歲": "year", "元": "yuan", "块": "yuan",
    "块钱": "yuan", "人民币": "yuan", "角": "jiao", "美元": "dollar", "美金": "dollar", "欧元": "euro",
    "度": "degree", "度角": "degree", "米每秒": "m/s", "米/秒": "m/s", "千米/小时": "km/h", "千米/时": "km/h",
    "公里/小时": "km/h", "円": "yen", "ドル": "dollar", "ユーロ": "euro", "時間": "hour", "時": "hour",
    "分間": "minute", "秒間": "second", "日間": "day", "週間": "week", "ヶ月": "month", "か月": "month", "歳": "year",
    "メートル": "m", "センチメートル": "cm", "センチ": "cm", "キロメートル": "km", "ミリメートル": "mm", "キロ": "kg",
    "キログラム": "kg", "グラム": "g", "リットル": "l", "시간": "hour", "분": "minute", "초": "second", "일": "day",
    "주": "week", "개월": "month", "년": "year", "살": "year", "원": "won", "달러": "dollar", "미터": "m",
    "센티미터": "cm", "킬로미터": "km", "그램": "g", "킬로그램": "kg", "리터": "l", "도": "degree", "мм": "mm",
    "см": "cm", "дм": "dm", "м": "m", "км": "km", "г": "g", "кг": "kg", "мг": "mg", "т": "ton", "л": "l", "мл": "ml",
    "ч": "hour", "час": "hour", "часа": "hour", "часов": "hour", "мин": "minute", "минута": "minute",
    "минуты": "minute", "минут": "minute", "с": "second", "сек": "second", "секунд": "second", "секунды": "second",
    "секунда": "second", "день": "day", "дня": "day", "дней": "day", "год": "year", "года": "year", "лет": "year",
    "месяц": "month", "месяца": "month", "месяцев": "month", "неделя": "week", "недели": "week", "недель": "week",
    "руб": "ruble", "рубль": "ruble", "рубля": "ruble", "рублей": "ruble", "копеек": "kopeck", "коп": "kopeck",
    "доллар": "dollar", "доллара": "dollar", "долларов": "dollar", "евро": "euro", "метр": "m", "метра": "m",
    "метров": "m", "километр": "km", "километра": "km", "километров": "km", "сантиметр": "cm", "сантиметра": "cm",
    "сантиметров": "cm", "килограмм": "kg", "килограмма": "kg", "килограммов": "kg", "грамм": "g", "граммов": "g",
    "литр": "l", "литра": "l", "литров": "l", "км/ч": "km/h", "м/с": "m/s", "градус": "degree", "градусов": "degree",
    "градуса": "degree", "متر": "m", "سم": "cm", "كم": "km", "كيلومتر": "km", "كغ": "kg", "ساعة": "hour",
    "ساعات": "hour", "دقيقة": "minute", "دقائق": "minute", "ثانية": "second", "يوم": "day", "أيام": "day",
    "سنة": "year", "سنوات": "year", "دولار": "dollar", "يورو": "euro", "horas": "hour", "hora": "hour",
    "minutos": "minute", "minuto": "minute", "segundos": "second", "segundo": "second", "días": "day", "día": "day",
    "años": "year", "año": "year", "metros": "m", "metro": "m", "kilómetros": "km", "centímetros": "cm",
    "gramos": "g", "kilogramos": "kg", "kilos": "kg", "litros": "l", "dólares": "dollar", "dólar": "dollar",
    "euros": "euro", "centavos": "cent", "grados": "degree", "stunden": "hour", "stunde": "hour", "minuten": "minute",
    "sekunden": "second", "tage": "day", "tag": "day", "jahre": "year", "jahr": "year", "wochen": "week",
    "monate": "month", "meter": "m", "kilometer": "km", "zentimeter": "cm", "gramm": "g", "kilogramm": "kg",
    "grad": "degree", "heures": "hour", "heure": "hour", "secondes": "second", "jours": "day", "jour": "day",
    "ans": "year", "années": "year", "semaines": "week", "mois": "month", "mètres": "m", "mètre": "m",
    "kilomètres": "km", "centimètres": "cm", "grammes": "g", "kilogrammes": "kg", "litres": "l", "degrés": "degree",
}  # fmt: skip
SQUARE = {"平方": "2", "立方": "3", "제곱": "2", "세제곱": "3"}
# Words after a number that make it another value, or none. (English ones: math_units.NO_UNIT.)
NO_UNIT = frozenset([
    "или", "и", "не", "до", "от", "больше", "меньше", "минус", "плюс", "более", "менее", "раз", "половина", "oder",
    "und", "nicht", "bis", "mehr", "weniger", "plus", "minus", "mal", "halb", "o", "u", "y", "e", "no", "más", "menos",
    "por", "entre", "mitad", "ou", "et", "pas", "moins", "fois", "à", "a", "demi", "و", "أو", "ليس", "إلى", "زائد",
    "ناقص", "نصف", "ضعف", "quadrat", "cuadrado", "carré", "в", "квадрате",
])  # fmt: skip
NOT_A_COUNTER = re.compile(
    r"的|の|未[満满]|之[间間一内內外前后後]|[或和与及到至不非多余餘负負加减減乘除以点點又约約上下半正]|分之|また|または|또는"
    r"|혹은|이상|이하|より|から|まで|부터|까지|초과|미만|ない|ません|아니|아닙|아닌|않"
)

# What ends a sentence that states an answer: "42です", "42입니다", "उत्तर 42 है".
ENDING = re.compile(
    r"\s*(?:になります|となります|でございます|であります|である|です|だった|だ|になる|となる|になった|입니다|이에요|예요|이다|이므로|"
    r"이 됩니다|가 됩니다|됩니다|है|हैं|होगा|dir|olur|だよ)[.!。！\s]*$"
)
MARKERS = (
    # Chinese, Japanese, Korean: no spaces between words
    r"答[案え](?:就|应该|應該|应|應|便|也)?(?:是|为|為|等于|等於|は|が|[:：])\s*[:：]?|(?<![一-龥])答\s*[:：]",
    r"(?<![不未别非没])(?:故|应|應|因此|所以|本题|本題|正确选项|正確選項)?(?:选择|選擇|选|選)(?:项|項)?(?:是|为|為)?\s*[:：]?(?=\s*[(（$\\]*[A-J])",
    r"(?:最终|最後|最后|最終)?(?:结果|結果|得数|得數)(?:是|为|為|等于|等於|は|[:：])",
    r"(?:解答|正解|解|最終答え|回答)(?:は|[:：])",
    r"(?:정답|답|해답|최종 답|결과)(?:은|는|이|:|：)",
    # Cyrillic, Arabic, Devanagari

        r"\b[Оо]твет(?:ом)?(?:\s+(?:задачи|на задачу))?\s*(?:[:：=—–-]|\bравен\b|\bравно\b|\bявляется\b"
        r"|\bбудет\b|\bсоставляет\b)\s*[:—–]?",

        r"\b(?:ال)?(?:جواب|إجابة|اجابة|ناتج|نتيجة|حل)(?:\s+(?:النهائي|النهائية|الصحيح|الصحيحة))?\s*(?:هو|هي"
        r"|يساوي|تساوي|[:=])\s*[:=]?",
    r"(?:उत्तर|जवाब|हल)\s*(?:है|[:=])?\s*[:=]?(?=\s*[-$\\(\d])",
    # Latin scripts

        r"\b(?:respuesta|solución|resultado|resposta|solução)(?:\s+(?:final|correcta|correcto"
        r"|correta))?\s*(?:\b(?:es|son|sería|será|é|são|igual a)\b|[:=])\s*:?",
    r"\b(?:antwort|lösung|ergebnis|endergebnis)(?:\s+(?:ist|lautet|beträgt|sind|wäre)\b|\s*[:=])\s*:?",
    r"\b(?:réponse|solution|résultat)(?:\s+(?:finale?|correcte|exacte))?\s*(?:\b(?:est|sont|vaut|serait)\b|[:=])\s*:?",
    r"\b(?:risposta|soluzione|risultato)(?:\s+(?:finale|corretta|esatta))?\s*(?:(?:è|e'|sono)(?!\w)|[:=])\s*:?",
    r"\b(?:odpowiedź|wynik)\s*(?:\b(?:to|jest|wynosi)\b|[:=])\s*:?",
    r"\b(?:cevap|sonuç)\s*[:=]?(?=\s*[-$\\(\d])",
    r"\b(?:đáp án|đáp số|kết quả)(?:\s+(?:cuối cùng|đúng))?\s*(?:\blà\b|[:=])\s*:?",
    r"(?:คำตอบ|ผลลัพธ์)(?:สุดท้าย)?\s*(?:คือ|[:=])",
    r"\b(?:jawabannya|jawaban)(?:\s+(?:akhir|akhirnya))?\s*(?:\badalah\b|[:=])\s*:?",
    r"\b(?:antwoord|oplossing)\s*(?:\bis\b|[:=])\s*:?",
)  # fmt: skip
# A text with none of these has none of the markers; looking for words is cheaper.
MARKER_WORDS = (
    "答", "选", "選", "结果", "結果", "得数", "得數", "解は", "正解", "정답", "답", "결과", "ответ", "جواب", "إجابة",
    "اجابة", "ناتج", "نتيجة", "حل", "उत्तर", "जवाब", "हल", "respuesta", "resposta", "soluc", "soluç", "resultado",
    "antwor", "lösung", "ergebnis", "réponse", "solution", "résultat", "rispost", "soluzion", "risultat", "odpowied",
    "wynik", "cevap", "sonuç", "đáp", "kết quả", "คำตอบ", "ผลลัพธ์", "jawaban", "antwoord", "oplossing",
)  # fmt: skip
# Denials between a marker and a value.
NOT_WORDS = (
    r"\bне\b|\bnicht\b|\bkein|\bno es\b|\bn'est pas\b|\bpas\b"
    r"|不是|不会|不可能|并非|ではない|じゃない|아니|ليس|ليست|नहीं|\bnon\b"
    r"|không phải|\bdeğil\b|\bnie\b|\bniet\b|\bnão\b|ไม่"
)
MINUS_WORDS = r"negative|minus|负|負|マイナス|음수|마이너스|минус|سالب|ناقص|menos|moins|meno|negativ"


def ascii_digits(text: str) -> str:
    """Every decimal digit of Unicode (Arabic-Indic, Devanagari, full width) as 0 to 9."""
    return text if text.isascii() else re.sub(r"\d", lambda m: str(unicodedata.decimal(m[0])), text)


NUMERALS = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "兩": 2}
NUMERAL = r"[零〇一二两兩三四五六七八九十百千万萬亿億]{1,20}"
WRITTEN_NUMBER = re.compile(
    rf"(?P<sign>[负負]?)(?:(?P<bottom>{NUMERAL})分之(?P<top>{NUMERAL})|(?P<whole>{NUMERAL}))(?P<unit>[{CJK}]{{0,6}})"
)


def digits_for_numerals(text: str) -> str:
    """一百二十元 as 120元 and 三分之一 as \\frac{1}{3}, where the text is nothing but a number and its unit."""
    match = WRITTEN_NUMBER.fullmatch(text.strip())
    if match is None or (match["unit"] and counted(match["unit"]) is None):
        return text
    sign = "-" if match["sign"] else ""
    if match["whole"]:
        return f"{sign}{_numeral(match['whole'])}{match['unit']}"
    return f"{sign}\\frac{{{_numeral(match['top'])}}}{{{_numeral(match['bottom'])}}}{match['unit']}"


def _numeral(text: str) -> int:
    """The value of a number in Chinese numerals, as spoken (一百二十) or digit by digit (二〇二四)."""
    if len(text) > 1 and all(c in NUMERALS for c in text):
        return int("".join(str(NUMERALS[c]) for c in text))
    total, section, digit = 0, 0, 0
    for character in text:
        scale = SCALES.get(character)
        if scale is None:
            digit = NUMERALS[character]
        elif scale < 10**4:
            section, digit = section + (digit or 1) * scale, 0
        else:
            total, section, digit = (
                (total + section + digit) * scale
                if scale > 10**4 and total
                else total + (section + digit or 1) * scale,
                0,
                0,
            )
    return total + section + digit


SCALED_NUMBER = re.compile(rf"(?:\d+(?:\.\d+)?[{''.join(SCALES)}]+){{2,4}}\d{{0,4}}")


def without_compound_scales(text: str) -> str:
    """2万5千 as 25000: a number in several steps of the scale, each smaller than the one before."""
    return SCALED_NUMBER.sub(lambda m: str(_sum_of_steps(m[0])), text)


def _sum_of_steps(number: str) -> int | str:
    total, last = Fraction(0), None
    for digits, scale in re.findall(rf"(\d+(?:\.\d+)?)([{''.join(SCALES)}]*)", number):
        factor = scaled(scale)[0]
        if last is not None and factor >= last:
            return number
        total, last = total + Fraction(digits) * factor, factor
    return int(total) if total.denominator == 1 else number


def with_decimal_points(text: str) -> str:
    """`1.234,56` as `1234.56` and `3,5` as `3.5`; a comma followed by a space, and `1,234.56`, stay as they are."""
    text = re.sub(
        r"(?<![\d.,])\d{1,3}(?:[.\u00a0\u202f ]\d{3}){1,8}(?:,\d{1,60})?(?![\d.,]{0,20}\d)",
        lambda m: re.sub(r"[.\u00a0\u202f ]", "", m[0]).replace(",", "."),
        text,
    )
    return re.sub(r"(?<![\d.,])(\d{1,60})(?:,|\{,\})(\d{1,60})(?![\d.,]{0,20}\d)", r"\1.\2", text)


def scaled(text: str) -> tuple[int, str]:
    """The product of the scale characters that a text begins with (千万: 10^7), and what follows them."""
    factor = 1
    while text and text[0] in SCALES and text not in UNITS:
        factor, text = factor * SCALES[text[0]], text[1:]
    return factor, text


def counted(text: str) -> str | None:
    """The unit name of a CJK counter ("" for a common noun such as 个), None if the text is no counter."""
    text = text.strip().replace(" ", "")
    for word, power in SQUARE.items():
        if text.startswith(word) and text[len(word) :] in UNITS:
            return UNITS[text[len(word) :]] + power
    if text in UNITS:
        return UNITS[text]
    return "" if re.fullmatch(rf"[{CJK}]{{1,8}}", text) and not NOT_A_COUNTER.search(text) else None
