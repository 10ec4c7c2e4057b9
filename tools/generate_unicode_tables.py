#!/usr/bin/env python3
"""Writes src/text/unicode_tables.cpp: what the Hugging Face `tokenizers` library knows of Unicode.

Three versions of Unicode live in that library: its regular expressions (Oniguruma), the word
boundaries of added tokens (Rust's regex crate) and its normaliser, which is years older. So the
library itself is asked about every code point; a recent Unicode database only proposes candidates
for decompositions and combining classes.

    pip install tokenizers unicodedata2
    python3 tools/generate_unicode_tables.py
"""
import pathlib

import tokenizers
import unicodedata2 as unicode
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

LETTER, NUMBER, MARK, SPACE, WORD, NFC_COMPLEX = 1, 2, 4, 8, 16, 32
BLOCK = 128
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
nfc = normalizers.NFC().normalize_str


def matching(expression):
    """The code points that `expression` matches in the library's regular expressions."""
    remove = pre_tokenizers.Split(Regex(expression), "removed")
    found = set()
    for start in range(0, len(CODE_POINTS), 4096):
        chunk = CODE_POINTS[start:start + 4096]
        kept = "".join(piece for piece, _ in remove.pre_tokenize_str("".join(map(chr, chunk))))
        found |= set(chunk) - set(map(ord, kept))
    return found


def word_characters():
    """The code points that hinder a single_word token beside them."""
    tokenizer = Tokenizer(models.BPE(vocab={}, merges=[]))
    tokenizer.add_tokens([AddedToken("xyz", single_word=True, normalized=False)])
    encoded = tokenizer.encode_batch(["xyz" + chr(c) for c in CODE_POINTS])
    return {c for c, e in zip(CODE_POINTS, encoded) if not e.ids}


def combining_classes():
    classes = {}
    for c in CODE_POINTS:
        value = unicode.combining(chr(c))
        # U+0334 has class 1, U+0345 class 240: a mark known to the library changes places with one.
        if value and (nfc("\u0345" + chr(c)) != "\u0345" + chr(c) if value < 240 else
                      nfc(chr(c) + "\u0334") != chr(c) + "\u0334"):
            classes[c] = value
    return classes


def decompositions():
    """Full canonical decompositions but for Hangul's, which are computed."""
    known = {}
    for c in CODE_POINTS:
        full = unicode.normalize("NFD", chr(c))
        if full == chr(c) or 0xAC00 <= c < 0xD7A4:
            continue
        if normalizers.NFD().normalize_str(chr(c)) == full:
            known[c] = [ord(x) for x in full]
    return known


def compositions(decomposed):
    pairs = []
    for c in decomposed:
        parts = unicode.decomposition(chr(c)).split()
        if len(parts) == 2:
            first, second = (int(p, 16) for p in parts)
            if nfc(chr(first) + chr(second)) == chr(c):
                pairs.append((first, second, c))
    return sorted(pairs)


def rows(items, per_line):
    lines = [", ".join(items[i:i + per_line]) for i in range(0, len(items), per_line)]
    return "".join(f"    {line},\n" for line in lines)


def main():
    letters, numbers, marks = (matching(r"\p{%s}" % name) for name in "LNM")
    spaces, words = matching(r"\s"), word_characters()
    combining, decomposed = combining_classes(), decompositions()
    composed = compositions(decomposed)
    # A code point that may not stand in NFC text as it is, or may join or pass the one before it.
    complex_ = set(combining) | {second for _, second, _ in composed}
    complex_ |= {c for c in decomposed if nfc(chr(c)) != chr(c)}
    complex_ |= set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))

    flags = bytearray(0x110000)
    for bit, members in ((LETTER, letters), (NUMBER, numbers), (MARK, marks), (SPACE, spaces),
                         (WORD, words), (NFC_COMPLEX, complex_)):
        for c in members:
            flags[c] |= bit
    blocks, index = {}, []
    for start in range(0, 0x110000, BLOCK):
        index.append(blocks.setdefault(bytes(flags[start:start + BLOCK]), len(blocks)))
    assert len(blocks) <= 256, len(blocks)

    pool, entries = [], []
    for c, parts in sorted(decomposed.items()):
        entries.append((c, len(pool), len(parts)))
        pool += parts
    ranges = []
    for c, value in sorted(combining.items()):
        if ranges and ranges[-1][1] == c - 1 and ranges[-1][2] == value:
            ranges[-1][1] = c
        else:
            ranges.append([c, c, value])

    out = f"""// Written by tools/generate_unicode_tables.py from tokenizers {tokenizers.__version__}; do not edit.
// clang-format off
#include "text/unicode_tables.h"

namespace qnext::unicode {{

const uint8_t class_index[{len(index)}] = {{
{rows([str(i) for i in index], 32)}}};

const uint8_t class_blocks[{len(blocks) * BLOCK}] = {{
{rows([str(b) for block in blocks for b in block], 32)}}};

const CombiningRange combining_ranges[] = {{
{rows(["{0x%x, 0x%x, %d}" % tuple(r) for r in ranges], 5)}}};
const size_t combining_range_count = std::size(combining_ranges);

const char32_t decomposition_pool[] = {{
{rows(["0x%x" % p for p in pool], 12)}}};
const Decomposition decompositions[] = {{
{rows(["{0x%x, %d, %d}" % e for e in entries], 6)}}};
const size_t decomposition_count = std::size(decompositions);

const Composition compositions[] = {{
{rows(["{0x%x, 0x%x, 0x%x}" % p for p in composed], 5)}}};
const size_t composition_count = std::size(compositions);

}}  // namespace qnext::unicode
"""
    target = pathlib.Path(__file__).parent.parent / "src/text/unicode_tables.cpp"
    target.write_text(out)
    print(f"letters {len(letters)}, numbers {len(numbers)}, marks {len(marks)}, spaces {len(spaces)}, "
          f"words {len(words)}, combining {len(combining)}, decompositions {len(entries)}, "
          f"compositions {len(composed)}, blocks {len(blocks)}")


if __name__ == "__main__":
    main()
