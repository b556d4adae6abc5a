"""Compares goldens made anew with those in the tree.

    compare.py TREE_DIR NEW_DIR

Tokens must be equal, log-probabilities within 1e-3, compression errors within
0.1 % (the iteration's end depends on the machine's arithmetic). Exit 1 says where not."""
import json, sys

tree, new = sys.argv[1:]
bad = 0


def complain(*words):
    global bad
    bad += 1
    print(*words)


def lines(path):
    return [json.loads(line) for line in open(path, encoding="utf-8")]


a, b = lines(f"{tree}/golden.jsonl"), lines(f"{new}/golden.jsonl")
print("tree:", a[0]["made_with"], "new:", b[0]["made_with"])
if len(a) != len(b):
    complain("golden.jsonl:", len(a), "rows in the tree,", len(b), "new")
for x, y in zip(a[1:], b[1:]):
    who = (x["collection"], x["adapter"], x["user"])
    if who != (y["collection"], y["adapter"], y["user"]) or x["prompt_ids"] != y["prompt_ids"]:
        complain("another prompt:", who)
    elif x["tokens"] != y["tokens"]:
        complain("other tokens:", who)
    elif max((abs(p - q) for p, q in zip(x["logprobs"], y["logprobs"])), default=0) > 1e-3:
        complain("log-probabilities differ:", who)

a, b = json.load(open(f"{tree}/reference.json")), json.load(open(f"{new}/reference.json"))
new_settings = {(s["collection"], s["setting"]): s for s in b["settings"]}
for s in a["settings"]:
    key = (s["collection"], s["setting"])
    t = new_settings.get(key)
    if t is None:
        complain("reference.json: no setting", key)
        continue
    for name in ("error_mean", "error_energy"):
        if name in s and abs(s[name] - t[name]) > 1e-3 * s[name] + 1e-6:
            complain("reference.json:", key, name, s[name], t[name])
print(f"{len(lines(f'{tree}/golden.jsonl')) - 1} golden rows, {len(a['settings'])} settings, {bad} differences")
sys.exit(bad > 0)
