# only: release
# Completion and manual pages say what --help says, since they come from the same tables.
. "$(dirname "$0")/lib.bash"
cd "$work" || exit 1
check "completion is a script" bash -c "'$skald' completion bash >skald.bash && bash -n skald.bash"
. ./skald.bash
touch data.h5 model.h5

# completed EXPECTED WORD...: what the last word becomes
completed() {
    local expected=$1
    shift
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
    _skald
    check "$* -> $expected" test "${COMPREPLY[*]}" = "$expected"
}
completed "train" skald tr
completed "simulate" skald help si
completed "--loss= --local= --log=" skald train --lo
completed "squared squared-hinge softmax" skald train --loss s
completed "auto" skald train --algo a
completed "auto cores" skald train --workers ""
completed "squared squared-hinge softmax" skald train --loss = s
completed "off on auto" skald train --theta 1 --local = ""
completed "async" skald coordinator --mode a
completed "auto" skald train --workers aut
completed "yes" skald train --intercept = y
completed "--no-intercept" skald train --no-i
completed "data.h5" skald train --intercept d
completed "model.h5" skald train --model m
completed "data.h5" skald train --model = x --quiet da
completed "--json" skald status --j
completed "" skald train --seed d

# --- the ways to write a flag's value ---
config() { "$skald" train "$@" --dump-config 2>/dev/null | awk '$1 == "--intercept" {print $2}'; }
check "a constant unless told otherwise" test "$(config)" = yes
for off in --no-intercept --intercept=no "--intercept off" --inter=off; do
    check "$off" test "$(config $off)" != yes
done
check "--intercept on" test "$(config --no-intercept --intercept on)" = on
check "--intercept before the data" test "$(config --intercept data.h5)" = yes
check "a value that only looks so" test "$(config --log --no-intercept)" = yes

# --- every option of every --help ---
"$skald" help --man=man
for command in $("$skald" --help | sed -n 's/^  \([a-z-]*\)  .*/\1/p'); do
    options=$("$skald" help "$command" | grep -oE '^ +(-., )?--[a-z0-9-]+' | grep -oE -- '--[a-z0-9-]+' | grep -vE -- '--(help|usage|dump-config)$')
    [ "$command" = train ] && check "train has options ($(wc -w <<<"$options"))" test "$(wc -w <<<"$options")" -gt 40
    page=$(sed 's/\\-/-/g; s/\\f[A-Z]//g' "man/skald-$command.1")
    missing=""
    for option in $options; do
        grep -qE -- "^$option(=|\[)" <<<"$page" || missing+=" $option(man)"
        COMP_WORDS=(skald "$command" "$option") COMP_CWORD=2 COMPREPLY=()
        _skald
        [[ " ${COMPREPLY[*]} " == *" $option"[=\ ]* ]] || missing+=" $option(completion)"
    done
    check "$command: manual and completion are whole$missing" test -z "$missing"
    [ "$command" = version ] || check "$command: examples" grep -qE '^ +.*skald ' <<<"$("$skald" help "$command")"
done
if command -v groff >/dev/null; then
    check "the pages are good roff" bash -c '[ "$(ls man | wc -l)" -ge 17 ] && for p in man/*.1; do groff -man -ww -Tascii $p; done 2>&1 >/dev/null | (! grep .)'
else
    echo "SKIP groff is not installed"
fi
expect "one page" 0 '.TH "SKALD\-TOP" 1' "$skald" help --man top
expect "no such page" 2 "did you mean train" "$skald" help --man trian
expect "no such folder" 1 "cannot make the folder" "$skald" help --man=/proc/none/man
expect "no such shell" 2 "no completion for 'fish'" "$skald" completion fish
finish
