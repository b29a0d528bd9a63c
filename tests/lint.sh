#!/bin/sh
# lint.sh - the text of the repository: width, tabs, encoding, ends of lines, long functions; then cppcheck.

cd "$(dirname "$0")/.." || exit 1
files=$(find . -path ./.git -prune -o -path ./build -prune -o -type f \
    \( -name '*.h' -o -name '*.c' -o -name '*.sh' -o -name '*.py' -o -name '*.md' -o -name Makefile -o -name run \) -print | sort)
mkdir -p build || exit 1
LC_ALL=C.UTF-8
export LC_ALL
bad=0
complain() { # complain TITLE < lines that should not be there, in build/lint.out
    [ -s build/lint.out ] || return
    echo "$1:"
    head -n 20 build/lint.out | cut -c 1-160
    bad=$((bad + 1))
}

for f in $files; do
    iconv -f UTF-8 -t UTF-8 "$f" >/dev/null 2>&1 || echo "$f"
done >build/lint.out
complain 'not UTF-8'
grep -nP '\r$|[ \t]+$' $(echo "$files" | grep -v tests/golden) >build/lint.out
complain 'blanks or carriage returns at the end of a line'
grep -nP '\t' $(echo "$files" | grep -v Makefile) >build/lint.out
complain 'tabs'
grep -nE '.{121,}' $(echo "$files" | grep -E '\.(h|c|sh|py)$') /dev/null >build/lint.out
complain 'lines of more than 120 columns'
grep -nwE '(gets|strcpy|strcat|sprintf|vsprintf|alloca|atoi|atof|setlocale|strtok) *\(' $(ls *.h examples/*.[ch] 2>/dev/null) /dev/null >build/lint.out
complain 'functions that check no size or no error, or change the whole program'
grep -nE '(^|[^a-z_])(printf|puts|putchar|exit|abort|perror) *\(|fprintf *\( *(stderr|stdout)' offline_rlhf.h /dev/null |
    grep -vE '^[^:]*:[0-9]+: *(\*|/\*|//)|format\(printf' >build/lint.out
complain 'the library never prints and never exits'

# the length of functions: a figure, not a verdict
[ -f offline_rlhf.h ] && awk '
    /^[A-Za-z].*\{$/ && !/^(typedef|struct|enum|union|extern)/ { start = NR; name = $0 }
    /^}/ && start { n[++functions] = NR - start + 1; if (NR - start + 1 > 60) long_ones = long_ones "\n    " NR - start + 1 " lines, line " start ": " substr(name, 1, 90); start = 0 }
    END {
        for (i = 1; i <= functions; i++) for (j = i + 1; j <= functions; j++) if (n[j] < n[i]) { t = n[i]; n[i] = n[j]; n[j] = t }
        printf "offline_rlhf.h: %d functions of several lines, median %d lines, longest %d%s\n", functions, n[int((functions + 1) / 2)], n[functions], long_ones
    }' offline_rlhf.h

if command -v cppcheck >/dev/null 2>&1; then
    if [ -f offline_rlhf.h ]; then
        printf '#define OFFLINE_RLHF_IMPLEMENTATION\n#include "../offline_rlhf.h"\n' >build/lint.c
        cppcheck --quiet --std=c99 --language=c --enable=warning,portability -DORL_NO_SIMD -DCLOCK_MONOTONIC=1 -DSIZE_MAX=~0ull \
            --template='{file}:{line}: {severity}: {message} [{id}]' --suppress=missingIncludeSystem build/lint.c >build/lint.out 2>&1
        complain 'cppcheck'
    fi
else
    echo 'skipped: cppcheck is not installed'
fi
echo "lint: $bad kinds of complaint"
[ $bad -eq 0 ]
