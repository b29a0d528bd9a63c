/* test_06_kernels.c - section 6 against plain C in double, for every instruction set that runs here.
 * Every array that a kernel touches ends at a page nobody may touch, begins at one, or lies at any place between. */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "test.h"

#if ORLI_DOUBLE
#define EPS 2.3e-16
#else
#define EPS 1.2e-7
#endif

static const orli_kernels *kern; /* under test */
static orli_rng rng;

static double uniform(double low, double high) { return low + (high - low) * orli_rng_uniform(&rng); }
static size_t below(size_t n) { return orli_rng_below(&rng, n); }

/* ---- guarded arrays -------------------------------------------------------------------------------
 * Slot s is a run of pages between two forbidden ones. `guarded` gives n numbers in it that end at the
 * upper guard, begin at the lower one, or begin at a random place of a cache line, each array at its own; filled
 * with N(0, 1)-like numbers. */

#define SLOTS 16
#define SLOT_BYTES (4 * ORLI_SCRATCH)
static char *slot_memory;
static size_t page;
static enum { AT_END, AT_START, ANYWHERE, PLACES } place = AT_END;

static void guard_open(void) {
    size_t s;
    page = (size_t)sysconf(_SC_PAGESIZE);
    slot_memory = (char *)mmap(NULL, SLOTS * (SLOT_BYTES + 2 * page), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (s = 0; s < SLOTS; s++) {
        char *first = slot_memory + s * (SLOT_BYTES + 2 * page);
        mprotect(first, page, PROT_NONE);
        mprotect(first + page + SLOT_BYTES, page, PROT_NONE);
    }
}
static orl_real *guarded_raw(size_t slot, size_t n) {
    char *first = slot_memory + slot * (SLOT_BYTES + 2 * page) + page;
    if (n * sizeof(orl_real) + 64 > SLOT_BYTES / (place == ANYWHERE ? 2 : 1)) abort();
    if (place == AT_START) return (orl_real *)(void *)first;
    if (place == AT_END) return (orl_real *)(void *)(first + SLOT_BYTES - n * sizeof(orl_real));
    return (orl_real *)(void *)(first + SLOT_BYTES / 2) + below(64 / sizeof(orl_real));
}
static orl_real *guarded(size_t slot, size_t n) {
    orl_real *p = guarded_raw(slot, n);
    size_t i;
    for (i = 0; i < n; i++) p[i] = (orl_real)uniform(-1.7, 1.7);
    return p;
}
static void copy(double *to, const orl_real *from, size_t n) {
    size_t i;
    for (i = 0; i < n; i++) to[i] = (double)from[i];
}

/* A context without the sections above: threads and kernels alone. */
static void context_open(orl_ctx *ctx, size_t threads) {
    memset(ctx, 0, sizeof *ctx);
    ctx->kernels = kern;
    orli_pool_create(ctx, threads);
}

/* The larger of the errors `most` and |off|; NaN, which compares as nothing, is the largest. */
static double worse(double most, double off) {
    off = isnan(off) ? HUGE_VAL : fabs(off);
    return off > most ? off : most;
}

/* The worst |a − b| in units of `scale`, checked once, so that a test of a million numbers counts as one. */
static void check_all(const char *what, const orl_real *a, const double *b, size_t n, double tolerance) {
    size_t i, worst = 0;
    double most = 0;
    for (i = 0; i < n; i++) {
        double more = worse(most, ((double)a[i] - b[i]) / (1 + fabs(b[i])));
        if (more > most) most = more, worst = i;
    }
    test_check(most <= tolerance, what, __FILE__, __LINE__);
    if (!(most <= tolerance))
        printf("    %s, n = %zu: [%zu] is %.9g, should be %.9g\n", kern->name, n, worst, n ? (double)a[worst] : 0, n ? b[worst] : 0);
}

/* ---- row kernels: each against its formula ---------------------------------------------------------- */

#define MAX_N 300
static double e[6][MAX_N]; /* expectations and double copies of inputs */

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double gelu_slope(double x) {
    const double c = sqrt(2 / 3.14159265358979324), t = tanh(c * (x + 0.044715 * x * x * x));
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x);
}
static double normal_cdf(double x) { return 0.5 * erfc(-x / sqrt(2.0)); }
static double gelu(double x) { return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979324) * (x + 0.044715 * x * x * x))); }

static void test_simple(size_t n) {
    orl_real *x = guarded(0, n), *y = guarded(1, n), *z = guarded(2, n);
    double total = 0, product = 0, squares = 0, top = -HUGE_VAL;
    size_t i;
    for (i = 0; i < n; i++) {
        total += (double)x[i], product += (double)x[i] * (double)y[i], squares += (double)x[i] * (double)x[i];
        if ((double)x[i] > top) top = (double)x[i];
    }
    check_near(kern->sum(n, x), total, 40 * EPS * (double)(n + 1));
    check_near(kern->dot(n, x, y), product, 40 * EPS * (double)(n + 1));
    check_near(kern->sum_squares(n, x), squares, 1e-12);
    check((double)kern->max(n, x) == top);
    memcpy((uint16_t *)(void *)(z + n) - n, x, n * sizeof(uint16_t)); /* the last that is there */
    for (i = 0; i < n; i++) {
        uint16_t half;
        uint32_t bits;
        float wide;
        memcpy(&half, (uint16_t *)(void *)(z + n) - n + i, sizeof half);
        half &= 0xbfffu; /* no infinities */
        memcpy((uint16_t *)(void *)(z + n) - n + i, &half, sizeof half);
        bits = (uint32_t)half << 16;
        memcpy(&wide, &bits, sizeof wide);
        e[0][i] = (double)wide;
    }
    kern->widen(n, y, (uint16_t *)(void *)(z + n) - n);
    check_all("widen", y, e[0], n, 0);
    for (i = 0; i < n; i++) y[i] = (orl_real)uniform(-1, 1);
    for (i = 0; i < n; i++) e[0][i] = (double)y[i] + (double)x[i];
    kern->add(n, y, x);
    check_all("add", y, e[0], n, EPS);
    for (i = 0; i < n; i++) e[0][i] = (double)y[i] + 0.75 * (double)x[i];
    kern->axpy(n, y, (orl_real)0.75, x);
    check_all("axpy", y, e[0], n, EPS);
    for (i = 0; i < n; i++) e[0][i] = (double)y[i] * 0.7;
    kern->scale(n, y, (orl_real)0.7);
    check_all("scale", y, e[0], n, 2 * EPS);
    for (i = 0; i < n; i++) e[0][i] = (double)y[i] * (double)x[i];
    kern->mul(n, z, y, x);
    check_all("mul", z, e[0], n, EPS);
}

static void test_activations(size_t n) {
    orl_real *x = guarded(0, n), *u = guarded(1, n), *dy = guarded(2, n), *y = guarded(3, n), *dx = guarded(4, n), *du = guarded(5, n);
    size_t i;
    for (i = 0; i < n; i++) x[i] *= (orl_real)4;
    kern->gelu(n, y, x);
    for (i = 0; i < n; i++) e[0][i] = gelu((double)x[i]);
    check_all("gelu", y, e[0], n, 10 * EPS);
    for (i = 0; i < n; i++) e[0][i] = (double)dx[i] + (double)dy[i] * gelu_slope((double)x[i]);
    kern->gelu_backward(n, dx, x, dy);
    check_all("gelu_backward", dx, e[0], n, 60 * EPS);
    kern->swiglu(n, y, x, u);
    for (i = 0; i < n; i++) e[0][i] = (double)x[i] * sigmoid((double)x[i]) * (double)u[i];
    check_all("swiglu", y, e[0], n, 10 * EPS);
    for (i = 0; i < n; i++) {
        const double g = (double)x[i], s = sigmoid(g);
        e[0][i] = (double)dx[i] + (double)dy[i] * (double)u[i] * (s + g * s * (1 - s));
        e[1][i] = (double)du[i] + (double)dy[i] * g * s;
    }
    kern->swiglu_backward(n, dx, du, x, u, dy);
    check_all("swiglu_backward, gate", dx, e[0], n, 20 * EPS);
    check_all("swiglu_backward, up", du, e[1], n, 20 * EPS);
    kern->geglu(n, y, x, u);
    for (i = 0; i < n; i++) e[0][i] = gelu((double)x[i]) * (double)u[i];
    check_all("geglu", y, e[0], n, 10 * EPS);
    for (i = 0; i < n; i++) {
        e[0][i] = (double)dx[i] + (double)dy[i] * (double)u[i] * gelu_slope((double)x[i]);
        e[1][i] = (double)du[i] + (double)dy[i] * gelu((double)x[i]);
    }
    kern->geglu_backward(n, dx, du, x, u, dy);
    check_all("geglu_backward, gate", dx, e[0], n, 60 * EPS);
    check_all("geglu_backward, up", du, e[1], n, 20 * EPS);
    kern->gelu_erf(n, y, x);
    for (i = 0; i < n; i++) e[0][i] = (double)x[i] * normal_cdf((double)x[i]);
    check_all("gelu_erf", y, e[0], n, 10 * EPS);
    for (i = 0; i < n; i++) {
        double a = (double)x[i], density = exp(-0.5 * a * a) * 0.3989422804014327;
        e[0][i] = (double)dx[i] + (double)dy[i] * (normal_cdf(a) + a * density);
    }
    kern->gelu_erf_backward(n, dx, x, dy);
    check_all("gelu_erf_backward", dx, e[0], n, 60 * EPS);
}

