#!/bin/sh
# run.sh - runs tests and adds them up; the Makefile calls it.
#
#   run.sh one LOG COMMAND…   runs a test into LOG and prints its failures, skips and last line,
#                             which must be "name: N passed, M failed"; a crash is a failure
#   run.sh total RUN…         sums the last lines of RUN.log, prints "N passed, M failed"
#
# A test is ended after ORL_TEST_TIMEOUT seconds (900), where there is a timeout command.

one() {
    log=$1
    shift
    name=$(basename "$log" .log)
    case $log in */asan/* | */tsan/* | */cross/*) name=$(basename "$(dirname "$log")")/$name ;; esac
    mkdir -p "$(dirname "$log")"
    limit=
    command -v timeout >/dev/null 2>&1 && limit="timeout ${ORL_TEST_TIMEOUT:-900}"
    started=$(date +%s)
    $limit "$@" >"$log" 2>&1 </dev/null
    status=$?
    seconds=$(($(date +%s) - started))
    if ! tail -n 1 "$log" | grep -Eq '^[^ ]+: [0-9]+ passed, [0-9]+ failed$'; then
        [ $status -eq 124 ] && why="ended after ${ORL_TEST_TIMEOUT:-900} seconds" || why="ended early, status $status"
        grep -v '^skipped' "$log" | tail -n 25
        printf '\n%s: %s\n%s: 0 passed, 1 failed\n' "$name" "$why" "$name" >>"$log"
        echo "$name: $why"
    elif [ $status -ne 0 ] || grep -q 'failed:' "$log"; then
        grep -v '^skipped' "$log" | sed '$d' | head -n 60
        if tail -n 1 "$log" | grep -q ' 0 failed$'; then # all checks held, but it did not exit well: a leak, say
            printf '\n%s: exit status %s\n%s: 0 passed, 1 failed\n' "$name" "$status" "$name" >>"$log"
        fi
    fi
    grep '^skipped' "$log"
    echo "$(tail -n 1 "$log" | sed "s|^[^ ]*:|$name:|") ($seconds s)"
}

total() {
    passed=0
    failed=0
    for run; do
        if [ -f "$run.log" ]; then
            numbers=$(tail -n 1 "$run.log" | sed 's/.*: \([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/')
        else
            echo "$run: did not compile"
            numbers='0 1'
        fi
        passed=$((passed + ${numbers% *}))
        failed=$((failed + ${numbers#* }))
    done
    echo "$passed passed, $failed failed"
    [ $failed -eq 0 ] && [ $passed -gt 0 ]
}

mode=$1
shift
case $mode in
one) one "$@" || exit 0 ;; # the total decides
total) total "$@" ;;
esac
