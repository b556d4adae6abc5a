#!/usr/bin/env python3
"""Compresses the demo with the reference's own assignment to clusters and holds
errors and answers against tests/golden/reference.json.

    answers.py [--build DIR] [--source DIR] [--own] [--json FILE] COLLECTION:SETTING[:FORMAT]...

SETTING is one of the reference's, full:R:K or svd:R; FORMAT f32 (default) or
bf16, of sigma and basis. --own fits the clusters ourselves. Bounds:
  errors, assignment given   total mean and energy 1.005 times the reference's, each adapter's mean 1.03 times
  errors, own assignment     total mean 1.01 times
  answers, float32           mean at least the reference's minus 1 point, each adapter's at least minus 3 of 64
bf16 rows are measured and printed; their answers are held to the same bounds.
Exit 1 names what breaks a bound."""
import argparse, json, os, subprocess, sys, tempfile, time

ap = argparse.ArgumentParser()
ap.add_argument("--build", default=os.environ.get("CTS_BUILDDIR", "."))
ap.add_argument("--source", default=os.environ.get("CTS_SRCDIR", "."))
ap.add_argument("--own", action="store_true")
ap.add_argument("--no-answers", action="store_true")
ap.add_argument("--json", default="")
ap.add_argument("setting", nargs="+")
a = ap.parse_args()
ref = json.load(open(f"{a.source}/tests/golden/reference.json"))
names = ref["adapters"]
settings = {(s["collection"], s["setting"]): s for s in ref["settings"]}
bad, rows = [], []


def tool(name, *args, **kw):
    return subprocess.run([f"{a.build}/{name}", *args], check=True, stdout=subprocess.DEVNULL, **kw)


def compress(work, coll, kind, rank, k, fmt, s):
    args = ["--rank", rank, "--format", fmt, "--basis-format", fmt, "--json", f"{work}/compress.json"]
    if kind == "svd":
        args += ["--method", "svd"]
    elif a.own:
        args += ["--clusters", k]
    elif k != "1":
        json.dump(dict(zip(names, s["assignment"])), open(f"{work}/assign.json", "w"))
        args += ["--assign", f"{work}/assign.json"]
    t = time.time()
    demo = f"{a.source}/contrib/demo"
    tool("cts-compress", f"{demo}/base", f"{demo}/adapters/{coll}", "-o", f"{work}/collection", *args)
    return json.load(open(f"{work}/compress.json")), time.time() - t


def answers(work):
    sock = f"{work}/s"
    env = dict(os.environ, CTS_SOCKET=sock)
    daemon = subprocess.Popen([f"{a.build}/ctsd", "--set", f"model.path={a.source}/contrib/demo/base", "--set",
                               f"collection.path={work}/collection", "--set", f"listen.socket={sock}"],
                              stderr=open(f"{work}/log", "w"))
    try:
        # A client that connects while the model loads waits in the socket's backlog.
        while not os.path.exists(sock):
            if daemon.poll() is not None:
                sys.exit(f"ctsd ended: {open(f'{work}/log').read()}")
            time.sleep(0.01)
        tool("ctsctl", "eval", f"{a.source}/contrib/demo/tasks.jsonl", "--json", f"{work}/eval.json", env=env)
        tool("ctsctl", "stop", env=env)
        if daemon.wait(30) != 0:
            sys.exit(f"ctsd failed: {open(f'{work}/log').read()}")
    finally:
        if daemon.poll() is None:
            daemon.kill()
    return json.load(open(f"{work}/eval.json"))


def hold(what, value, bound):
    if not value <= bound:
        bad.append(f"{what}: {value:.6f} is above {bound:.6f}")


def run(spec):
    coll, kind, rank, *rest = spec.split(":")
    fmt = rest.pop() if rest and rest[-1] in ("f32", "bf16") else "f32"
    k = rest[0] if rest else "1"
    s = settings[(coll, f"{kind}:{rank}" + (f":{k}" if kind == "full" else ""))]
    with tempfile.TemporaryDirectory(prefix="cts-answers.") as work:
        report, seconds = compress(work, coll, kind, rank, k, fmt, s)
        own = {x["name"]: x for x in report["adapters"]}
        # The reference rounds to 1e-6; a cluster whose rank suffices has an error of 0.
        worst = max(own[n]["error_mean"] / max(e, 1e-4) for n, e in zip(names, s["error_mean_per_adapter"]))
        given = not a.own or k == "1"
        if fmt == "f32":
            hold(f"{spec} error mean", report["error_mean"], s["error_mean"] * (1.005 if given else 1.01) + 1e-6)
            if given:
                hold(f"{spec} error energy", report["error_energy"], s["error_energy"] * 1.005 + 1e-6)
                hold(f"{spec} worst adapter's error over the reference's", worst, 1.03)
        row = {"setting": spec, "assignment": "own" if a.own and k != "1" else "given", "seconds": round(seconds, 2),
               "error_mean": report["error_mean"], "reference_error_mean": s["error_mean"],
               "error_energy": report["error_energy"], "reference_error_energy": s["error_energy"],
               "worst_adapter_ratio": worst, "bytes": report["bytes"]["total"]}
        if not a.no_answers:
            e = answers(work)
            right = {x["adapter"]: x["right"] / x["total"] for x in e["adapters"]}
            hold(f"{spec} right answers below the reference's", s["right_mean"] - e["mean"], 0.01)
            for n, r in zip(names, s["right"]):
                if given:
                    hold(f"{spec} {n}: right answers below the reference's", r - right[n], 3 / 64 + 1e-4)
            row |= {"right_mean": e["mean"], "reference_right_mean": s["right_mean"], "right_min": e["worst"],
                    "reference_right_min": s["right_min"], "tokens_per_second": e["tokens_per_second"]}
        rows.append(row)
        print(f"{spec:26s} {row['assignment']:6s} mean {row['error_mean']:.6f} ({s['error_mean']:.6f}) energy {row['error_energy']:.6f} "
              f"({s['error_energy']:.6f}) worst {worst:.4f}" +
              ("" if a.no_answers else f" right {row['right_mean']:.4f} ({s['right_mean']:.4f}) min {row['right_min']:.3f} ({s['right_min']:.3f})") +
              f" {seconds:.1f} s", flush=True)


for spec in a.setting:
    run(spec)
if a.json:
    json.dump(rows, open(a.json, "w"), indent=1)
for b in bad:
    print("FAILED", b)
sys.exit(bool(bad))