static void test_softmax(size_t n) {
    orl_real *x = guarded(0, n), *y = guarded(1, n), got;
    double top = -HUGE_VAL, total = 0;
    size_t i;
    if (n == 0) return;
    for (i = 0; i < n; i++) x[i] *= (orl_real)10, top = fmax(top, (double)x[i]);
    for (i = 0; i < n; i++) total += exp((double)x[i] - top);
    for (i = 0; i < n; i++) e[0][i] = exp((double)x[i] - top) / total;
    got = kern->softmax_row(n, y, x);
    check_near(got, top + log(total), 40 * EPS);
    check_all("softmax_row", y, e[0], n, 20 * EPS);
    check(kern->log_sum_exp(n, x) == got);
    kern->softmax_row(n, x, x);
    check(memcmp(x, y, n * sizeof *x) == 0);
}

static void test_norms(size_t n) {
    orl_real *x = guarded(0, n), *w = guarded(1, n), *b = guarded(2, n), *dy = guarded(3, n), *y = guarded(4, n);
    orl_real *dx = guarded(5, n), *dw = guarded(6, n), *db = guarded(7, n), mean = 0, rstd;
    const double eps = 1e-5, N = (double)n;
    size_t i;
    int centred;
    if (n == 0) return;
    for (centred = 1; centred >= 0; centred--) {
        double m = 0, v = 0, r, mg = 0, mgx = 0;
        for (i = 0; i < n; i++) m += centred ? (double)x[i] / N : 0;
        for (i = 0; i < n; i++) v += ((double)x[i] - m) * ((double)x[i] - m) / N;
        r = 1 / sqrt(v + eps);
        for (i = 0; i < n; i++) {
            const double h = ((double)x[i] - m) * r, g = (double)dy[i] * (double)w[i];
            e[0][i] = h * (double)w[i] + (centred ? (double)b[i] : 0);
            mg += centred ? g / N : 0, mgx += g * h / N;
            e[2][i] = (double)dw[i] + (double)dy[i] * h, e[3][i] = (double)db[i] + (double)dy[i];
        }
        for (i = 0; i < n; i++)
            e[1][i] = (double)dx[i] + r * ((double)dy[i] * (double)w[i] - mg - ((double)x[i] - m) * r * mgx);
        if (centred) kern->layernorm(n, x, w, b, (orl_real)eps, y, &mean, &rstd);
        else kern->rmsnorm(n, x, w, (orl_real)eps, y, &rstd);
        check_all("norm", y, e[0], n, 100 * EPS * (n < 4 ? 300 : 1));
        check_near(rstd / (orl_real)r, 1, 60 * EPS * (n < 4 ? 300 : 1));
        if (n < 4) continue; /* a variance near 0 magnifies rounding */
        if (centred) kern->layernorm_backward(n, x, w, dy, mean, rstd, dx, dw, db);
        else kern->rmsnorm_backward(n, x, w, dy, rstd, dx, dw);
        check_all("norm_backward, x", dx, e[1], n, 200 * EPS);
        check_all("norm_backward, w", dw, e[2], n, 200 * EPS);
        if (centred) check_all("norm_backward, b", db, e[3], n, 200 * EPS);
        copy(e[1], dx, n);
        if (centred) kern->layernorm_backward(n, x, w, dy, mean, rstd, NULL, NULL, NULL);
        else kern->rmsnorm_backward(n, x, w, dy, rstd, NULL, NULL);
        check_all("norm_backward, nothing asked", dx, e[1], n, 0);
    }
}

static void test_rope(size_t n) {
    orl_real *x = guarded(0, 2 * n), *c = guarded(1, n), *s = guarded(2, n);
    size_t i;
    for (i = 0; i < n; i++) {
        e[0][i] = (double)x[i] * (double)c[i] - (double)x[i + n] * (double)s[i];
        e[1][i] = (double)x[i + n] * (double)c[i] + (double)x[i] * (double)s[i];
    }
    kern->rope(n, x, c, s);
    check_all("rope, first half", x, e[0], n, 4 * EPS);
    check_all("rope, second half", x + n, e[1], n, 4 * EPS);
}

static void test_adamw(size_t n) {
    orl_real *w = guarded(0, n), *g = guarded(1, n), *m = guarded(2, n), *v = guarded(3, n);
    orli_adamw p;
    size_t i;
    p.lr = (orl_real)0.01, p.beta1 = (orl_real)0.9, p.beta2 = (orl_real)0.98, p.eps = (orl_real)1e-6, p.decay = (orl_real)0.1;
    p.correction1 = (orl_real)0.3, p.correction2 = (orl_real)0.05, p.grad_scale = (orl_real)0.25;
    for (i = 0; i < n; i++) {
        const double a = (double)g[i] * 0.25;
        v[i] = v[i] * v[i];
        e[0][i] = (double)p.beta1 * (double)m[i] + (1 - (double)p.beta1) * a;
        e[1][i] = (double)p.beta2 * (double)v[i] + (1 - (double)p.beta2) * a * a;
        e[2][i] = (double)w[i] - (double)p.lr * (e[0][i] / (double)p.correction1 / (sqrt(e[1][i] / (double)p.correction2) + (double)p.eps) + (double)p.decay * (double)w[i]);
    }
    kern->adamw(n, w, g, m, v, &p);
    check_all("adamw, m", m, e[0], n, 10 * EPS);
    check_all("adamw, v", v, e[1], n, 10 * EPS);
    check_all("adamw, w", w, e[2], n, 10 * EPS);
}

/* An element's bits do not depend on n or on where it stands. */
static void test_position(size_t n) {
    orl_real *x = guarded(0, n), *whole = guarded(1, n), *alone = guarded(2, 1);
    size_t i = n ? below(n) : 0;
    if (n == 0) return;
    kern->exp(n, whole, x), kern->exp(1, alone, x + i);
    check(memcmp(alone, whole + i, sizeof *alone) == 0);
    kern->tanh(n, whole, x), kern->tanh(1, alone, x + i);
    check(memcmp(alone, whole + i, sizeof *alone) == 0);
    kern->gelu(n, whole, x), kern->gelu(1, alone, x + i);
    check(memcmp(alone, whole + i, sizeof *alone) == 0);
    kern->swiglu(n, whole, x, x), kern->swiglu(1, alone, x + i, x + i);
    check(memcmp(alone, whole + i, sizeof *alone) == 0);
    kern->gelu_erf(n, whole, x), kern->gelu_erf(1, alone, x + i);
    check(memcmp(alone, whole + i, sizeof *alone) == 0);
    kern->geglu(n, whole, x, x), kern->geglu(1, alone, x + i, x + i);
    check(memcmp(alone, whole + i, sizeof *alone) == 0);
}

static void test_rows(void) {
    static void (*const test[])(size_t) = {test_simple, test_activations, test_softmax, test_norms, test_rope, test_adamw, test_position};
    size_t n, t;
    for (n = 0; n <= 257; n++)
        for (t = 0; t < sizeof test / sizeof *test; t++)
            for (place = AT_END; place < PLACES; place++) test[t](n);
    place = AT_END;
}

