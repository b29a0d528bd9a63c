/* worker.h - a side of a comparison as a process of its own, which works when it is sent a line and answers with one.
 * Only one side works at a time, so both see the same disturbances. Include it after bench.h. */
#ifndef ORL_BENCH_WORKER_H
#define ORL_BENCH_WORKER_H
#include <fcntl.h>
#include <sys/wait.h>

typedef struct bench_worker {
    pid_t pid;
    FILE *to, *from;
    char ready[256]; /* what it said when it was ready */
} bench_worker;

/* Starts a program; 0 if it does not get ready. */
static int bench_start(bench_worker *w, const char *const *argv) {
    int in[2], out[2];
    memset(w, 0, sizeof *w);
    if (pipe(in) != 0 || pipe(out) != 0) return 0;
    w->pid = fork();
    if (w->pid == 0) {
        char *copy[16];
        size_t i;
        for (i = 0; argv[i] && i < 15; i++) copy[i] = strdup(argv[i]);
        copy[i] = NULL;
        dup2(in[0], 0), dup2(out[1], 1);
        close(in[0]), close(in[1]), close(out[0]), close(out[1]);
        execvp(copy[0], copy);
        _exit(127);
    }
    close(in[0]), close(out[1]);
    fcntl(in[1], F_SETFD, FD_CLOEXEC), fcntl(out[0], F_SETFD, FD_CLOEXEC); /* or the next worker keeps them open */
    w->to = fdopen(in[1], "w"), w->from = fdopen(out[0], "r");
    return w->pid > 0 && w->to && w->from && fgets(w->ready, sizeof w->ready, w->from) &&
           strncmp(w->ready, "ready", 5) == 0;
}

static void bench_stop(bench_worker *w) { /* its input ends, so it ends */
    if (w->to) fclose(w->to);
    if (w->from) fclose(w->from);
    if (w->pid > 0) waitpid(w->pid, NULL, 0);
}

/* Starts a program of PyTorch's, in the environment that makes Debian's fast; argv[0] is filled in. */
static int bench_start_torch(bench_worker *w, const char **argv, const char *threads, int wide) {
    static const char *const python[] = {"/usr/bin/python3", "python3"}; /* Debian's torch belongs to the first */
    size_t i;
    setenv("OPENBLAS_CORETYPE", wide ? "SkylakeX" : "Haswell", 1); /* Debian's does not know newer processors */
    setenv("ATEN_CPU_CAPABILITY", wide ? "avx512" : "avx2", 1);
    if (!wide) setenv("ONEDNN_MAX_CPU_ISA", "AVX2", 1), setenv("DNNL_MAX_CPU_ISA", "AVX2", 1);
    setenv("OMP_NUM_THREADS", threads, 1), setenv("OPENBLAS_NUM_THREADS", threads, 1);
    setenv("GOMP_SPINCOUNT", "10000", 1); /* or its threads go on spinning while ours work */
    for (i = 0; i < 2; i++) {
        argv[0] = python[i];
        if (bench_start(w, argv)) return 1;
        bench_stop(w);
    }
    memset(w, 0, sizeof *w);
    return 0;
}

#endif
