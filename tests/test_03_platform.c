/* test_03_platform.c - files appear whole or not at all; reading, paths, processor, float mode. */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "test.h"
#include <fenv.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define DIR "build/test_03"
static orl_ctx *ctx;

static int holds(const char *path, const char *text) { /* does the file consist of this text? */
    orli_file file;
    int same = orli_file_open(ctx, path, &file) == ORL_OK && file.size == strlen(text) && memcmp(file.data, text, file.size) == 0;
    orli_file_close(&file);
    return same;
}

static void failed_with(orl_status status, const char *named) { /* the error is this one and names that; and is over */
    check(orl_error_status(ctx) == status);
    check_contains(orl_error(ctx), named);
    orl_clear_error(ctx);
}

/* ---- writing ---- */

static void test_write(void) {
    orli_writer w;
    check(orli_write_file(ctx, DIR "/new.txt", "hello", 5) == ORL_OK && holds(DIR "/new.txt", "hello"));
    check(!orli_exists(DIR "/new.txt.tmp"));
    check(orli_write_file(ctx, DIR "/new.txt", "a longer text", 13) == ORL_OK && holds(DIR "/new.txt", "a longer text"));
    check(orli_write_file(ctx, DIR "/new.txt", "", 0) == ORL_OK && holds(DIR "/new.txt", ""));
    check(orli_writer_open(ctx, DIR "/parts.txt", &w) == ORL_OK);
    check(orli_exists(DIR "/parts.txt.tmp") && !orli_exists(DIR "/parts.txt")); /* not there before it is whole */
    orli_writer_put(&w, "one ", 4);
    orli_writer_put(&w, NULL, 0);
    orli_writer_put(&w, "two", 3);
    check(orli_writer_close(&w) == ORL_OK && holds(DIR "/parts.txt", "one two") && !orli_exists(DIR "/parts.txt.tmp"));
    check(orli_writer_close(&w) == ORL_OK); /* closing twice is harmless */
}

/* Whatever goes wrong, the old file stays, and no half of a new one lies about. */
static void test_failed_writes(void) {
    orli_writer w;
    static char big[1 << 18];
    struct rlimit whole, little;
    check(orli_write_file(ctx, DIR "/old.txt", "old", 3) == ORL_OK);

    orli_writer_open(ctx, DIR "/old.txt", &w); /* something else fails while the file is being written */
    orli_writer_put(&w, "new", 3);
    orli_fail(ctx, ORL_ERR_DATA, "row 7 is empty");
    check(orli_writer_close(&w) == ORL_ERR_DATA);
    failed_with(ORL_ERR_DATA, "row 7");
    check(holds(DIR "/old.txt", "old") && !orli_exists(DIR "/old.txt.tmp"));

    signal(SIGXFSZ, SIG_IGN); /* the disk is full: here, files may have 64 KB */
    getrlimit(RLIMIT_FSIZE, &whole);
    little = whole;
    little.rlim_cur = 1 << 16;
    setrlimit(RLIMIT_FSIZE, &little);
    check(orli_write_file(ctx, DIR "/old.txt", big, sizeof big) == ORL_ERR_IO);
    setrlimit(RLIMIT_FSIZE, &whole);
    failed_with(ORL_ERR_IO, "old.txt");
    check(holds(DIR "/old.txt", "old") && !orli_exists(DIR "/old.txt.tmp"));

    check(orli_make_dir(ctx, DIR "/taken") == ORL_OK); /* the name belongs to a directory */
    check(orli_write_file(ctx, DIR "/taken", "x", 1) == ORL_ERR_IO);
    failed_with(ORL_ERR_IO, DIR "/taken");
    check(!orli_exists(DIR "/taken.tmp"));

    check(orli_write_file(ctx, DIR "/nowhere/x.txt", "x", 1) == ORL_ERR_IO);
    failed_with(ORL_ERR_IO, DIR "/nowhere/x.txt");

    orli_fail(ctx, ORL_ERR_DATA, "an earlier failure"); /* after a failure nothing is begun */
    check(orli_write_file(ctx, DIR "/late.txt", "x", 1) == ORL_ERR_DATA);
    orl_clear_error(ctx);
    check(!orli_exists(DIR "/late.txt") && !orli_exists(DIR "/late.txt.tmp"));
}

