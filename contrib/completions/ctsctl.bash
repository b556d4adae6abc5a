# bash completion of ctsctl. tests/check-help.sh holds the two tables, of commands
# and of options, against ctsctl itself.

_ctsctl_names() {
    ctsctl ls --json 2>/dev/null | grep -oE '"name":"[^"]*"' | cut -d'"' -f4
}

_ctsctl() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command= n=0 i
    local commands='status health ls show run load unload eval stop version help'
    local options= global
    global='--socket --json --help'

    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        -*) ;;
        *) if [ -z "$command" ]; then command=${COMP_WORDS[i]}; else n=$((n + 1)); fi ;;
        esac
    done
    case $command in
    run) options='--base --chat --raw --system --max-tokens --temperature --top-k --top-p --seed --stop --logprobs' ;;
    load) options='--name' ;;
    eval) options='--adapters --suffix --limit --prompts --concurrency --max-tokens --table' ;;
    stop) options='--no-wait' ;;
    esac

    if [ "$prev" = --socket ] || { [ "$command" = eval ] && [ "$prev" = --json ]; }; then
        COMPREPLY=($(compgen -f -- "$cur"))
    elif [ "${cur:0:1}" = - ]; then
        COMPREPLY=($(compgen -W "$options $global" -- "$cur"))
    elif [ -z "$command" ] || { [ "$command" = help ] && [ $n -eq 0 ]; }; then
        COMPREPLY=($(compgen -W "$commands" -- "$cur"))
    else
        case $command in
        show | unload | run) [ $n -gt 0 ] || COMPREPLY=($(compgen -W "$(_ctsctl_names)" -- "$cur")) ;;
        load) COMPREPLY=($(compgen -d -- "$cur")) ;;
        eval) COMPREPLY=($(compgen -f -- "$cur")) ;;
        esac
    fi
}
complete -o filenames -F _ctsctl ctsctl