/* ---- exp, tanh, log over the whole range -------------------------------------------------------------- */

/* The distance of y from the exact value in units of the last place of it. */
static double ulps(double y, double exact) {
    int exponent;
    if (isnan(exact)) return isnan(y) ? 0 : HUGE_VAL;
    if (y == exact) return 0;
    if (isinf(exact) || isinf(y)) return fabs(y) >= 3.4e38 && fabs(exact) >= 3.4e38 && (y > 0) == (exact > 0) ? 0 : HUGE_VAL;
    if (fabs(exact) < 1.1754943508222875e-38) return fabs(y) <= 1.1754944e-38 ? 0 : HUGE_VAL; /* denormal: may be 0 */
    frexp(exact, &exponent);
    return fabs(y - exact) / ldexp(1, exponent - (ORLI_DOUBLE ? 53 : 24));
}

static void test_transcendental(void) {
    static const double odd[] = {0, -0.0, 1, -1, HUGE_VAL, -HUGE_VAL, (double)NAN, 88.7, 88.73, 89, 200, -87.3, -87.4, -103, -110, -1e30, 1e30,
                                 3.4e38, -3.4e38, 1e-38, 1e-40, -1e-40, 1.17549435e-38, 0.625, 0.62499, 9, 10, 0.99999994, 1.0000001};
    const struct {
        const char *name;
        void (*fn)(size_t, orl_real *, const orl_real *);
        double (*exact)(double);
    } table[] = {{"exp", kern->exp, exp}, {"tanh", kern->tanh, tanh}, {"log", kern->log, log}};
    static orl_real x[4096], y[4096];
    size_t f, block, i;
    for (f = 0; f < 3; f++) {
        double most = 0, at = 0;
        for (block = 0; block < 256; block++) {
            for (i = 0; i < 4096; i++) { /* all exponents; then the ranges where something happens */
                uint32_t bits = (uint32_t)((block * 4096 + i) * 4093u);
                float any;
                memcpy(&any, &bits, sizeof any);
                x[i] = block < 128 ? (orl_real)any : block < 192 ? (orl_real)uniform(-90, 90) : (orl_real)uniform(-2, 2);
                if (block == 0 && i < sizeof odd / sizeof *odd) x[i] = (orl_real)odd[i];
                if (f == 2 && block >= 192) x[i] = (orl_real)fabs((double)x[i]);
            }
            table[f].fn(4096, y, x);
            for (i = 0; i < 4096; i++) {
                double off = ulps((double)y[i], table[f].exact((double)x[i]));
                if (off > most) most = off, at = (double)x[i];
            }
        }
        test_check(most <= 4, table[f].name, __FILE__, __LINE__);
        printf("  %-7s %-5s %.2f ulp at %.9g\n", kern->name, table[f].name, most, at);
    }
}

/* x·Φ(x) is within 16 ulp; without a fused multiply-add the rounding of x² takes its share of e^(−x²/2). */
static void test_normal_cdf(void) {
    static orl_real x[4096], y[4096];
    double most = 0, at = 0;
    size_t block, i;
    for (block = 0; block < 64; block++) {
        for (i = 0; i < 4096; i++) x[i] = (orl_real)(block < 32 ? uniform(-12, 12) : uniform(-3, 3));
        if (block == 0) x[0] = 0, x[1] = (orl_real)-1e30, x[2] = (orl_real)1e30, x[3] = (orl_real)1.4142135, x[4] = (orl_real)2.828427;
        kern->gelu_erf(4096, y, x);
        for (i = 0; i < 4096; i++) {
            double a = (double)x[i], off = a > -1e20 ? ulps((double)y[i], a * normal_cdf(a)) : fabs((double)y[i]);
            if (kern->width == 1 && a < 0 && a > -1e20) off -= a * a / 2;
            if (off > most) most = off, at = a;
        }
    }
    test_check(most <= 16, "x normal_cdf(x)", __FILE__, __LINE__);
    printf("  %-7s %-5s %.2f ulp at %.9g\n", kern->name, "gelu", most, at);
}

/* ---- what matrix products are made of: pack, tile, thin_tile ---------------------------------------------- */

/* Every count of lanes, in each layout. The panel has all lanes, those past `count` 0; what lies between its rows is
 * left as it was. */
static void test_pack(void) {
    size_t count, i, l, p;
    for (place = AT_END; place < PLACES; place++)
        for (count = 0; count <= kern->width; count++)
            for (i = 0; i < 48; i++) {
                const size_t k = i < 40 ? i / 2 : 20 + below(300), step = kern->width + below(3) * below(20);
                const int lanes_apart = (int)(i & 1); /* or side by side */
                const size_t lane = lanes_apart ? k + below(5) : 1, next = lanes_apart ? 1 : count + below(5);
                const size_t size = count && k ? (count - 1) * lane + (k - 1) * next + 1 : 0;
                const size_t panel_size = k ? (k - 1) * step + kern->width : 0;
                const orl_real *x = guarded(0, size);
                orl_real *panel = guarded(1, panel_size), *before = guarded(2, panel_size);
                int same = 1;
                memcpy(before, panel, panel_size * sizeof *panel);
                kern->pack(count, k, x, lane, next, panel, step);
                for (p = 0; p < k; p++)
                    for (l = 0; l < kern->width; l++) before[p * step + l] = l < count ? x[l * lane + p * next] : 0;
                for (p = 0; p < panel_size; p++) same &= panel[p] == before[p];
                check(same);
            }
    place = AT_END;
}

/* The worst difference from A·B by its definition; b[0], b[1]: the two vectors of each row of B. */
static double tile_error(size_t rows, size_t cols, size_t k, const orl_real *a, size_t a_row, size_t a_k,
                         const orl_real *const *b, size_t b_k, const orl_real *before, const orl_real *c, size_t c_row,
                         int mode) {
    double most = 0;
    size_t i, j, p;
    for (i = 0; i < rows; i++)
        for (j = 0; j < (i + 1 < rows ? c_row : cols); j++) {
            const orl_real *column = b[j / kern->width % 2] + j % kern->width;
            double sum = mode == ORLI_SET && j < cols ? 0 : (double)before[i * c_row + j];
            for (p = 0; p < k && j < cols; p++) sum += (double)a[i * a_row + p * a_k] * (double)column[p * b_k];
            most = worse(most, (double)c[i * c_row + j] - sum); /* between the rows nothing is touched */
        }
    return most;
}

/* Every number of rows and columns, each mode, A by rows and by columns, the vectors of B in places of their own. */
static void test_tile(void) {
    static const int modes[] = {ORLI_SET, ORLI_ADD, ORLI_CHAIN};
    const size_t w = kern->width;
    size_t rows, cols, i;
    for (rows = 1; rows <= kern->tile_rows; rows++)
        for (cols = 1; cols <= kern->tile_cols; cols++)
            for (i = 0; i < 9; i++) {
                const int mode = modes[i % 3], by_rows = (int)below(2);
                const size_t k = below(2) ? below(5) : 1 + below(70);
                const size_t b_k = w + below(2) * below(40), c_row = cols + below(4);
                const size_t a_row = by_rows ? k + below(4) : 1, a_k = by_rows ? 1 : rows + below(4);
                const size_t b_size = k ? (k - 1) * b_k + w : 0, c_size = (rows - 1) * c_row + cols;
                const orl_real *a, *b[2];
                orl_real *c, *before;
                place = i / 3 % 3 == 0 ? AT_END : i / 3 % 3 == 1 ? AT_START : ANYWHERE;
                a = guarded(0, k ? (rows - 1) * a_row + (k - 1) * a_k + 1 : 0);
                b[0] = guarded(1, b_size), b[1] = guarded(2, b_size);
                c = guarded(3, c_size), before = guarded(4, c_size);
                memcpy(before, c, c_size * sizeof *c);
                kern->tile(rows, cols, k, a, a_row, a_k, b[0], b[1], b_k, NULL, c, c_row, mode);
                check(tile_error(rows, cols, k, a, a_row, a_k, b, b_k, before, c, c_row, mode) <=
                      4 * EPS * (double)(k + 4));
            }
    place = AT_END;
}

