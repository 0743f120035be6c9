"""What identifies a person, a place or a machine in free text.

References
----------
HIPAA, 45 CFR 164.514(b)(2)(i): the eighteen identifiers. DICOM PS3.5, 6.2.1.1: the parts of a person's name.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

LETTER = r"[^\W\d_]"
NAME_SIGN = rf"(?:{LETTER}|['\u2019-])"
MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}"
YEAR = r"(?:18[89]\d|19\d\d|20[0-4]\d)"
DAY, MONTH_NUMBER = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])"
# Hashes, versions, decimals and UIDs hold any short run of digits sooner or later.
NOT_INSIDE = r"(?<![0-9A-Za-z.])"
NOT_FURTHER = r"(?![0-9A-Za-z]|\.\d)"
# UIDs of the standard itself, and those that are drawn at random (PS3.5, B.2).
HARMLESS_UIDS = ("1.2.840.10008.", "2.25.")
MAX_AGE = 89


@dataclass(frozen=True)
class Rule:
    """One kind of identifier.

    Parameters
    ----------
    what : str
        The kind.
    signs : tuple of str
        Of which each match has one, in lower case: most texts have none of them. Empty: any text may match.
    pattern : re.Pattern
    holds : callable
        What must be true of a match besides.
    """

    what: str
    signs: tuple[str, ...]
    pattern: re.Pattern[str]
    holds: Callable[[re.Match[str]], bool]


def is_uid_to_report(text: str) -> bool:
    """Tell whether a UID may be that of a real study: neither the standard's nor a random one."""
    return not text.startswith(HARMLESS_UIDS)


def _is_plausible_name(match: re.Match[str]) -> bool:
    family, given = match[1], match[2]
    if family.islower() or given.islower():
        # As code has it: mask^flag.
        return min(len(family), len(given)) >= 3
    return len(given) > 1 or given.isupper()


def _is_address(match: re.Match[str]) -> bool:
    parts = [int(part) for part in match[0].split(".")]
    # Versions have four parts too; they begin low.
    return max(parts) <= 255 and parts[0] >= 10 and parts[0] != 127 and parts != [255] * 4


def _is_phone(match: re.Match[str]) -> bool:
    return 9 <= sum(character.isdigit() for character in match[0]) <= 15


def _is_social_security_number(match: re.Match[str]) -> bool:
    return match[1] not in ("000", "666") and match[1] < "900" and match[2] != "00" and match[3] != "0000"


def _rule(what: str, signs: str, pattern: str, holds: Callable[[re.Match[str]], bool] = lambda _: True) -> Rule:
    return Rule(what, tuple(signs.split()), re.compile(pattern), holds)


