#!/usr/bin/env python3
"""Writes tests/data/tokenizer-hard-cases.json: awkward texts and what `tokenizers` gives for them.

    pip install tokenizers
    python3 tools/make_tokenizer_cases.py

Each group is a tokenizer, as changes to the tiny model's tokenizer.json or to Qwen3's, with cases.
Where the library shows an added token's content as byte-level text ("decoded"), the content itself
is recorded: see Tokenizer::decode.
"""
import copy
import json
import lzma
import pathlib
import random

from tokenizers import Tokenizer

root = pathlib.Path(__file__).parent.parent
QWEN3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
         r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN35 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|"
          r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")

TEXTS = [
    # White space before words, digits, punctuation and the end.
    "a  b", "a   ", "   a", "\t\ta", "a \t b", " 1", "  1", " !", "  !", " \u00e9", "\u3000\u3000x",
    "\u00a0a", "\u00a0\u00a0a", "\u2003 \u2003", "\x85a", "\u2028\u2029", "\u200b \u200b", "\u180ea",
    "\x1c\x1d\x1e\x1f a", "\x0b\x0ca", "\ufeffa",
    # Line breaks.
    "a\nb", "a \n b", "a\n\n\nb", "a \r\n \r\n b", "\n", " \n", "\n ", "\r\r\na", "!\n\n!", "! \n!",
    "!\r\n\r\na", "\t\n\t\n\t", "a\n ", "  \n  \n  x", "\n\u3000\n\u3000x",
    # Contractions, with the long s and quotes of other sorts.
    "'s", "'S", "it's", "IT'S", "'\u017f", "it'\u017f'", "'re're", "'rE", "'r", "'ra", "'ll'l",
    "'LLama", "'ve'v", "'dd", "'t'T", "'M", "\u2019s", "''s", "!'s", " 's", "'", "''", "'\u00e9",
    # Letters, numbers and marks of many kinds.
    "abc123def", "\u0661\u0662\u0663", "\u00bd\u00b2\u2167\u2460", "x\u00b2y", "\u0e2a\u0e27\u0e31\u0e2a",
    "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0301a", "a\u0301b", " \u0301", "\u0301\u0301", "1\u0301",
    "!\u0301", "\n\u0301a", "\u20dd1", "\u2160\u2170", "\u3007\u4e00", "\uff11\uff21", "a_b", "a-b",
    "\u00aa\u00ba", "\u02b0\u02c2", "\U0001d400\U0001d7ce", "\U0001f600\U0001f1e8\U0001f1f3",
    "\U0001f468\u200d\U0001f469", "\ufe0f\u2764\ufe0f", "\U000e0001\U000e0100", "\U0010ffff\uffff",
    "\x00\x01", "\x7f",
    # Letters, numbers and marks that are young: Unicode 14, 15, 16 and later.
    "\u0870\u0898", "\u0c5d", "\U00011f00\U00011f02", "\U00011f50", "\u1c89\u1c8a", "\ua7cb\ua7da",
    "\U00010d40\U00010d4a", "\U000105c0", "\U00016d40\U00016d70", "\U00031350", "\U000323b0", "\ua7ce",
    "\u088f", "\U0001ccf0", "\u1acf\u1ad0",
    # Normalisation: composition, order of marks, exclusions, Hangul, marks younger than the library.
    "e\u0301", "E\u0323\u0302", "E\u0302\u0323", "\u1ec7", "q\u0307\u0323", "\u212b\u2126\u212a",
    "\u0958\u0929", "\u0928\u093c", "\u0344", "\u0308\u0301", "\u0f73\u0f75\u0f81", "\ufb1d\ufb2a",
    "\u2adc", "\U0001d15e", "\U0002f800", "\uf900\ufa0e", "\u1100\u1161", "\u1100\u1161\u11a8",
    "\uac00\u11a8", "\uac01\u11a8", "\u1100\u1175\u11a7", "\u1113\u1161", "\u3131\u314f", "\uac00\u1161",
    "\u09c7\u09be", "\u09c7\u0334\u09be", "\u0dd9\u0dcf\u0dca", "\u0dd9\u0dca\u0dcf", "\u1b05\u1b35",
    "\U00011099\U000110ba", "\U00011935\U00011930", "\U000105d2\u0307", "\U00011382\U000113c9",
    "a\u0345\u07fd", "a\u0345\u0898", "a\u0345\u1ac1", "a\u0315\u0300\u05ae\u0300b", "\u0340\u0341\u0343",
    "o\u0328\u0304 \u014d\u0328", "\u0041\u030a\u0301", "x" + "\u0316\u0301" * 40, "\u1e9b\u0323",
    "\u0300" * 30 + "a", "a\u034f\u0301", "a\u200d\u0301",
    # Added tokens in text.
    "<|im_start|>user\nHi<|im_end|>\n", "<|im_start|>", "<|im_start|><|im_end|>", "a<|im_end|>b",
    "  <|im_end|>  ", "'<|im_end|>s", "<|im_start", "<|<|im_end|>|>", "<|IM_END|>", "\u0301<|im_end|>\u0301",
    "e<|im_end|>\u0301", "\r<|im_end|>\n", "<tool_call>\n{}\n</tool_call>", "<think>\n\n</think>\n\n",
    "</think", "<think><think>",
    # Long words.
    "a" * 47, "a" * 48, "a" * 49, "a" * 300, "ab" * 100, "\u4f60\u597d" * 60, "the" * 40, "xyzzy" * 30,
    " " * 100, " " * 100 + "a", "\n" * 70, "\t" * 40 + "x", "-" * 99, "=-" * 60, "9" * 50,
    "aAbBcCdDeEfFgGhHiIjJkKlLmMnNoOpPqQrRsStTuUvVwWxXyYzZ", "\U0001f600" * 20, "\u0e01\u0e34" * 40,
]
FLAG_TEXTS = [
    "<a>", "x<a>y", "<a><a>", "x <b> y", "x  <b>\n\ny", "<b><b>", "<a>  <b>", "<b>  two", "<b>   two  ",
    "  two  two", "x  two", "word", " word ", "sword", "words", "word word", "word\u00e9", "\u00e9word",
    "word_", "word1", "word\u0301", "word\u200dx", "word-", "\u4e16\u754c", "x\u4e16\u754c", "!\u4e16\u754c!",
    "\u00e9!", "e\u0301!", " e\u0301! ", "e\u0301?", "\u00e9?", "x\u1100\u1161y", "\uac00", "<ab>", "x<ab>",
    "<ab><a", "<a>>", " <a>> x", "x<a>> ", "<a", "<a <a>", "\n\n", " \n\n ", "\n\n\n", "a\n\nb", "norm",
    " norm ", "anorm", "norm norm", "<a>\u0301", "\u3000<b>\u3000", "word\n\nword", "<b>\n\n<b>",
]


