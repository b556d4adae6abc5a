#!/usr/bin/env python3
"""Write tests/golden/char_classes.jsonl: what Hugging Face's tokenizers take each
character for, found out by letting GPT-2's pattern cut it from a neighbour.

    pip install tokenizers
    tests/golden/make_char_classes.py > tests/golden/char_classes.jsonl

The first line says what made the file, the second holds [first, last, class] of
every run of letters (1), numbers (2) and white space (3)."""
import json

import tokenizers

split = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True).pre_tokenize_str


def class_of(cp):
    for cls, neighbour in ((1, "a"), (2, "1"), (0, "!")):
        if len(split(neighbour + chr(cp))) == 1:
            return cls
    return 3


runs = []
for cp in range(0x110000):
    cls = 0 if 0xD800 <= cp < 0xE000 else class_of(cp)
    if cls == 0:
        continue
    if runs and runs[-1][1] == cp - 1 and runs[-1][2] == cls:
        runs[-1][1] = cp
    else:
        runs.append([cp, cp, cls])
print(json.dumps({"made_with": {"script": "tests/golden/make_char_classes.py", "tokenizers": tokenizers.__version__}}))
print(json.dumps(runs, separators=(",", ":")))