/* The copies a tile leaves are what it has read, and C has the same bits with them and without. Asking for lines that
 * are nobody's does no harm. */
static void test_tile_aside(void) {
    const size_t w = kern->width, cols = kern->tile_cols;
    size_t rows, i, p, j;
    for (rows = 1; rows <= kern->tile_rows; rows++)
        for (i = 0; i < 16; i++) {
            const int by_rows = (int)(i & 1), keeps_a = !by_rows && i & 2, keeps_b = (int)(i & 4);
            const size_t k = i < 8 ? below(5) : 1 + below(70), b_k = cols + below(2) * below(40);
            const size_t tall = keeps_a && ORLI_PAIRED(rows) && i & 8 ? 2 * rows : rows; /* the rows below are kept too */
            const size_t a_row = by_rows ? k : 1, a_k = by_rows ? 1 : tall + below(4), most = k ? k - 1 : 0;
            const orl_real *a, *b;
            orl_real *c, *again, *copy_a, *copy_b;
            orli_aside aside;
            int same = 1;
            place = i / 2 % 2 ? AT_START : AT_END;
            a = guarded(0, k ? (tall - 1) * a_row + most * a_k + 1 : 0), b = guarded(1, k ? most * b_k + cols : 0);
            c = guarded(2, rows * cols), again = guarded(3, rows * cols);
            copy_a = guarded(4, k * tall), copy_b = guarded(5, k * cols);
            memset(&aside, 0, sizeof aside);
            aside.keep_below = tall > rows ? k * rows : 0;
            aside.keep_a = keeps_a ? copy_a : NULL, aside.keep_b = keeps_b ? copy_b : NULL;
            aside.next_a = (const orl_real *)(uintptr_t)8192, aside.next_b = aside.next_a, aside.b_pairs = i & 8 ? below(5) : 0;
            aside.a_rows = below(5), aside.a_apart = below(5000), aside.b_apart = below(5000);
            aside.b_line = below(5000), aside.b_step = below(5000);
            kern->tile(rows, cols, k, a, a_row, a_k, b, b + w, b_k, NULL, c, cols, ORLI_SET);
            kern->tile(rows, cols, k, a, a_row, a_k, b, b + w, b_k, &aside, again, cols, ORLI_SET);
            check(memcmp(c, again, rows * cols * sizeof *c) == 0);
            for (p = 0; p < k; p++) {
                for (j = 0; keeps_a && j < tall; j++)
                    same &= copy_a[j / rows * k * rows + p * rows + j % rows] == a[p * a_k + j];
                for (j = 0; keeps_b && j < cols; j++) same &= copy_b[p * cols + j] == b[p * b_k + j];
            }
            check(same);
        }
    place = AT_END;
}

static void test_thin_tile(void) {
    static const int modes[] = {ORLI_SET, ORLI_ADD};
    const size_t cols = kern->tile_cols;
    size_t i, t;
    for (i = 0; i < 120; i++) {
        const size_t k = below(3) ? 1 + below(90) : below(3), a_k = 1 + below(3), b_k = cols + below(2) * below(20);
        const size_t panel_size = k ? (k - 1) * b_k + cols : 0, stride = panel_size + below(9);
        const orl_real *a, *panel;
        orl_real *c, *before;
        place = i % 3 == 0 ? AT_END : i % 3 == 1 ? AT_START : ANYWHERE;
        a = guarded(0, k ? (k - 1) * a_k + 1 : 0), panel = guarded(1, k ? 3 * stride + panel_size : 0);
        c = guarded(2, 4 * cols), before = guarded(3, 4 * cols);
        memcpy(before, c, 4 * cols * sizeof *c);
        kern->thin_tile(k, a, a_k, panel, stride, b_k, c, modes[i / 3 % 2]);
        for (t = 0; t < 4; t++) {
            const orl_real *b[2];
            b[0] = panel + t * stride, b[1] = b[0] + kern->width;
            check(tile_error(1, cols, k, a, 0, a_k, b, b_k, before + t * cols, c + t * cols, cols,
                             modes[i / 3 % 2]) <= 4 * EPS * (double)(k + 4));
        }
    }
    place = AT_END;
}

/* ---- matrix products ------------------------------------------------------------------------------------ */

typedef struct gemm_case {
    size_t m, n, k;
    int a_turned, b_turned, accumulate; /* turned: stored as the transpose */
} gemm_case;

/* A stored matrix with a gap of `gap` numbers between its rows, in a guarded slot. */
static orli_mat stored(size_t slot, size_t rows, size_t cols, int turned, size_t gap) {
    const size_t lines = turned ? cols : rows, length = turned ? rows : cols, stride = length + gap;
    return orli_mat_of(guarded(slot, lines ? (lines - 1) * stride + length : 0), turned ? 1 : stride, turned ? stride : 1);
}

static int through_blis(const gemm_case *t) {
#ifdef ORL_USE_BLIS
    return !t->b_turned && 2.0 * (double)t->m * (double)t->n * (double)t->k >= ORLI_BLIS_LEAST;
#else
    return (void)t, 0;
#endif
}
/* BLIS has tasks of its own … */
static int one_block(const gemm_case *t) {
#ifdef ORL_USE_BLIS
    if (through_blis(t)) return t->m <= ORLI_BLIS_BLOCK && t->n <= ORLI_BLIS_BLOCK;
#endif
    return (void)t, 0;
}
/* … and blocks of k of its own: our kernels agree with it to rounding, with each other bit for bit. */
static int agree(const gemm_case *t, const orl_real *a, const orl_real *b, size_t n) {
    double most = 0;
    size_t i;
    if (!through_blis(t)) return memcmp(a, b, n * sizeof *a) == 0;
    for (i = 0; i < n; i++) most = worse(most, (double)a[i] - (double)b[i]);
    return most <= 8 * EPS * (double)(t->k + 4);
}

static void test_gemm_case(orl_ctx *ctx, gemm_case t) {
    const size_t gap = below(3), ldc = t.n + below(3), size = t.m ? (t.m - 1) * ldc + t.n : 0;
    const orli_mat a = stored(0, t.m, t.k, t.a_turned, gap), b = stored(1, t.k, t.n, t.b_turned, gap);
    orl_real *c = guarded(2, size), *before = (orl_real *)malloc(size * sizeof *c + 1), *again = guarded(4, size), *panels;
    double worst = 0;
    int outside = 0;
    size_t i, j, p;
    memcpy(before, c, size * sizeof *c);
    orli_gemm(ctx, t.m, t.n, t.k, a, b, c, ldc, t.accumulate);
    for (i = 0; i < t.m; i++)
        for (j = 0; j < (i + 1 < t.m ? ldc : t.n); j++) {
            double sum = t.accumulate ? (double)before[i * ldc + j] : 0;
            if (j >= t.n) {
                outside |= memcmp(&c[i * ldc + j], &before[i * ldc + j], sizeof *c) != 0;
                continue;
            }
            for (p = 0; p < t.k; p++) sum += (double)a.data[i * a.rs + p * a.cs] * (double)b.data[p * b.rs + j * b.cs];
            worst = worse(worst, sum - (double)c[i * ldc + j]);
        }
    check(worst <= 4 * EPS * (double)(t.k + 4));
    check(!outside);
    /* packed, and each row alone: the same bits */
    panels = guarded(3, orli_pack_size(ctx, t.n, t.k));
    orli_pack(ctx, t.n, t.k, b, panels);
    memcpy(again, before, size * sizeof *c);
    orli_gemm_packed(ctx, t.m, t.n, t.k, a, panels, again, ldc, t.accumulate);
    check(agree(&t, c, again, size));
    memcpy(again, before, size * sizeof *c);
    for (i = 0; i < t.m; i++) {
        orli_mat row = a;
        row.data += i * a.rs;
        if (i & 1) orli_gemm(ctx, 1, t.n, t.k, row, b, again + i * ldc, ldc, t.accumulate);
        else orli_gemm_packed(ctx, 1, t.n, t.k, row, panels, again + i * ldc, ldc, t.accumulate);
    }
    check(agree(&t, c, again, size));
    free(before);
}