def tiny():
    return json.loads((root / "models/tiny-shakespeare/tokenizer.json").read_text())


def qwen3():
    packed = root / "tests/data/qwen3-tokenizer/tokenizer.json.xz"
    return json.loads(lzma.decompress(packed.read_bytes()))


def split(expression):
    step = copy.deepcopy(tiny()["pre_tokenizer"])
    step["pretokenizers"][0]["pattern"]["Regex"] = expression
    return step


def flagged(first_id):
    """Tokens with every flag: content, single_word, lstrip, rstrip, normalized, special."""
    rows = [("<a>", 0, 1, 0, 0, 0), ("<b>", 0, 0, 1, 0, 0), ("<ab>", 1, 0, 0, 0, 1),
            ("word", 1, 0, 0, 0, 1), ("\u00e9!", 0, 1, 1, 1, 0), ("e\u0301?", 0, 0, 0, 1, 0),
            ("  two", 0, 1, 1, 0, 0), ("<a", 0, 0, 0, 0, 0), ("<a>>", 1, 1, 1, 0, 1),
            ("\n\n", 0, 0, 0, 0, 0), ("\u4e16\u754c", 1, 0, 0, 0, 0), ("\u1100\u1161", 0, 0, 0, 1, 0),
            ("norm", 1, 1, 1, 1, 0)]
    keys = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return [{"id": first_id + i, "content": row[0], **dict(zip(keys, map(bool, row[1:])))}
            for i, row in enumerate(rows)]


def random_texts(seed, count):
    chooser = random.Random(seed)
    return ["".join(chooser.choices(TEXTS + FLAG_TEXTS, k=4)) for _ in range(count)]


def group(base, definition, changes, ignore_merges, texts):
    definition = {**definition, **changes}
    definition["model"]["ignore_merges"] = ignore_merges
    tokenizer = Tokenizer.from_str(json.dumps(definition))
    added = {t["id"]: t for t in definition["added_tokens"]}
    plain = Tokenizer.from_str(json.dumps({**definition, "added_tokens": []}))
    cases = []
    for text in texts:
        tokenizer.encode_special_tokens = False
        ids = tokenizer.encode(text).ids
        tokenizer.encode_special_tokens = True
        as_text = tokenizer.encode(text).ids
        decoded, run = "", []
        for token in ids + [None]:
            if token is not None and token not in added:
                run.append(token)
                continue
            decoded += plain.decode(run) if run else ""
            run = []
            if token is not None:
                content = added[token]["content"]
                nfc = added[token]["normalized"] and tokenizer.normalizer
                decoded += tokenizer.normalizer.normalize_str(content) if nfc else content
        cases.append({"text": text, "ids": ids, "ids_special_as_text": as_text, "decoded": decoded})
    return {"base": base, "changes": changes, "ignore_merges": ignore_merges, "cases": cases}


def main():
    added = tiny()["added_tokens"]
    flags = {"added_tokens": added + flagged(2048)}
    expected = json.loads((root / "models/tiny-shakespeare/expected.json").read_text())
    groups = [
        group("qwen3", qwen3(), {}, False, TEXTS),
        group("tiny", tiny(), {}, False, TEXTS + [e["greedy_text"] for e in expected]),
        group("tiny", tiny(), {"pre_tokenizer": split(QWEN35)}, False, TEXTS),
        group("tiny", tiny(), flags, False, FLAG_TEXTS + random_texts(1, 100)),
        group("tiny", tiny(), {**flags, "normalizer": None}, True, FLAG_TEXTS + random_texts(2, 100)),
    ]
    lines = []
    for g in groups:
        head = json.dumps({k: v for k, v in g.items() if k != "cases"})[:-1]
        lines.append(head + ', "cases": [\n' + ",\n".join(map(json.dumps, g["cases"])) + "\n]}")
    target = root / "tests/data/tokenizer-hard-cases.json"
    target.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(sum(len(g["cases"]) for g in groups), "cases,", target.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
