# SPDX-License-Identifier: GPL-3.0-or-later
"""Human languages in the output of programs: months, days, and words of messages.

Programs without a locale print English. The words are taken from messages of common programs; those
of other languages are neither English nor usual in file names.
"""

import re
from dataclasses import dataclass

WORD = re.compile(r"[^\W\d_]+")
UNTRANSLATED = ("C", "POSIX")


@dataclass(frozen=True)
class Language:
    """Months from January on, days from Monday on, and frequent words of messages."""

    months: tuple[str, ...]
    days: tuple[str, ...]
    words: frozenset[str]


def _language(months: str, days: str, words: str) -> Language:
    return Language(tuple(months.split()), tuple(days.split()), frozenset(words.split()))


LANGUAGES = {
    "en": _language(
        "january february march april may june july august september october november december",
        "monday tuesday wednesday thursday friday saturday sunday",
        "the of and or not no is are was be cannot can to from with for by this that such found"
        " invalid missing unknown usage file directory error warning failed total used free yes"
        " denied permission command line option options value more help version written read",
    ),
    "de": _language(
        "januar februar märz april mai juni juli august september oktober november dezember",
        "montag dienstag mittwoch donnerstag freitag samstag sonntag",
        "der das und oder nicht kein keine ist sind wird werden kann von zu zum zur mit für auf aus"
        " den dem ein eine einer eines bei bis gefunden ungültig ungültige ungültiger fehlt fehler"
        " fehlgeschlagen unbekannt unbekannte aufruf datei dateien verzeichnis verzeichnisse"
        " warnung keinen insgesamt benutzt belegt frei ja nein zugriff verweigert befehl zeile"
        " wert hilfe geschrieben gelesen datensätze ein",
    ),
    "fr": _language(
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "lundi mardi mercredi jeudi vendredi samedi dimanche",
        "le la les des du et ou ne pas est sont une dans pour avec aucun aucune fichier dossier"
        " erreur avertissement introuvable invalide inconnu utilisation oui non",
    ),
    "es": _language(
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
        "lunes martes miércoles jueves viernes sábado domingo",
        "el los las y o es son una para con ningún fichero archivo directorio existe aviso"
        " desconocido inválido modo uso sí",
    ),
    "it": _language(
        "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre"
        " dicembre",
        "lunedì martedì mercoledì giovedì venerdì sabato domenica",
        "il gli e o non è sono una per con nessun nessuna directory errore attenzione"
        " sconosciuto uso sì",
    ),
}


def language_of(locale: str | None) -> str:
    """Return the language of a locale; English if there is no locale or an untranslated one."""
    name = re.split(r"[_.@]", locale or "C")[0]
    return "en" if name in UNTRANSLATED else name


def number_of(word: str, kind: str) -> int | None:
    """Return the number, from 0 on, of the month or day that a word names; None if it names none.

    Names may be shortened to three letters.
    """
    low = word.lower()
    for language in LANGUAGES.values():
        names = language.months if kind == "month" else language.days
        for number, name in enumerate(names):
            if low == name or (len(low) == 3 and name.startswith(low)):
                return number
    return None


def translated(texts: tuple[str, str], locales: tuple[str | None, str | None]) -> str:
    """Return evidence that two texts are in the languages of these locales, or an empty string.

    The words that only one side has must include words of its own language, and none that only the
    other language has.
    """
    own = language_of(locales[0]), language_of(locales[1])
    if own[0] == own[1] or not all(name in LANGUAGES for name in own):
        return ""
    words = [{word.lower() for word in WORD.findall(text)} for text in texts]
    found = []
    for number in (0, 1):
        only = words[number] - words[1 - number]
        ours, theirs = (LANGUAGES[own[n]] for n in (number, 1 - number))
        mine = only & _all(ours) - _all(theirs)
        if not mine or only & _all(theirs) - _all(ours):
            return ""
        found.append(" ".join(sorted(mine)[:4]))
    return f"{found[0]!r} and {found[1]!r} are {own[0]} and {own[1]}"


def _all(language: Language) -> frozenset[str]:
    return language.words | {*language.months, *language.days}
