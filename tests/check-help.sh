#!/bin/sh
# What --help tells and what the man page tells are the same options, both ways,
# for every program. ctsctl's commands each have a help of their own; its page,
# its help and its completion name the same commands, too.
src=${CTS_SRCDIR:-.} build=${CTS_BUILDDIR:-.}
work=$(mktemp -d "${TMPDIR:-/tmp}/cts-test.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
bad=0

# Options at the heads of help's lines: "  -c, --config FILE   text".
options_of_help() {
    sed -nE 's/^ *(-[^ ,]+(, -[^ ,]+)*).*/\1/p' | tr ', ' '\n\n' | sed -E 's/[=[].*//' | grep '^-' | sort -u
}

# Options that a page explains: ".It Fl c , Fl -config Ar FILE".
options_of_page() {
    sed -nE 's/^\.It (Fl .*)/\1/p' "$1" | grep -oE 'Fl -?[A-Za-z0-9][A-Za-z0-9-]*' | sed 's/^Fl /-/' | sort -u
}

compare() { # what, file of the left side, its name, file of the right side, its name
    only=$(comm -23 "$2" "$4")
    [ -z "$only" ] || { echo "$1: only in $3:" $only; bad=1; }
    only=$(comm -13 "$2" "$4")
    [ -z "$only" ] || { echo "$1: only in $5:" $only; bad=1; }
}

check_program() { # program, page; further words are commands with a help of their own
    program=$1 page=$2; shift 2
    [ -x "$build/$program" ] || { echo "$program is not built"; bad=1; return; }
    [ -e "$src/man/$page" ] || { echo "$page does not exist"; bad=1; return; }
    { "$build/$program" --help; for command; do "$build/$program" "$command" --help; done; } >"$work/out" ||
        { echo "$program --help fails"; bad=1; }
    options_of_help <"$work/out" >"$work/help"
    options_of_page "$src/man/$page" >"$work/page"
    [ -s "$work/help" ] || { echo "$program --help names no option"; bad=1; }
    compare "$program" "$work/help" --help "$work/page" "$page"
}

commands=$("$build/ctsctl" --help | sed -nE 's/^  ([a-z]+)( .*|$)/\1/p')
check_program ctsctl ctsctl.1 $commands
check_program ctsd ctsd.8
check_program cts-compress cts-compress.1

printf '%s\n' $commands | sort -u >"$work/commands"
sed -nE 's/^\.It Cm ([a-z]+).*/\1/p' "$src/man/ctsctl.1" | sort -u >"$work/page"
compare 'commands of ctsctl' "$work/commands" --help "$work/page" ctsctl.1

# The completion's tables: "run) options='--base --chat'" and "commands='...'".
completion=$src/contrib/completions/ctsctl.bash
sed -nE "s/^ *local commands='(.*)'/\1/p" "$completion" | tr ' ' '\n' | sort -u >"$work/words"
compare 'commands of ctsctl' "$work/commands" --help "$work/words" ctsctl.bash
for command in $commands; do
    "$build/ctsctl" "$command" --help | options_of_help | grep -v '^-h$' >"$work/help"
    { sed -nE "s/^ *global='(.*)'/\1/p" "$completion"; sed -nE "s/^ *$command\) options='(.*)' ;;/\1/p" "$completion"; } |
        tr ' ' '\n' | grep . | sort -u >"$work/words"
    compare "ctsctl $command" "$work/help" --help "$work/words" ctsctl.bash
done
exit $bad
