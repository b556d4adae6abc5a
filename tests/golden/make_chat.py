#!/usr/bin/env python3
"""Write tests/golden/chat.jsonl: conversations rendered by jinja2 as transformers
renders them, and their token ids by Hugging Face's tokenizers.

    pip install tokenizers jinja2
    tests/golden/make_chat.py contrib/demo/base > tests/golden/chat.jsonl

The first line says what made the file, then follow {"template", "messages", "ids"}.
No text spells a control token here: there we differ on purpose."""
import json
import random
import sys

import jinja2
import tokenizers
from jinja2.sandbox import ImmutableSandboxedEnvironment

base = sys.argv[1]
tok = tokenizers.Tokenizer.from_file(base + "/tokenizer.json")
plain = json.load(open(base + "/tokenizer_config.json", encoding="utf-8"))["chat_template"]
first = "{% for message in messages %}"
assert plain.startswith(first)


def with_system(words):
    return (first + "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n" + words
            + "<|im_end|>\n' }}{% endif %}" + plain[len(first):])


TEMPLATES = [
    plain,
    plain.replace("\n", "\\n") + "\n",
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}" + plain,
    with_system("You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
    with_system("You are a helpful assistant.").replace("\n", "\\n"),
    with_system(""),
]

WORDS = ["hello", "world", "  two", "\n", "\n\n", " ", "don't", "3.14", "naïve", "漢字", "🙂", "x_y", "<|", "|>", "\t", "'s", "Ünï"]


def conversation(rng):
    roles = rng.choice([["user"], ["system", "user"], ["user", "assistant", "user"], ["system", "user", "assistant", "user"],
                        ["user", "assistant", "tool"], ["assistant"], []])
    return [{"role": r, "content": "".join(rng.choice(WORDS) for _ in range(rng.choice([0, 1, 2, 6, 15])))} for r in roles]


rng = random.Random(5)
env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
print(json.dumps({"made_with": {"script": "tests/golden/make_chat.py", "tokenizers": tokenizers.__version__,
                                "jinja2": jinja2.__version__, "seed": 5}}))
for template in TEMPLATES:
    for _ in range(40):
        messages = conversation(rng)
        text = env.from_string(template).render(messages=messages, add_generation_prompt=True)
        ids = tok.encode(text, add_special_tokens=False).ids
        print(json.dumps({"template": template, "messages": messages, "ids": ids}))