/* A frozen matrix (n, k) in bf16: x·wᵀ, x·w, and from its panels, give the bits of the same numbers as floats. */
static void test_halves_case(orl_ctx *ctx, size_t m, size_t n, size_t k) {
    const orl_real *x = guarded(0, m * ORLI_MAX(n, k));
    orl_real *wide = guarded(1, n * k), *c = guarded(2, m * ORLI_MAX(n, k)), *again = guarded(3, m * ORLI_MAX(n, k));
    uint16_t *half = (uint16_t *)malloc(n * k * sizeof *half + 2), *panels = (uint16_t *)malloc(orli_pack_size(ctx, n, k) * 2 + 2);
    orli_mat by_row = orli_mat_of(wide, k, 1), by_column = orli_mat_of(wide, 1, k), half_row, half_column;
    size_t i;
    for (i = 0; i < n * k; i++) {
        const float y = (float)uniform(-1, 1);
        uint32_t bits;
        memcpy(&bits, &y, sizeof bits);
        half[i] = (uint16_t)(bits >> 16);
    }
    ctx->kernels->widen(n * k, wide, half);
    half_row = by_row, half_row.half = half, half_row.data = NULL;
    half_column = by_column, half_column.half = half, half_column.data = NULL;
    orli_gemm(ctx, m, n, k, orli_mat_of(x, k, 1), by_column, c, n, 0);
    orli_gemm(ctx, m, n, k, orli_mat_of(x, k, 1), half_column, again, n, 0);
    check(memcmp(c, again, m * n * sizeof *c) == 0);
    orli_pack_halves(ctx, n, k, half, panels);
    memset(again, 0, m * n * sizeof *again);
    orli_gemm_halves(ctx, m, n, k, orli_mat_of(x, k, 1), panels, again, n);
    check(memcmp(c, again, m * n * sizeof *c) == 0);
    for (i = 0; i < m; i++) orli_gemm_halves(ctx, 1, n, k, orli_mat_of(x + i * k, k, 1), panels, again + i * n, n);
    check(memcmp(c, again, m * n * sizeof *c) == 0);
    orli_gemm(ctx, m, k, n, orli_mat_of(x, n, 1), by_row, c, k, 0);
    orli_gemm(ctx, m, k, n, orli_mat_of(x, n, 1), half_row, again, k, 0);
    check(through_blis(&(gemm_case){m, k, n, 0, 0, 0}) || memcmp(c, again, m * k * sizeof *c) == 0);
    free(half), free(panels);
}

static void test_halves(void) {
    static const size_t dims[] = {1, 2, 7, 15, 16, 17, 32, 33, 65, 130, 257};
    orl_ctx ctx;
    size_t i;
    context_open(&ctx, 3);
    for (i = 0; i < 150; i++) {
        place = i & 1 ? AT_START : AT_END;
        test_halves_case(&ctx, dims[below(6)], dims[below(sizeof dims / sizeof *dims)], dims[below(sizeof dims / sizeof *dims)]);
    }
    test_halves_case(&ctx, 1, 700, 1100), test_halves_case(&ctx, 40, 300, 1030);
    place = AT_END;
    orli_pool_destroy(&ctx);
}

static void test_gemm(void) {
    static const size_t dims[] = {0, 1, 2, 3, 5, 8, 13, 14, 15, 16, 17, 28, 31, 32, 33, 48, 63, 65, 97};
    static const gemm_case large[] = {{28, 400, 512, 1, 0, 0}, {40, 300, 1100, 1, 0, 1}, {40, 70, 513, 0, 1, 0}, {29, 33, 1030, 0, 0, 1}, {15, 600, 100, 1, 0, 1}, {3, 530, 300, 0, 1, 1},
                                      {200, 40, 64, 1, 0, 0}, {64, 5, 1600, 1, 1, 0}, {1, 1000, 70, 0, 0, 0},
                                      /* many row tiles; copied for several blocks of B; rows in the same sets; pairs of row tiles copied at once */
                                      {1460, 101, 40, 1, 1, 1}, {120, 701, 512, 1, 0, 0}, {33, 400, 1024, 0, 1, 0}, {1019, 101, 40, 1, 0, 1}};
    orl_ctx ctx;
    size_t i;
    context_open(&ctx, 2);
    for (i = 0; i < 500; i++) {
        gemm_case t;
        t.m = dims[below(sizeof dims / sizeof *dims)], t.n = dims[below(sizeof dims / sizeof *dims)], t.k = dims[below(sizeof dims / sizeof *dims)];
        t.a_turned = (int)(i & 1), t.b_turned = (int)(i >> 1 & 1), t.accumulate = (int)(i >> 2 & 1);
        place = i >> 3 & 1 ? AT_START : AT_END;
        test_gemm_case(&ctx, t);
    }
    for (i = 0; i < sizeof large / sizeof *large; i++) test_gemm_case(&ctx, large[i]);
    place = AT_END;
    check(ctx.flops > 0);
    orli_pool_destroy(&ctx);
}

static void test_gemm_threads(void) {
    static const size_t threads[] = {1, 2, 3, 4, 7};
    static const gemm_case cases[] = {{130, 310, 200, 0, 1, 0}, {64, 700, 90, 1, 0, 1}, {500, 30, 64, 0, 0, 0}, {2, 900, 300, 0, 1, 0},
                                      {401, 780, 70, 1, 0, 1}, {300, 800, 120, 0, 0, 0}};
    size_t c, i;
    for (c = 0; c < sizeof cases / sizeof *cases; c++) {
        const gemm_case t = cases[c];
        const orli_mat a = stored(0, t.m, t.k, t.a_turned, 0), b = stored(1, t.k, t.n, t.b_turned, 0);
        orl_real *first = guarded(2, t.m * t.n), *again = guarded(3, t.m * t.n);
        for (i = 0; i < sizeof threads / sizeof *threads; i++) {
            orl_real *out = i ? again : first;
            orl_ctx ctx;
            context_open(&ctx, threads[i]);
            memset(out, 0, t.m * t.n * sizeof *out);
            orli_gemm(&ctx, t.m, t.n, t.k, a, b, out, t.n, t.accumulate);
            check(one_block(&t) || ctx.pool->most_tasks[ORLI_WORK_GEMM] >= ORLI_MIN(2, threads[i]));
            check(memcmp(first, out, t.m * t.n * sizeof *out) == 0);
            orli_pool_destroy(&ctx);
        }
    }
}

/* ---- products of bytes ------------------------------------------------------------------------------------- */

static int8_t *guarded_bytes(size_t slot, size_t n) {
    char *first = slot_memory + slot * (SLOT_BYTES + 2 * page) + page;
    if (n + 64 > SLOT_BYTES / (place == ANYWHERE ? 2 : 1)) abort();
    if (place == AT_START) return (int8_t *)first;
    if (place == AT_END) return (int8_t *)(first + SLOT_BYTES - n);
    return (int8_t *)(first + SLOT_BYTES / 2 + below(64));
}

/* Some groups of 64 of each row are larger or smaller than others, some are 0. */
static void fill_groups(orl_real *x, size_t rows, size_t k) {
    size_t i, p;
    double size = 1;
    for (i = 0; i < rows; i++)
        for (p = 0; p < k; p++) {
            if (p % 64 == 0) size = below(8) ? pow(2, uniform(-9, 9)) : 0;
            x[i * k + p] = (orl_real)(size * uniform(-1, 1));
        }
}

/* By the definition: integers (rows, k) and scales (rows, groups), all within half a step of x. */
static int groups_of(size_t rows, size_t k, const orl_real *x, int *q, double *scale) {
    const size_t groups = (k + 63) / 64;
    size_t i, g, p;
    int good = 1;
    for (i = 0; i < rows; i++)
        for (g = 0; g < groups; g++) {
            orl_real top = 0, over;
            for (p = g * 64; p < k && p < g * 64 + 64; p++)
                if (fabs((double)x[i * k + p]) > (double)top) top = (orl_real)fabs((double)x[i * k + p]);
            scale[i * groups + g] = (double)(float)(top / 127);
            over = (double)top > 1e-30 ? 127 / top : 0;
            for (p = g * 64; p < k && p < g * 64 + 64; p++) {
                const orl_real at = x[i * k + p] * over;
                q[i * k + p] = (int)rint((double)at);
                good &= fabs((double)q[i * k + p] * scale[i * groups + g] - (double)x[i * k + p]) <=
                        0.50003 * scale[i * groups + g] + 1e-30; /* 127 is rounded three times on the way */
            }
        }
    return good;
}

