"""Readers of the synthetic texts that know only English as the generator writes it, not how it made the labels."""

import re


def read_story(text):
    """Returns (place of everybody and everything, holder of things) at the end of a story."""
    place, holder = {}, {}
    who = None
    for sentence in text.rstrip(".").split(". "):
        sentence = re.sub(r"^(Then|Later|After that) ", "", sentence)
        if found := re.fullmatch(r"The (\w+ \w+) was in the (\w+)", sentence):
            place[found[1]] = found[2]
            continue
        subject, rest = sentence.split(" ", 1)
        if subject.lower() not in ("he", "she"):
            who = subject
        if rest.startswith("did not"):
            continue
        if found := re.fullmatch(r"went to the (\w+)", rest):
            place[who] = found[1]
        elif found := re.fullmatch(r"took the (\w+ \w+)", rest):
            place[who] = place.pop(found[1])
            holder[found[1]] = who
        elif found := re.fullmatch(r"left the (\w+ \w+) there", rest):
            place[found[1]] = place.get(who)
            del holder[found[1]]
        else:
            found = re.fullmatch(r"gave the (\w+ \w+) to (\w+)", rest)
            assert found, rest
            place[found[2]] = place.get(who)
            holder[found[1]] = found[2]
    return place, holder


def answer_story(text, question):
    """Returns whether a question of yes or no is answered by yes."""
    place, holder = read_story(text)
    if found := re.fullmatch(r"does (\w+) have the (\w+ \w+)\?", question):
        return holder[found[2]] == found[1]
    found = re.fullmatch(r"is (?:the )?(\w+(?: \w+)?) in the (\w+)\?", question)
    assert found, question
    return place[holder.get(found[1], found[1])] == found[2]


_OPPOSITES = {
    "younger": "older",
    "shorter": "taller",
    "poorer": "richer",
    "weaker": "stronger",
    "after": "before",
}
_DEALS = {"got": "gave", "bought": "sold", "borrowed": "lent"}


def read_relation(clause):
    """Returns a relation as (first, relation, second), from the side of the first."""
    words = clause.rstrip(".").split()
    if words[2] == "the":
        one, verb, two, thing = words[0], words[1], words[-1], " ".join(words[3:5])
        if verb in _DEALS:
            return two, f"{_DEALS[verb]} {thing}", one
        return one, f"{verb} {thing}", two
    one, two = words[0], words[-1]
    kind = words[2] if words[1] == "is" else f"{words[1]} {words[2]}"
    for less, more in _OPPOSITES.items():
        if less in kind:
            return two, kind.replace(less, more), one
    return one, kind, two


def follows(premise, hypothesis):
    """Returns whether a relation follows from others; orders are transitive."""
    told = {read_relation(clause) for clause in premise.rstrip(".").split(". ")}
    if " the " not in premise:
        told |= {
            (a, kind, d) for a, kind, b in told for c, other, d in told if b == c and kind == other
        }
    return read_relation(hypothesis) in told


_GOOD = set("lovely bright funny clever warm fresh gentle lively fine charming rich sweet".split())
_BAD = set("awful dull dreary clumsy cold stale noisy bitter poor boring messy sad".split())


def is_praise(sentence):
    """Returns whether the main clause of a review praises."""
    text = sentence.rstrip(".")
    is_wrong = text.endswith(" was wrong")
    if is_wrong:
        text = text.rpartition(", but ")[0]
    if text.startswith("Although "):
        text = text.split(", ", 1)[1]
    text = text.split(", although ")[0].split(", but ")[-1].split(", and ")[-1]
    words = text.split()
    (adjective,) = [word for word in words if word in _GOOD | _BAD]
    is_denied = bool({"not", "never", "far"} & set(words))
    return ((adjective in _GOOD) != is_denied) != is_wrong
