#!/usr/bin/env python3
"""bpe_reference.py - byte-level BPE learned straight from the definition, slowly; makes bpe_golden.json.

    python3 tests/golden/bpe_reference.py                      writes tests/golden/bpe_golden.json
    python3 tests/golden/bpe_reference.py FILE VOCAB           the merges of a text, one JSON array [left, right] a line

Needs nothing but Python 3 (unicodedata 14: Python 3.11). The definition: the text falls into words (GPT-2's pattern),
words into bytes; the pair of neighbouring symbols that occurs most often, overlaps counted, becomes one symbol wherever
it stands, from left to right; again, until the vocabulary is full or no pair occurs twice. Ties go to the smaller pair
of ids (as in Hugging Face's BpeTrainer); ids are the special tokens', then the 256 bytes' in order, then the merges' in
order. (A merge that spelled a token which is there already would make that token, as in BpeTrainer; it never happens.)
Words of more than 256 bytes are counted in pieces of 256. bpe_huggingface.mjs compares the same cases with Hugging
Face's trainer.
"""
import collections
import json
import os
import random
import sys
import unicodedata

SPACES = "\t\n\v\f\r \u0085\u00a0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200b)))


def kind(c):
    return "s" if c in SPACES else "L" if unicodedata.category(c)[0] == "L" else \
        "N" if unicodedata.category(c)[0] == "N" else "o"


def words_of(text):
    """'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"""
    i = 0
    while i < len(text):
        end = next((i + len(t) for t in ("'s", "'d", "'m", "'t", "'ll", "'ve", "'re") if text.startswith(t, i)), i)
        start = i + 1 if text[i] == " " and i + 1 < len(text) and kind(text[i + 1]) != "s" else i
        if end == i:
            end = start
            while end < len(text) and kind(text[end]) == kind(text[start]):
                end += 1
            if kind(text[start]) == "s" and end < len(text) and end - i > 1:
                end -= 1  # the last blank belongs to what follows
        yield text[i:end]
        i = end


def cut(text, specials):
    """The stretches of text between special tokens, the longest first where several begin."""
    at = start = 0
    while at < len(text):
        found = max((s for s in specials if text.startswith(s, at)), key=len, default="")
        if found:
            yield text[start:at]
            at = start = at + len(found)
        else:
            at += 1
    yield text[start:]


def learn(text, vocab, specials=(), most=256):
    """[(left, right, id)], ids as above."""
    count = collections.Counter()
    for stretch in cut(text, specials):
        for word in words_of(stretch):
            data = word.encode()
            for i in range(0, len(data), most):
                count[data[i:i + most]] += 1
    words = [([b + len(specials) for b in word], n) for word, n in count.items()]
    spelling = [None] * len(specials) + [bytes([b]) for b in range(256)]
    id_of = {s: i for i, s in enumerate(spelling) if s is not None}
    merges = []
    while len(spelling) < vocab:
        pairs = collections.Counter()
        for symbols, n in words:
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += n
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], p))
        if pairs[best] < 2:
            break
        new = spelling[best[0]] + spelling[best[1]]
        if new not in id_of:
            id_of[new] = len(spelling)
            spelling.append(new)
        merges.append((*best, id_of[new]))
        for symbols, _ in words:
            i = 0
            while i + 1 < len(symbols):
                if (symbols[i], symbols[i + 1]) == best:
                    symbols[i:i + 2] = [id_of[new]]
                i += 1
    return merges


def made_up(rng, pieces, gaps, n, special=""):
    text = ""
    while len(text) < n:
        text += pieces[int(rng.random() ** 2 * len(pieces))] + rng.choice(gaps)
        if special and rng.random() < 0.02:
            text += special
    return text


def cases():
    rng = random.Random(20)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    lexicon = ["".join(rng.choice(syllables) for _ in range(rng.randint(1, 4))) for _ in range(400)]
    scripts = ["caf\u00e9", "na\u00efve", "stra\u00dfe", "\u043c\u0438\u0440", "\u043f\u0440\u0438\u0432\u0435\u0442",
               "\u4f60\u597d", "\u4e16\u754c\u4f60", "\u3053\u3093", "\U0001f600", "12", "1999", "3.14", "don't",
               "they're", "we'll", "'tis", "x'LL", "\u0663\u0664", "a\u0301b", "--", "...", "\u00bd", "\u2167"]
    gaps = [" "] * 9 + [", ", ". ", "\n", "\n\n", "  ", "\t", "\u00a0", "\u3000", " (", ") "]
    yield "words", made_up(rng, lexicon, gaps, 9000), 900, []
    yield "scripts", made_up(rng, scripts + lexicon[:30], gaps, 5000), 500, []
    yield "few letters", "".join(rng.choice("aab ") for _ in range(3000)), 420, []
    yield "one letter", " ".join("a" * rng.randint(1, 40) for _ in range(60)), 300, []
    yield "runs", "".join(rng.choice("abc") * rng.randint(1, 9) for _ in range(500)), 600, []
    yield "special tokens", made_up(rng, lexicon[:80], gaps, 4000, "<|end of|>"), 500, ["<|end of|>", "<|end", "na ti"]
    yield "nothing", "", 300, []


if __name__ == "__main__":
    if len(sys.argv) > 1:
        with open(sys.argv[1], encoding="utf-8", newline="") as f:
            for left, right, _ in learn(f.read(), int(sys.argv[2])):
                print(json.dumps([left, right]))
    else:
        out = []
        for name, text, vocab, specials in cases():
            merges = learn(text, vocab, specials)
            assert len(merges) == len({m[2] for m in merges})
            print("%s: %d merges" % (name, len(merges)))
            out.append(json.dumps({"name": name, "text": text, "vocab": vocab, "specials": specials,
                                   "merges": [x for m in merges for x in m]}, ensure_ascii=False))
        here = os.path.dirname(os.path.abspath(__file__))
        with open(os.path.join(here, "bpe_golden.json"), "w", encoding="utf-8", newline="") as f:
            f.write("[" + ",\n".join(out) + "]\n")