MACHINE_FOLDERS = r"/(?:home|Users|root|mnt|media|nfs|scratch|export|tmp|private|srv|Volumes)/"
PERSON_NAME = "person's name"
DATE = "date"
MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec"
PHONE = "telephone number"
PATH = "path of a user or a machine"
RULES = (
    _rule(
        PERSON_NAME,
        "^",
        rf"(?<![\w^$\\\[])({LETTER}{NAME_SIGN}{{1,40}})\^({LETTER}{NAME_SIGN}{{0,40}})(?!\w)",
        _is_plausible_name,
    ),
    _rule(
        PERSON_NAME,
        "patient physician radiologist operator technician surgeon referred",
        r"(?i:\b(?:patient(?:'s)?(?: name)?|physician|radiologist|operator|technician|surgeon|referred by))"
        rf"[ \t]*[:=][ \t]*(?:Dr\.? )?[A-Z]{LETTER}+,?[ ^]{{1,2}}[A-Z]{LETTER}+",
    ),
    _rule(PERSON_NAME, "dr mr ms prof herr frau", rf"\b(?:Dr|Mr|Mrs|Ms|Prof|Herr|Frau)\.? [A-Z][a-z]{LETTER}+"),
    _rule(DATE, "-0 -1 /0 /1", rf"{NOT_INSIDE}{YEAR}([-/])(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])(?!\d)"),
    _rule(
        DATE,
        ".1 .2 -1 -2 /1 /2",
        rf"{NOT_INSIDE}(?:{DAY}([./-]){MONTH_NUMBER}|{MONTH_NUMBER}(/){DAY})(?:\1|\2){YEAR}{NOT_FURTHER}",
    ),
    _rule(
        DATE,
        "19 20",
        rf"{NOT_INSIDE}(?:19\d\d|20[0-4]\d)(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
        rf"(?:[ T_]?(?:[01]\d|2[0-3])[0-5]\d[0-5]\d(?:\.\d{{1,6}})?)?{NOT_FURTHER}",
    ),
    _rule(DATE, MONTHS, rf"(?i)\b{DAY}(?:st|nd|rd|th)?[. -]{{1,2}}{MONTH}[., -]{{1,2}}{YEAR}\b"),
    _rule(DATE, MONTHS, rf"(?i)\b{MONTH}\.? {DAY}(?:st|nd|rd|th)?,? {YEAR}\b"),
    _rule(
        "date of birth",
        "dob d.o.b. birth born geb",
        r"(?i)(?<![a-z])(?:dob|d\.o\.b\.|date of birth|birth ?(?:date|day)|born(?: on| in)?|geb\.|geboren(?: am)?)"
        r"[ \t]*[:=]?[ \t]*\"?\d[^\n]",
    ),
    _rule("age above 89", "9 10 11 12", r"(?i)\b(?:9\d|1[0-2]\d)[- ]?(?:years?|yrs?|y)[- ]?(?:old|o)\b"),
    _rule(
        "e-mail address",
        "@",
        r"(?i)(?<![\w.+-])[\w.+-]{1,64}@[a-z0-9-]{2,63}(?:\.[a-z0-9-]{1,63}){0,4}\.[a-z]{2,18}\b",
    ),
    _rule(PHONE, "+", r"(?<![\w.+-])\+\d{1,3}[ -](?:\(?\d{1,5}\)?[ /-]?){2,5}(?!\w)", _is_phone),
    _rule(PHONE, "", r"(?<![\w.(-])(?:\(\d{3}\) ?|\d{3}[ -])\d{3}[ -]\d{4}(?![\w-]|\.\d)"),
    _rule(PHONE, "tel phone fax mobile", r"(?i)\b(?:tel|phone|fax|mobile)\.?[ \t]*[:=]?[ \t]*[\d+(][\d ()/-]{6,}"),
    _rule(
        "social security number",
        "-",
        r"(?<![\w.-])(\d{3})-(\d{2})-(\d{4})(?![\w-]|\.\d)",
        _is_social_security_number,
    ),
    _rule(
        "record number",
        "mrn pat medical accession hospital fall",
        r"(?i)(?<![a-z])(?:mrn|pat(?:ient)?[ _-]?(?:id|no|nr|number)|medical record(?: number| no)?|accession"
        r"(?:[ _-]?(?:no|number))?|hospital[ _-]?(?:id|no|number)|fallnummer|patientennummer)"
        r"[ \t]{0,3}[\"']?[.:=#_-]?[ \t]{0,3}[\"']?[a-z]{0,4}[_-]?\d{4,12}(?!\w)",
    ),
    _rule("record number", "patient", r"(?i)(?<![a-z])patient[ _:#=-]{1,3}(?:no\.? ?)?\d{6,12}(?!\w|\.\d)"),
    _rule(PATH, "/", rf"(?<![\w.~/\\-]){MACHINE_FOLDERS}[^\s\"'<>|]+"),
    _rule(PATH, "file:/", r"(?i)\bfile:/{2,3}[^\s\"'<>]{2,}"),
    _rule(
        PATH,
        ":\\ :/",
        r"(?<![A-Za-z])[A-Za-z]:(?:\\{1,2}|/)(?:Users|Documents and Settings|[\w .-]{2,60}\\)",
    ),
    _rule(PATH, "\\\\", r"(?<![\\\w])\\\\[A-Za-z][\w.-]{2,60}\\[\w$.-]{2,}"),
    _rule("address of a machine", ".", r"(?<![\w.:-])\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d)", _is_address),
    _rule("address of a machine", ":", r"(?i)(?<![\w:])(?:[0-9a-f]{2}:){5}[0-9a-f]{2}(?![\w:])"),
    _rule(
        "name of a machine",
        ".local .lan .corp .intranet",
        r"(?i)(?<![\w./@-])[a-z0-9][\w-]{2,62}(?:\.[a-z0-9][\w-]{0,62}){0,4}"
        r"\.(?:local|lan|corp|intranet|localdomain)(?![\w(.])",
    ),
    _rule("name of a machine", "host", r"(?i)\bhost(?:name)?[ \t]*[:=][ \t]*[a-z][\w.-]{2,}"),
    _rule(
        "DICOM UID",
        ".",
        r"(?<![\w.])[0-2](?:\.(?:0|[1-9]\d{0,38})){6,30}(?![\w]|\.\d)",
        lambda match: is_uid_to_report(match[0]),
    ),
)
# In what is not known to be text a name must be longer: any three letters occur by chance.
STRICT_NAME = re.compile(r"(?<![A-Za-z])([A-Z][a-z]{2,30}|[A-Z]{3,30})\^([A-Z][a-z]{2,30}|[A-Z]{3,30})(?![A-Za-z])")
STRICT_MAIL = re.compile(
    r"(?<![\w.+-])[\w.+-]{3,64}@[a-z0-9-]{3,63}(?:\.[a-z0-9-]{2,63}){0,3}\.[a-z]{2,6}(?!\w)", re.ASCII
)
STRICT_LETTERS = 7
# The card of a release names whom to ask: that is meant to be read.
CONTACT_LINE = re.compile(r"^Questions: .*$", re.MULTILINE)


def find_in_text(text: str) -> Iterator[tuple[str, int]]:
    """Yield kind and offset of each identifier in a text.

    Parameters
    ----------
    text : str
        Any length; nothing is found across line ends.
    """
    lower = text.lower()
    for rule in RULES:
        if rule.signs and not any(sign in lower for sign in rule.signs):
            continue
        for match in rule.pattern.finditer(text):
            if rule.holds(match):
                yield rule.what, match.start()


def kinds_in_text(text: str) -> list[str]:
    """Return the kinds of identifiers in a short text, each once, sorted."""
    return sorted({what for what, _ in find_in_text(text)})


def find_strictly(text: str) -> Iterator[tuple[str, int]]:
    """Yield kind and offset of names and e-mail addresses in what may be noise."""
    for match in STRICT_NAME.finditer(text):
        if len(match[1]) + len(match[2]) >= STRICT_LETTERS:
            yield PERSON_NAME, match.start()
    for match in STRICT_MAIL.finditer(text):
        yield "e-mail address", match.start()
