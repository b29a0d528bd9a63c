#!/bin/sh
# test_compile.sh - the header compiles without a warning wherever it promises to, and keeps to its
# namespace and its layers. Each case is a command that must succeed and print nothing.
#
#   sh tests/test_compile.sh            all of it, JOBS cases at a time; CC is left out of the choice:
#                                       gcc and clang are used where found, and named where missing
# Output: a line for each failing case, then "test_compile: N passed, M failed".

cd "$(dirname "$0")/.." || exit 1
root=$PWD
JOBS=${JOBS:-2}
dir=build/matrix
rm -rf $dir
mkdir -p $dir || exit 1

# ---- checks that cases call, as `sh test_compile.sh check NAME …` would ----

cat >$dir/checks.sh <<'EOF'
# external symbols an object defines: orl_… only
symbols() {
    nm -g --defined-only "$1" >"$1.symbols" || return 1
    awk '{print $NF}' "$1.symbols" | sed 's/^_\(orl_\)/\1/' | grep -v -e '^orl_' -e '^_*main$' | sed 's/^/external symbol outside orl_: /'
}
none_defined() { nm -g --defined-only "$1" | grep -i ' orl_' | sed 's/^/external symbol under ORL_STATIC: /'; return 0; }
# section k and those above it call nothing public that stands below
upward() { nm -u "$1" | grep -o 'orl_[a-z_0-9]*' | sed "s/^/section $2 or above calls what stands below: /"; return 0; }
# the names of the macros that the lines of file $2 define and those of file $1 do not
new_macros() { sort "$1" >"$1.s"; sort "$2" | comm -13 "$1.s" - | awk '{print $2}' | sed 's/(.*//' ; }
EOF

count=0
add() { # add LABEL COMMAND: a case
    count=$((count + 1))
    printf '%s\n' "$1" >$dir/$count.label
    printf '. %s/checks.sh\n%s\n' "$dir" "$2" >$dir/$count.sh
}

# ---- sources ----

printf '#define OFFLINE_RLHF_IMPLEMENTATION\n#include "offline_rlhf.h"\nint main(void) { return 0; }\n' >$dir/impl.c
printf '#include "offline_rlhf.h"\n#include "offline_rlhf.h"\nint main(void) { return orl_failed(NULL) ? 0 : 1; }\n' >$dir/decl.c
{
    printf '#include "offline_rlhf.h"\n#define OFFLINE_RLHF_IMPLEMENTATION\n#include "offline_rlhf.h"\n'
    printf '#include "offline_rlhf.h"\nint main(void) { return orl_failed(NULL) ? 0 : 1; }\n'
} >$dir/twice.c
printf '#include <stdio.h>\n' >$dir/stdio_first.c
cat $dir/impl.c >>$dir/stdio_first.c
printf '#include <stddef.h>\n#include <stdint.h>\n' >$dir/libc.c
printf '#include "offline_rlhf.h"\n' >$dir/api.c
for f in impl decl twice; do cp $dir/$f.c $dir/$f.cpp; done

# ---- the matrix ----

both='-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wundef -Wcast-qual -Wvla -Wdouble-promotion'
c_only='-Wstrict-prototypes -Wmissing-prototypes'
skipped=0
found_c= found_cxx=
for cc in gcc clang; do
    if command -v $cc >/dev/null 2>&1; then found_c="$found_c $cc"; else echo "skipped: $cc is not installed: its half of the C matrix"; fi
done
for cc in g++ clang++; do
    if command -v $cc >/dev/null 2>&1; then found_cxx="$found_cxx $cc"; else echo "skipped: $cc is not installed: its half of the C++ matrix"; fi
done
if [ -z "$found_c" ]; then found_c=${CC:-cc}; fi

# The slow ones first. Some warnings appear only where the optimiser looks.
for cc in $found_c; do
    add "$cc c99 -O2" "$cc -std=c99 -O2 $both $c_only -I. -c $dir/impl.c -o $dir/$cc.o && symbols $dir/$cc.o"
done
for cc in $found_cxx; do
    add "$cc c++17 -O2" "$cc -std=c++17 -O2 $both -I. -c $dir/impl.cpp -o $dir/$cc.o && symbols $dir/$cc.o"
done

matrix() { # matrix COMPILER STANDARD WARNINGS EXTENSION
    try="$1 -std=$2 $3 -I. -fsyntax-only"
    add "$1 $2" "$try $dir/impl.$4"
    add "$1 $2 API alone, twice" "$try $dir/decl.$4"
    case $2 in c99 | c++11)
        add "$1 gnu API, implementation, API again" "$(echo "$try" | sed 's/-std=c/-std=gnu/') $dir/twice.$4"
        add "$1 $2 ORL_STATIC" "$try -DORL_STATIC $dir/impl.$4"
        add "$1 $2 ORL_NO_SIMD" "$try -DORL_NO_SIMD $dir/impl.$4"
        add "$1 $2 ORL_REAL=double" "$try -DORL_REAL=double $dir/impl.$4"
        add "$1 $2 ORL_REAL=double ORL_STATIC ORL_NO_SIMD" "$try -DORL_REAL=double -DORL_STATIC -DORL_NO_SIMD $dir/impl.$4"
        add "$1 $2 NDEBUG" "$try -DNDEBUG $dir/impl.$4" ;;
    esac
}
for cc in $found_c; do for std in c99 c11 c17; do matrix $cc $std "$both $c_only" c; done; done
for cc in $found_cxx; do for std in c++11 c++17; do matrix $cc $std "$both" cpp; done; done

