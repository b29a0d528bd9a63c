/* files.h - a fresh directory for the files of a test's run. */
#ifndef ORL_TEST_FILES_H
#define ORL_TEST_FILES_H
#include "test.h"
#include <unistd.h>

static char dir[256];

/* Makes it, in `parent` if that can be, else in $TMPDIR or /tmp; 0 if it cannot. */
static int make_dir(const char *name, const char *parent) {
    const char *places[3];
    int i;
    places[0] = parent, places[1] = getenv("TMPDIR"), places[2] = "/tmp";
    for (i = 0; i < 3; i++) {
        if (!places[i]) continue;
        snprintf(dir, sizeof dir, "%s/%s_XXXXXX", places[i], name);
        if (mkdtemp(dir)) return 1;
    }
    printf("%s: no directory can be made for its files\n", name);
    return 0;
}

static const char *in_dir(const char *name) { /* good until the next call but three */
    static char paths[4][800];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

static void remove_tree(const char *path) {
    char command[900];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    check(system(command) == 0);
}

static void write_bytes(const char *path, const void *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    check(f && (!n || fwrite(bytes, 1, n, f) == n));
    if (f) fclose(f);
}

static char *read_bytes(const char *path, size_t *n) { /* malloc'ed, zero-terminated, or NULL */
    FILE *f = fopen(path, "rb");
    char *p = NULL;
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    p = (char *)malloc(*n + 1);
    if (p && fread(p, 1, *n, f) == *n) p[*n] = 0;
    fclose(f);
    return p;
}
#endif