/* Does a quantised row hold these numbers? What lacks to four is 0. */
static int row_holds(const int8_t *row, size_t k, const int *q, const double *scale) {
    size_t g, p;
    int same = 1;
    for (g = 0; g * 64 < k; g++, row += 8 + 64) {
        const size_t n = ORLI_MIN(k - g * 64, (size_t)64);
        int sum = 0;
        for (p = 0; p < orli_round_up(n, 4); p++)
            same &= row[8 + p] == (p < n ? q[g * 64 + p] : 0), sum += p < n ? q[g * 64 + p] : 0;
        same &= (double)orli_single_at(row) == scale[g] && orli_int32_at(row + 4) == -128 * sum;
    }
    return same;
}

static void quantise_rows(const orli_kernels *by, size_t m, size_t k, const orl_real *x, int8_t *rows) {
    const size_t bytes = orli_int8_row(k);
    size_t i;
    for (i = 0; i < m; i++) { /* 15 bytes more, and no more */
        int8_t *row = guarded_bytes(12, bytes + 15);
        by->quantise(k, x + i * k, row);
        memcpy(rows + i * bytes, row, bytes);
    }
}

typedef void (*int8_fn)(size_t, size_t, size_t, const int8_t *, size_t, const int8_t *, orl_real *, size_t, int);

/* All kernels that sum with fused multiply-adds give the same bits. */
static size_t int8_kernels(int8_fn *fn) {
    size_t n = 0;
    int isa;
    fn[n++] = kern->int8_tile;
    if (kern->int8_vnni && orli_vnni_detect()) fn[n++] = kern->int8_vnni;
    for (isa = 0; isa <= (int)orli_isa_detect(); isa++) {
        const orli_kernels *other = orli_kernels_of((orli_isa)isa);
        if (other && other != kern && other->width > 1 && kern->width > 1) fn[n++] = other->int8_tile;
    }
    return n;
}

static void test_int8_case(orl_ctx *ctx, size_t m, size_t n, size_t k) {
    const size_t groups = (k + 63) / 64, bytes = orli_int8_row(k), c_row = 32 + below(5);
    const orl_real *x = guarded(0, m * k), *w = guarded(1, n * k);
    int *xq = (int *)malloc(m * k * sizeof *xq), *wq = (int *)malloc(n * k * sizeof *wq);
    double *xs = (double *)malloc(m * groups * 8), *ws = (double *)malloc(n * groups * 8), worst = 0;
    int8_t *rows = guarded_bytes(2, m * bytes), *panels = guarded_bytes(3, orli_int8_size(n, k));
    orl_real *out = guarded(4, m * n), *again = guarded(5, m * n), *read = guarded(6, k), *part;
    int8_fn fn[8];
    size_t kernels = int8_kernels(fn), i, j, p, f;
    int same = 1;
    fill_groups((orl_real *)(uintptr_t)x, m, k), fill_groups((orl_real *)(uintptr_t)w, n, k);
    check(groups_of(m, k, x, xq, xs) && groups_of(n, k, w, wq, ws));
    quantise_rows(kern, m, k, x, rows);
    for (i = 0; i < m; i++) same &= row_holds(rows + i * bytes, k, xq + i * k, xs + i * groups);
    check(same); /* whichever instruction set: these are the definition's */
    orli_int8_pack(ctx, n, k, w, NULL, panels);
    for (i = 0; i < n; i++) {
        orli_int8_read(k, panels, i, 0, k, read);
        for (p = 0; p < k; p++) same &= read[p] == (orl_real)(float)ws[i * groups + p / 64] * (orl_real)wq[i * k + p];
        j = below(k), p = 1 + below(k - j);
        part = guarded(9, p);
        orli_int8_read(k, panels, i, j, p, part);
        same &= memcmp(part, read + j, p * sizeof *read) == 0;
    }
    check(same);
    orli_int8_gemm(ctx, m, n, k, x, panels, out);
    for (i = 0; i < m; i++)
        for (j = 0; j < n; j++) {
            double sum = 0, size = 1e-30;
            for (p = 0; p < groups; p++) {
                double term = 0;
                size_t at;
                for (at = p * 64; at < k && at < p * 64 + 64; at++) term += (double)xq[i * k + at] * wq[j * k + at];
                term *= xs[i * groups + p] * ws[j * groups + p];
                sum += term, size += fabs(term);
            }
            worst = worse(worst, ((double)out[i * n + j] - sum) / size);
        }
    check(worst <= (double)(groups + 4) * EPS);
    for (i = 0; i < m; i++) orli_int8_gemm(ctx, 1, n, k, x + i * k, panels, again + i * n); /* a row alone */
    check(memcmp(out, again, m * n * sizeof *out) == 0);
    for (f = 0; f < kernels && k <= ORLI_INT8_K; f++) /* a panel at a time by each kernel, nothing touched beside it */
        for (j = 0; j < n; j += 32) {
            const size_t cols = ORLI_MIN(n - j, (size_t)32), size = (m - 1) * c_row + cols;
            const int mode = below(2) ? ORLI_ADD : ORLI_SET;
            orl_real *c = guarded(7, size), *before = guarded(8, size);
            int right = 1;
            memcpy(before, c, size * sizeof *c);
            fn[f](m, cols, k, rows, bytes, panels + j / 32 * orli_int8_panel(k), c, c_row, mode);
            for (i = 0; i < size; i++) {
                const orl_real sum = i % c_row < cols ? out[i / c_row * n + j + i % c_row] : 0;
                right &= c[i] == (i % c_row >= cols ? before[i] : mode == ORLI_ADD ? (orl_real)(before[i] + sum) : sum);
            }
            check(right);
        }
    free(xq), free(wq), free(xs), free(ws);
}

/* From bf16 it is as from the same numbers as floats. */
static void test_int8_halves(orl_ctx *ctx) {
    const size_t n = 45, k = 201;
    uint16_t half[45 * 201];
    orl_real *wide = guarded(0, n * k);
    int8_t *a = guarded_bytes(1, orli_int8_size(n, k)), *b = guarded_bytes(2, orli_int8_size(n, k));
    size_t i;
    for (i = 0; i < n * k; i++) half[i] = (uint16_t)(0x3c00 + below(0x400) + (below(2) << 15));
    kern->widen(n * k, wide, half);
    orli_int8_pack(ctx, n, k, wide, NULL, a), orli_int8_pack(ctx, n, k, NULL, half, b);
    check(memcmp(a, b, orli_int8_size(n, k)) == 0);
}

/* What is not finite comes out as NaN, in its row or column alone; what is too small as 0; what is large whole. */
static void test_int8_odd(orl_ctx *ctx) {
    static const double odd[] = {NAN, HUGE_VAL, -HUGE_VAL};
    const size_t m = 5, n = 37, k = 150;
    orl_real *x = guarded(0, m * k), *w = guarded(1, n * k), *y = guarded(2, m * n), before;
    int8_t *panels = guarded_bytes(3, orli_int8_size(n, k));
    size_t t, i, at;
    for (t = 0; t < 60; t++) {
        size_t row = below(m), bad = 0, wrong = 0, in_w = t & 1, lines = in_w ? n : m;
        orl_real *to = in_w ? w : x;
        row = below(lines), at = row * k + below(k), before = to[at], to[at] = (orl_real)odd[t % 3];
        orli_int8_pack(ctx, n, k, w, NULL, panels);
        ctx->vnni = (int)below(2) && kern->int8_vnni && orli_vnni_detect();
        orli_int8_gemm(ctx, m, n, k, x, panels, y);
        for (i = 0; i < m * n; i++) {
            const int hit = (in_w ? i % n : i / n) == row;
            bad += isnan((double)y[i]) != 0, wrong += (isnan((double)y[i]) != 0) != hit;
        }
        check(bad == (in_w ? m : n) && wrong == 0);
        to[at] = before;
    }
    orli_int8_pack(ctx, n, k, w, NULL, panels);
    for (t = 0; t < 5; t++) {
        static const double sizes[] = {0, 1e-36, 1e-41, 1e-31, 1e37};
        int good = 1;
        for (i = 0; i < m * k; i++) x[i] = (orl_real)(sizes[t] * uniform(-1, 1));
        orli_int8_gemm(ctx, m, n, k, x, panels, y);
        for (i = 0; i < m * n; i++) {
            double sum = 0;
            for (at = 0; at < k; at++) sum += (double)x[i / n * k + at] * (double)w[i % n * k + at];
            good &= t < 4 ? y[i] == 0 : fabs((double)y[i] - sum) <= sizes[t] * 0.02 * (double)k;
        }
        check(good);
    }
    for (t = 0; t < 2; t++) { /* one huge number: the largest float is quantised like any other */
        for (i = 0; i < m * k; i++) x[i] = 0;
        x[3] = (orl_real)(t ? -3.4e38 : 3.4e38);
        for (i = 0; i < n * k; i++) w[i] = (orl_real)0.5;
        orli_int8_pack(ctx, n, k, w, NULL, panels);
        orli_int8_gemm(ctx, m, n, k, x, panels, y);
        check_near((double)y[0] / 1.7e38, t ? -1 : 1, 1e-5);
    }
}

