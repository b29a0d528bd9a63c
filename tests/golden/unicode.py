#!/usr/bin/env python3
"""unicode.py - prints the table of letters, numbers and white space that section 10 of offline_rlhf.h
holds: runs of code points of one class, each as 4 * length + class (0 other, 1 letter: category L*,
2 number: N*, 3 white space), from 0 up to the last letter or number. Everything after is 'other'.
Usage: python3 unicode.py    (the table names the Unicode version of this Python)"""
import unicodedata

WHITE = {*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}


def kind(code):
    if code in WHITE:
        return 3
    return {"L": 1, "N": 2}.get(unicodedata.category(chr(code))[0], 0)


runs = []
for code in range(0x110000):
    k = kind(code)
    if runs and runs[-1][1] == k:
        runs[-1][0] += 1
    else:
        runs.append([1, k])
while runs[-1][1] == 0:
    runs.pop()

lines, line = [], "   "
for length, k in runs:
    text = " %d," % (4 * length + k)
    if len(line) + len(text) > 100:
        lines.append(line)
        line = "   "
    line += text
lines.append(line.rstrip(","))
print("/* Unicode %s, made by tests/golden/unicode.py: runs of one class, 4 * length + class. */" % unicodedata.unidata_version)
print("#define ORLI_UNICODE_END 0x%xu /* everything from here on is ORLI_OTHER */" % sum(r[0] for r in runs))
print("static const uint32_t orli_unicode_runs[] = {")
print("\n".join(lines) + "};")