for cc in $found_c; do
    # a strict standard and a libc header first hide POSIX: it must work, or say so in its first error
    add "$cc c99, <stdio.h> first: works or explains itself" \
        "$cc -std=c99 -I. -fsyntax-only $dir/stdio_first.c 2>$dir/$cc.first || grep -m 1 'error' $dir/$cc.first | grep -q 'offline_rlhf.h: ' || head -n 3 $dir/$cc.first"
    add "$cc gnu99, <stdio.h> first" "$cc -std=gnu99 $both $c_only -I. -fsyntax-only $dir/stdio_first.c"
    add "$cc -ffast-math is refused" \
        "$cc -ffast-math -I. -fsyntax-only $dir/impl.c 2>&1 | grep -q 'offline_rlhf.h: -ffast-math' || echo accepted"
done
first=${found_c# }
first=${first%% *}

# ---- two units, linked; ORL_STATIC leaves no symbol ----

units=tests/two_units
add "two units, C" "$first $both $c_only -I. $units/uses.c $units/implements.c -o $dir/two_c -lm -lpthread && $dir/two_c"
add "two units, each with its own static copy" \
    "$first $both $c_only -DORL_STATIC -DOFFLINE_RLHF_IMPLEMENTATION -I. $units/uses.c $units/static_copy.c -o $dir/two_static -lm -lpthread && $dir/two_static"
add "ORL_STATIC leaves no external symbol" "$first -DORL_STATIC -I. -c $dir/impl.c -o $dir/static.o && none_defined $dir/static.o"
for cc in $found_cxx; do
    add "two units, a C++ program over a C implementation, $cc" \
        "$first -I. -c $units/implements.c -o $dir/mixed_$cc.o && $cc -x c++ $both -I. $units/uses.c -x none $dir/mixed_$cc.o -o $dir/mixed_$cc -lm -lpthread && $dir/mixed_$cc"
done

# ---- macros: with the API alone, nothing but ORL_… and OFFLINE_RLHF_… comes along ----

add "macros of the API" "$first -dM -E -I. $dir/libc.c >$dir/libc.macros && $first -dM -E -I. $dir/api.c >$dir/api.macros &&
    new_macros $dir/libc.macros $dir/api.macros | grep -Ev '^(ORL|OFFLINE_RLHF)_' | sed 's/^/macro outside ORL_: /'; true"

# ---- layers: each prefix of the sections compiles, and calls nothing below it ----
# -fkeep-static-functions (gcc) keeps the private functions whose callers have been cut off.

keep=
if echo 'int x;' | $first -fkeep-static-functions -x c -c - -o $dir/keep.o 2>/dev/null; then keep=-fkeep-static-functions; fi
for k in 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do
    add "sections up to $k" "$first -std=c99 $both $c_only -Wno-unused $keep -DORL_STOP_AFTER=$k -I. -c $dir/impl.c -o $dir/prefix$k.o && upward $dir/prefix$k.o $k"
done
# Forward declarations of private functions would defeat the order; only those that carry an attribute
# for the definition right below them are there.
add "no forward declarations of private functions" \
    "grep -nE '^static [^={]*\\)( ORLI_[A-Z]+(\\([^)]*\\))?)?;' offline_rlhf.h | grep -v 'ORLI_PRINTF' | sed 's/^/offline_rlhf.h:/'; true"

# ---- every example, as a user compiles it and with every warning ----

for f in examples/*.c; do
    [ -f "$f" ] || continue
    for cc in $found_c; do add "$cc $f" "$cc $both $c_only -fsyntax-only $f"; done
done

# ---- run ----

i=0
while [ $i -lt $count ]; do i=$((i + 1)); echo $i; done |
    xargs -P "$JOBS" -I@ sh -c "sh $dir/@.sh >$dir/@.out 2>&1 || echo \"exit status \$?\" >>$dir/@.out"
passed=0
failed=0
i=0
while [ $i -lt $count ]; do
    i=$((i + 1))
    if [ -f $dir/$i.out ] && [ ! -s $dir/$i.out ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "$(cat $dir/$i.label): failed:"
        { grep -E 'warning:|error:' $dir/$i.out || cat $dir/$i.out; } | sed "s|$root/||" | head -n 6 | cut -c 1-300 | sed 's/^/    /'
    fi
done
echo "test_compile: $passed passed, $failed failed"
[ $failed -eq 0 ]