static void test_int8(void) {
    static const size_t whole[][3] = {{1, 1, 1}, {40, 100, 1100}, {3, 64, 1024}, {13, 33, 1025}, {25, 31, 64},
                                      {12, 32, 65}, {2, 700, 2100}};
    static const size_t threads[] = {1, 2, 3, 7};
    orl_ctx ctx;
    size_t i, t;
    context_open(&ctx, 3);
    for (i = 0; i < 150; i++) {
        const size_t k = below(3) == 0 ? 64 * (1 + below(5)) + below(5) : below(2) ? 1 + below(140) : 1 + below(1100);
        place = i % 3 == 0 ? AT_END : i % 3 == 1 ? AT_START : ANYWHERE;
        ctx.vnni = i / 3 % 2 && kern->int8_vnni && orli_vnni_detect();
        test_int8_case(&ctx, 1 + below(40), 1 + below(100), k);
    }
    place = AT_END;
    for (i = 0; i < sizeof whole / sizeof *whole; i++) test_int8_case(&ctx, whole[i][0], whole[i][1], whole[i][2]);
    test_int8_halves(&ctx);
    test_int8_odd(&ctx);
    orli_pool_destroy(&ctx);
    for (i = 0; i < 4; i++) {
        static const size_t shapes[][3] = {{1, 900, 300}, {130, 310, 200}, {500, 30, 65}, {40, 1000, 1500}};
        const size_t m = shapes[i][0], n = shapes[i][1], k = shapes[i][2];
        const orl_real *x = guarded(0, m * k), *w = guarded(1, n * k);
        orl_real *first = guarded(2, m * n), *again = guarded(3, m * n);
        int8_t *panels = guarded_bytes(4, orli_int8_size(n, k)), *same = guarded_bytes(5, orli_int8_size(n, k));
        for (t = 0; t < 8; t++) {
            context_open(&ctx, threads[t % 4]);
            ctx.vnni = t > 3 && kern->int8_vnni && orli_vnni_detect();
            orli_int8_pack(&ctx, n, k, w, NULL, t ? same : panels);
            check(!t || memcmp(panels, same, orli_int8_size(n, k)) == 0);
            orli_int8_gemm(&ctx, m, n, k, x, panels, t ? again : first);
            check(ctx.pool->most_tasks[ORLI_WORK_GEMM] >= ORLI_MIN((size_t)2, threads[t % 4]));
            check(!t || memcmp(first, again, m * n * sizeof *first) == 0);
            orli_pool_destroy(&ctx);
        }
    }
}

/* ---- attention ------------------------------------------------------------------------------------------- */

typedef struct heads { /* one head's queries, keys and values, and the tiles of the last two */
    size_t d, nq, position0, length, tiles, window;
    orl_real *q, *k, *v, *out, *lse, *dout, *dq, *scratch;
    orl_real *ktile[64], *vtile[64], *dktile[64], *dvtile[64];
    const orl_real *kt[64], *vt[64];
    double *ref_out, *ref_lse, *ref_dq, *ref_dk, *ref_dv;
} heads;

static void *allocate(size_t n, size_t size) { return calloc(n + 1, size); }

static void heads_open(heads *h, size_t d, size_t nq, size_t position0, size_t window) {
    size_t t, i, j;
    memset(h, 0, sizeof *h);
    h->d = d, h->nq = nq, h->position0 = position0, h->window = window;
    h->length = position0 + nq;
    h->tiles = (h->length + 15) / 16;
    h->q = guarded(0, nq * (d + 3)), h->dout = guarded(1, nq * (d + 2)), h->dq = guarded(2, nq * (d + 1));
    h->out = guarded(3, nq * d), h->lse = guarded(4, nq);
    h->k = guarded(5, h->length * d), h->v = guarded(6, h->length * d);
    h->scratch = guarded_raw(7, ORLI_SCRATCH / sizeof *h->scratch);
    for (t = 0; t < h->tiles; t++) {
        h->ktile[t] = guarded(8, 16 * d * h->tiles) + t * 16 * d, h->vtile[t] = guarded(9, 16 * d * h->tiles) + t * 16 * d;
        h->dktile[t] = guarded(10, 16 * d * h->tiles) + t * 16 * d, h->dvtile[t] = guarded(11, 16 * d * h->tiles) + t * 16 * d;
        h->kt[t] = h->ktile[t], h->vt[t] = h->vtile[t];
    }
    for (t = 0; t < h->tiles * 16; t++)
        for (j = 0; j < d; j++) { /* NaN where nothing was written */
            h->ktile[t / 16][j * 16 + t % 16] = t < h->length ? h->k[t * d + j] : (orl_real)NAN;
            h->vtile[t / 16][t % 16 * d + j] = t < h->length ? h->v[t * d + j] : (orl_real)NAN;
            h->dktile[t / 16][j * 16 + t % 16] = h->dvtile[t / 16][t % 16 * d + j] = 0;
        }
    for (i = 0; i < nq * (d + 1); i++) h->dq[i] = 0;
    h->ref_out = (double *)allocate(nq * d, 8), h->ref_lse = (double *)allocate(nq, 8), h->ref_dq = (double *)allocate(nq * d, 8);
    h->ref_dk = (double *)allocate(h->length * d, 8), h->ref_dv = (double *)allocate(h->length * d, 8);
}
static void heads_close(heads *h) {
    free(h->ref_out), free(h->ref_lse), free(h->ref_dq), free(h->ref_dk), free(h->ref_dv);
}

/* Forward and backward of the definition, in double. */
static void heads_reference(heads *h, double scale) {
    double *p = (double *)allocate(h->length, 8);
    size_t i, j, t, d = h->d;
    for (i = 0; i < h->nq; i++) {
        const size_t position = h->position0 + i, first = position + 1 > h->window ? position + 1 - h->window : 0;
        const orl_real *q = h->q + i * (d + 3), *dout = h->dout + i * (d + 2);
        double top = -HUGE_VAL, total = 0, delta = 0;
        for (t = first; t <= position; t++) {
            for (p[t] = 0, j = 0; j < d; j++) p[t] += scale * (double)q[j] * (double)h->k[t * d + j];
            top = fmax(top, p[t]);
        }
        for (t = first; t <= position; t++) total += p[t] = exp(p[t] - top);
        h->ref_lse[i] = top + log(total);
        for (t = first; t <= position; t++)
            for (p[t] /= total, j = 0; j < d; j++) h->ref_out[i * d + j] += p[t] * (double)h->v[t * d + j];
        for (j = 0; j < d; j++) delta += h->ref_out[i * d + j] * (double)dout[j];
        for (t = first; t <= position; t++) {
            double dp = 0, ds;
            for (j = 0; j < d; j++) dp += (double)dout[j] * (double)h->v[t * d + j];
            ds = scale * p[t] * (dp - delta);
            for (j = 0; j < d; j++) {
                h->ref_dv[t * d + j] += p[t] * (double)dout[j];
                h->ref_dq[i * d + j] += ds * (double)h->k[t * d + j];
                h->ref_dk[t * d + j] += ds * (double)q[j];
            }
        }
    }
    free(p);
}

