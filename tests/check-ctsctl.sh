#!/bin/sh
# ctsctl's command line and its messages where no daemon is needed, or none is
# there. What it does with one is in tests/system.
ctsctl=${CTS_BUILDDIR:-.}/ctsctl
work=$(mktemp -d "${TMPDIR:-/tmp}/cts-test.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
export CTS_SOCKET="$work/none"
bad=0

expect() { # status, a pattern that stderr and stdout together have, then the arguments
    status=$1 pattern=$2; shift 2
    "$ctsctl" "$@" >"$work/out" 2>&1 </dev/null
    rc=$?
    [ $rc -eq "$status" ] || { echo "ctsctl $*: exit status $rc, not $status"; bad=1; }
    grep -qE -- "$pattern" "$work/out" || { echo "ctsctl $*: '$pattern' is not in:"; cat "$work/out"; bad=1; }
}

expect 2 'a command is needed'
expect 2 "no command 'frob'" frob
expect 2 "unknown option '--frob'" ls --frob
expect 2 "unknown option '-x'" -x ls
expect 2 "unknown option '--table'" ls --table
expect 2 '--json takes no value' ls --json=yes
expect 2 '--socket needs its PATH' ls --socket
expect 2 'show needs NAME' show
expect 2 "too many arguments: 'b'" show a b
expect 2 "too many arguments: '--json'" show a -- --json
expect 2 '--top-k takes a whole number.*many' run a b --top-k many
expect 2 '--top-p takes a number.*2' run a b --top-p=2
expect 2 '--max-tokens takes' run a b --max-tokens 0
expect 2 'exclude each other' run a b --raw --chat
expect 2 'run needs the NAME' run
expect 2 'only argument is PROMPT' run --base a b
expect 2 '--concurrency takes' eval x --concurrency 5000
expect 2 "no command 'frob'" help frob
expect 0 'usage: ctsctl \[OPTION' --help
expect 0 'usage: ctsctl run' run -h
expect 0 'usage: ctsctl run' help run
expect 0 '"commands":\[\{"name":"status"' help --json
expect 0 '^ctsctl [0-9]' version
expect 0 '"server":null' version --json

# Without a daemon: which socket was tried, and what to do.
for command in status ls 'show a' 'load /tmp' 'unload a' stop 'run a b' 'run --raw a b'; do
    expect 1 "no ctsd answers at '$work/none'.*--socket or CTS_SOCKET" $command
done
expect 3 "no ctsd answers at '$work/none'" health
expect 1 "no ctsd answers at '$work/other'" ls --socket "$work/other"
expect 1 '^\{"error":\{"code":"ENOENT","message":"no ctsd' ls --json
expect 1 "'/nonexistent'" load /nonexistent
expect 1 "open '/nonexistent'" eval /nonexistent
printf '{"input": "x", "outputs": {"a": "y"}}\n' >"$work/q"
expect 1 "no question for adapter 'b'" eval "$work/q" --adapters a,b
expect 1 "no ctsd answers at '$work/none'" eval "$work/q"
printf 'a\0b' >"$work/zero"
"$ctsctl" run --raw a - <"$work/zero" 2>&1 | grep -q 'zero byte' || { echo 'a zero byte in the prompt is not told'; bad=1; }
exit $bad
