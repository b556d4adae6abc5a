#!/usr/bin/env python3
"""Write tests/golden/tokenizer.jsonl: token ids by Hugging Face's tokenizers.

    pip install tokenizers
    tests/golden/make_tokenizer.py contrib/demo/base/tokenizer.json > tests/golden/tokenizer.jsonl

The first line says what made the file. Then one line per variant of the demo's
tokenizer and text: the ids with control tokens taken as text ("plain") and, where
they differ, the ids with control tokens recognised ("parsed"). The variants are
the keys of VARIANTS; tests/test_tokenizer.c makes the same changes."""
import copy
import json
import random
import sys

import tokenizers

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def sequence(*members):
    return {"type": "Sequence", "pretokenizers": list(members)}


VARIANTS = {
    "demo": lambda t: None,
    "regex": lambda t: t.update(pre_tokenizer=BYTE_LEVEL),
    "runs": lambda t: t.update(pre_tokenizer=sequence({"type": "Digits", "individual_digits": False}, BYTE_LEVEL)),
    "whole": lambda t: t.update(pre_tokenizer={**BYTE_LEVEL, "use_regex": False}),
    "ignore": lambda t: t["model"].update(ignore_merges=True),
    "legacy": lambda t: t["model"].update(merges=[" ".join(m) for m in t["model"]["merges"]]),
}

FIXED = [
    "", " ", "  ", "   x", "x   ", "\n", "\r\n", "a\n\n\nb", "a \n \n b", "\t\tcode", "x\t y", " \t\n\r\v\f mix",
    "Hello, world!", "hello world", "HELLO", "don't I'm we've they'll you'd it's we're", "'s't're've'm'll'd", "'S'T'RE",
    "x's 's ''s '", "rock'n'roll", "l'été d'août", "1234567890", "3.14159", "12 34", "v1.2.3", "a1b2c3", " 5 ", "5  6",
    "a" * 200, "ab" * 100, " " * 50, "\n" * 20, "!" * 40, "-" * 33, "0" * 30, "aA" * 20, "é" * 30,
    "ünïcödé straße ÆØÅ", "naïve café", "Привет, мир", "Γειά σου Κόσμε", "שלום עולם", "مرحبا بالعالم", "你好,世界",
    "こんにちは世界", "안녕하세요 세계", "नमस्ते दुनिया", "สวัสดีชาวโลก", "ሰላም ልዑል", "🙂", "👩‍👩‍👧‍👦 family", "🇩🇪🇫🇷", "👍🏽 ok",
    "e\u0301 a\u0308 n\u0303", "a\u0300\u0301\u0302b", "\u0301x", "١٢٣٤", "१२३", "๑๒๓", "²³¹ ½ ¾", "ⅣⅫ ④⑤", "𝟘𝟙𝟚", "〇一二",
    "\u00a0nbsp\u00a0x", "a\u2003b\u2009c", "\u3000全角", "x\u2028y\u2029z", "a\u0085b", "\u1680x", "\u202fx", "\u205fx",
    "zero\u200bwidth", "\ufeffbom", "soft\u00adhyphen", "\u180emongol", "\u001c\u001d\u001e\u001f", "nul\u0001\u0002", "\u007f\u0080\u009f",
    "ª º µ ſ ﬁ", "\u01c5 ʰ ˈ", "İıŞş", "\U00010400\U00010428", "\U0001d400x", "\U0001f9d1\u200d\U0001f680", "\ufffd", "\U0010ffff", "\ue000",
    "<|im_end|>", "<|im_start|>user\nhi<|im_end|>\n", "a<|im_end|>b", "<|im_end|", "<|im_end|><|im_end|>", " <|im_end|> ",
    "<|im_<|im_end|>", "<|endoftext|>x", "<<|im_start|>>", "<|IM_END|>", "|im_end|>", "é<|im_start|>é", "12<|im_end|>34",
    "def f(x):\n    return x ** 2  # square\n", "#include <stdio.h>\nint main(void) { return 0; }", "SELECT * FROM t WHERE a='b';",
    "{\"k\": [1, 2.5, null, true]}", "https://example.org/a?b=c&d=%20", "a@b.c", "/usr/lib/x86_64-linux-gnu", "C:\\dir\\f.txt",
    "$100.00 + €50 = £?", "(a[b]{c}<d>)", "...---...", "a_b-c.d", "x=y==z!=w", "\"quoted\" `tick` ‘curly’ “double”", "—–-",
]

# Characters to mix: of every class, and neighbours of class borders.
POOLS = [
    "abcdefghijklmnopqrstuvwxyz", "ABCXYZ", "0123456789", "     ", "\n\r\t", "'", "'", "!?.,;:-_()[]{}<>|/\\\"#$%&*+=@^`~",
    "äöüßéèçñ", "αβγδ", "жщы", "漢字語", "ひカ", "각", "٣४๗", "²½Ⅷ", "\u00a0\u2003\u3000\u2028\u0085", "\u0301\u0308\u200d", "🙂🚀👩",
]


def mixed(rng):
    n = rng.choice([1, 2, 3, 5, 8, 13, 21, 40])
    out = []
    while len(out) < n:
        pool = rng.choice(POOLS)
        out += [rng.choice(pool) for _ in range(rng.choice([1, 1, 2, 3]))]
        if rng.random() < 0.03:
            out.append(rng.choice(["<|im_start|>", "<|im_end|>", "'ll", "'re ", "  \n", "<|"]))
    return "".join(out)


def main():
    base = json.load(open(sys.argv[1], encoding="utf-8"))
    rng = random.Random(7)
    random_texts = [mixed(rng) for _ in range(260)]
    print(json.dumps({"made_with": {"script": "tests/golden/make_tokenizer.py", "tokenizers": tokenizers.__version__, "seed": 7}}))
    for name, change in VARIANTS.items():
        doc = copy.deepcopy(base)
        change(doc)
        tok = tokenizers.Tokenizer.from_str(json.dumps(doc))
        for text in FIXED + (random_texts if name == "demo" else random_texts[:80]):
            tok.encode_special_tokens = False
            parsed = tok.encode(text, add_special_tokens=False).ids
            tok.encode_special_tokens = True
            plain = tok.encode(text, add_special_tokens=False).ids
            line = {"variant": name, "text": text, "plain": plain}
            if parsed != plain:
                line["parsed"] = parsed
            print(json.dumps(line))


main()