/* What decoding does for one query: the same bits; and of bf16 tiles those of what they stand for. */
static void check_attention_one(const heads *h, size_t i, orl_real scale, const orl_real *expected, orl_real expected_lse) {
    const size_t d = h->d, n = h->tiles * 16 * d, position = h->position0 + i;
    const orl_real *q = h->q + i * (d + 3);
    orl_real one[512], wide[512], lse, wide_lse, *k = (orl_real *)allocate(n, sizeof *k), *v = (orl_real *)allocate(n + 16, sizeof *v);
    uint16_t *kh = (uint16_t *)allocate(n, sizeof *kh), *vh = (uint16_t *)allocate(n + 16, sizeof *vh);
    const void **kt = (const void **)allocate(h->tiles, sizeof *kt), **vt = (const void **)allocate(h->tiles, sizeof *vt);
    size_t t, j;
    for (t = 0; t < h->tiles; t++) {
        memcpy(k + t * 16 * d, h->kt[t], 16 * d * sizeof *k), memcpy(v + t * 16 * d, h->vt[t], 16 * d * sizeof *v);
        kt[t] = k + t * 16 * d, vt[t] = v + t * 16 * d;
    }
    kern->attention_one(d, q, position, kt, vt, 0, h->window, scale, one, &lse, h->scratch);
    check(memcmp(one, expected, d * sizeof *one) == 0 && memcmp(&lse, &expected_lse, sizeof lse) == 0);
    for (j = 0; j < n; j++) {
        const float x = (float)k[j], y = (float)v[j];
        uint32_t bits;
        memcpy(&bits, &x, 4), kh[j] = (uint16_t)(bits >> 16);
        memcpy(&bits, &y, 4), vh[j] = (uint16_t)(bits >> 16);
    }
    for (t = 0; t < h->tiles; t++) kt[t] = kh + t * 16 * d, vt[t] = vh + t * 16 * d;
    kern->attention_one(d, q, position, kt, vt, 1, h->window, scale, one, &lse, h->scratch);
    kern->widen(n, k, kh), kern->widen(n, v, vh);
    for (t = 0; t < h->tiles; t++) kt[t] = k + t * 16 * d, vt[t] = v + t * 16 * d;
    kern->attention(d, 1, q, d + 3, position, (const orl_real *const *)kt, (const orl_real *const *)vt, h->window, scale, wide, d, &wide_lse,
                    h->scratch);
    check(memcmp(one, wide, d * sizeof *one) == 0 && memcmp(&lse, &wide_lse, sizeof lse) == 0);
    free(k), free(v), free(kh), free(vh), free(kt), free(vt);
}

static void test_attention_case(size_t d, size_t nq, size_t position0, size_t window) {
    const double scale = 1 / sqrt((double)d);
    orl_real one[512], lse;
    heads h;
    size_t i, j, n;
    double worst = 0;
    heads_open(&h, d, nq, position0, window);
    heads_reference(&h, scale);
    kern->attention(d, nq, h.q, d + 3, position0, h.kt, h.vt, window, (orl_real)scale, h.out, d, h.lse, h.scratch);
    check_all("attention", h.out, h.ref_out, nq * d, 60 * EPS);
    check_all("attention, lse", h.lse, h.ref_lse, nq, 60 * EPS);
    for (i = 0; i < nq; i += n) { /* one by one, or in other groups: the same bits */
        n = i % 3 == 0 ? 1 : ORLI_MIN(nq - i, (size_t)(512 / d < 3 ? 1 : 3));
        kern->attention(d, 1, h.q + i * (d + 3), d + 3, position0 + i, h.kt, h.vt, window, (orl_real)scale, one, d, &lse, h.scratch);
        check(memcmp(one, h.out + i * d, d * sizeof *one) == 0 && memcmp(&lse, h.lse + i, sizeof lse) == 0);
        check_attention_one(&h, i, (orl_real)scale, one, lse);
    }
    kern->attention_backward(d, nq, h.q, d + 3, position0, h.kt, h.vt, window, (orl_real)scale, h.out, d, h.dout, d + 2, h.lse, h.dq,
                             d + 1, h.dktile, h.dvtile, h.scratch);
    for (i = 0; i < nq; i++)
        for (j = 0; j < d; j++) worst = worse(worst, (double)h.dq[i * (d + 1) + j] - h.ref_dq[i * d + j]);
    for (i = 0; i < h.tiles * 16; i++)
        for (j = 0; j < d; j++) {
            const double dk = i < h.length ? h.ref_dk[i * d + j] : 0, dv = i < h.length ? h.ref_dv[i * d + j] : 0;
            worst = worse(worst, (double)h.dktile[i / 16][j * 16 + i % 16] - dk);
            worst = worse(worst, (double)h.dvtile[i / 16][i % 16 * d + j] - dv);
        }
    check(worst <= 400 * EPS);
    if (!(worst <= 400 * EPS)) printf("    %s: d %zu, nq %zu, position %zu, window %zu: %g\n", kern->name, d, nq, position0, window, worst);
    heads_close(&h);
}

static void test_attention(void) {
    static const size_t d[] = {1, 4, 7, 8, 16, 20, 24, 32, 40, 48, 64, 80, 128};
    static const size_t windows[] = {SIZE_MAX, SIZE_MAX, 1, 5, 16, 33, 100};
    size_t i;
    for (i = 0; i < 120; i++) {
        const size_t nq = 1 + below(i % 4 ? 40 : 150), position0 = below(3) ? below(100) : 0;
        place = i & 1 ? AT_START : AT_END;
        test_attention_case(d[i % 13], nq, position0, windows[below(7)]);
    }
    place = AT_END;
}

/* A context so long that a whole block of queries finds no room in the scratch. */
static void test_attention_long(void) {
    const size_t d = 8, length = ORLI_SCRATCH / sizeof(orl_real) / 192 * 16, tiles = length / 16;
    orl_real *k = (orl_real *)allocate(length * d, sizeof *k), *scratch = (orl_real *)allocate(ORLI_SCRATCH, 1);
    const orl_real **kt = (const orl_real **)allocate(tiles, sizeof *kt);
    orl_real q[24 * 8], out[24 * 8], one[8], lse[24], lse1;
    size_t i;
    for (i = 0; i < length * d; i++) k[i] = (orl_real)uniform(-1, 1);
    for (i = 0; i < tiles; i++) kt[i] = k + i * 16 * d;
    for (i = 0; i < 24 * d; i++) q[i] = (orl_real)uniform(-1, 1);
    kern->attention(d, 24, q, d, length - 24, kt, kt, SIZE_MAX, 1, out, d, lse, scratch);
    for (i = 0; i < 24; i++) {
        kern->attention(d, 1, q + i * d, d, length - 24 + i, kt, kt, SIZE_MAX, 1, one, d, &lse1, scratch);
        check(memcmp(one, out + i * d, sizeof one) == 0 && lse1 == lse[i]);
    }
    free(k), free(kt), free(scratch);
}

static void test_selection(void) {
    orl_ctx ctx;
    memset(&ctx, 0, sizeof ctx);
    check(orli_kernels_select(&ctx, NULL) != NULL);
    check(orli_kernels_select(&ctx, "scalar") == orli_kernels_of(ORLI_ISA_SCALAR));
    check(!orl_failed(&ctx));
    check(orli_kernels_select(&ctx, "mmx") == NULL);
    check(orl_error_status(&ctx) == ORL_ERR_ARGUMENT);
    check_contains(orl_error(&ctx), "mmx");
    check_contains(orl_error(&ctx), "scalar");
}

int main(void) {
    static void (*const test[])(void) = {test_rows, test_transcendental, test_normal_cdf, test_pack, test_tile, test_tile_aside,
                                         test_thin_tile,
                                         test_gemm, test_halves, test_int8, test_gemm_threads, test_attention,
                                         test_attention_long};
    size_t t;
    int isa;
    guard_open();
    test_selection();
    for (isa = 0; isa <= (int)orli_isa_detect(); isa++) {
        kern = orli_kernels_of((orli_isa)isa);
        if (!kern) continue;
        rng = orli_rng_new(6, (uint64_t)isa);
        for (t = 0; t < sizeof test / sizeof *test; t++) test[t]();
    }
    return test_report("06_kernels");
}