static void test_killed_while_writing(void) {
    int status = 0;
    pid_t child;
    check(orli_write_file(ctx, DIR "/kept.txt", "kept", 4) == ORL_OK);
    child = fork();
    if (child == 0) {
        orli_writer w;
        orli_writer_open(ctx, DIR "/kept.txt", &w);
        orli_writer_put(&w, "half of a new o", 15);
        fflush(w.file);
        kill(getpid(), SIGKILL);
        _exit(1);
    }
    check(child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    check(holds(DIR "/kept.txt", "kept"));
    check(orli_write_file(ctx, DIR "/kept.txt", "next", 4) == ORL_OK && holds(DIR "/kept.txt", "next"));
    check(!orli_exists(DIR "/kept.txt.tmp"));
}

static void test_paths(void) {
    static char endless[6000];
    char path[4096];
    orli_writer w;
    memset(endless, 'a', sizeof endless - 1);
    check(orli_writer_open(ctx, endless, &w) == ORL_ERR_ARGUMENT);
    failed_with(ORL_ERR_ARGUMENT, "too long");
    check(orli_join(ctx, path, "dir", "name") == ORL_OK && strcmp(path, "dir/name") == 0);
    check(orli_join(ctx, path, endless, "name") == ORL_ERR_ARGUMENT);
    failed_with(ORL_ERR_ARGUMENT, "too long");
    check(orli_write_file(ctx, "test_03_here.tmp", "x", 1) == ORL_OK && holds("test_03_here.tmp", "x")); /* no slash */
    remove("test_03_here.tmp");
    check(orli_make_dir(ctx, DIR) == ORL_OK); /* it is there already: fine */
    check(orli_make_dir(ctx, DIR "/no/such/parent") == ORL_ERR_IO);
    failed_with(ORL_ERR_IO, DIR "/no/such/parent");
    check(orli_make_dir(ctx, DIR "/old.txt") == ORL_ERR_IO); /* a file has the name: not fine */
    failed_with(ORL_ERR_IO, DIR "/old.txt");
    check(orli_exists(DIR) && !orli_exists(DIR "/nothing"));
}

/* ---- reading ---- */

static void test_read(void) {
    orli_file file;
    static char big[100000];
    size_t i;
    for (i = 0; i < sizeof big; i++) big[i] = (char)(i * 31);
    check(orli_write_file(ctx, DIR "/big.bin", big, sizeof big) == ORL_OK);
    check(orli_file_open(ctx, DIR "/big.bin", &file) == ORL_OK);
    check(file.size == sizeof big && memcmp(file.data, big, sizeof big) == 0);
    orli_file_close(&file);
    orli_file_close(&file);
    orli_write_file(ctx, DIR "/empty", "", 0);
    check(orli_file_open(ctx, DIR "/empty", &file) == ORL_OK && file.size == 0 && file.data != NULL);
    orli_file_close(&file);
    check(orli_file_open(ctx, DIR "/nothing", &file) == ORL_ERR_IO && file.size == 0);
    orli_file_close(&file); /* harmless after a failure */
    failed_with(ORL_ERR_IO, DIR "/nothing");
    check(orli_file_open(ctx, DIR, &file) == ORL_ERR_IO && file.size == 0);
    failed_with(ORL_ERR_IO, DIR);
    orli_fail(ctx, ORL_ERR_DATA, "an earlier failure");
    check(orli_file_open(ctx, DIR "/big.bin", &file) == ORL_ERR_DATA && file.data == NULL);
    orl_clear_error(ctx);
}

/* A pipe that nobody writes to must not hang the program. */
static void test_read_pipe(void) {
    orli_file file;
    check(mkfifo(DIR "/pipe", 0600) == 0);
    alarm(20);
    check(orli_file_open(ctx, DIR "/pipe", &file) == ORL_ERR_IO);
    alarm(0);
    failed_with(ORL_ERR_IO, DIR "/pipe");
}

/* ---- processor ---- */

static void test_processor(void) {
    double a = orl_seconds(), b;
    struct timespec pause;
    pause.tv_sec = 0;
    pause.tv_nsec = 20000000;
    nanosleep(&pause, NULL);
    b = orl_seconds();
    check(b - a >= 0.019 && b - a < 10);
    check(orli_cores() >= 1 && orli_cores() < 100000);
#if ORLI_X86
    {
        orli_isa isa = orli_isa_detect(); /* the compiler's own detection is the witness */
        check((isa >= ORLI_ISA_AVX2) == (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")));
        check((isa >= ORLI_ISA_AVX512) == (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")));
    }
#else
    check(orli_isa_detect() == (ORLI_NEON ? ORLI_ISA_NEON : ORLI_ISA_SCALAR));
#endif
}

static void test_float_mode(void) {
    volatile float small = 1e-30f, one = 1.0f, tiny = 1e-10f;
    unsigned before;
    check(small * small * 0.0f == 0.0f && small * 1e-10f > 0.0f); /* a subnormal number outside */
    before = orli_float_mode_enter();
#if ORLI_X86 || ORLI_NEON
    check(small * 1e-10f == 0.0f); /* flushed inside */
#endif
    orli_float_mode_leave(before);
    check(small * 1e-10f > 0.0f); /* and back */
    fesetround(FE_UPWARD);
    before = orli_float_mode_enter();
#if ORLI_X86 || ORLI_NEON
    {
        volatile float sum = one + tiny;
        check(sum == 1.0f);
    }
#endif
    orli_float_mode_leave(before);
    check(fegetround() == FE_UPWARD);
    {
        volatile float sum = one + tiny;
        check(sum > 1.0f);
    }
    fesetround(FE_TONEAREST);
}

int main(void) {
    orl_config config = orl_config_default();
    config.threads = 1;
    ctx = orl_create(&config);
    check(orli_make_dir(ctx, "build") == ORL_OK && system("rm -rf " DIR) == 0 && orli_make_dir(ctx, DIR) == ORL_OK);
    test_write();
    test_failed_writes();
    test_killed_while_writing();
    test_paths();
    test_read();
    test_read_pipe();
    test_processor();
    test_float_mode();
    check(!orl_failed(ctx));
    orl_destroy(ctx);
    return test_report("test_03_platform");
}
