/* test_07_tensor.c - every operator of section 7, forwards and backwards.
 * builds: float double
 * A table gives each operator beside a naive version of it in double. Forward values are compared with the
 * naive ones; gradients with central differences, in the double build of the operator itself (h = 1e-5, to
 * 1e-6 of the largest entry), in float of the naive version. Inputs stand on a grid away from kinks. */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "test.h"

#define MOST 4096 /* numbers in a tensor of this test */
#define FORWARD_TOLERANCE (ORLI_DOUBLE ? 1e-12 : 4e-6)  /* of the largest number */
#define GRADIENT_TOLERANCE (ORLI_DOUBLE ? 1e-6 : 4e-5)

static orl_ctx *ctx;
static orl_tape *tape;
static orl_stream *stream; /* what rope and attention run over */

static void expect_error_reset(orl_status status, const char *part) {
    expect_error(status, part);
    orl_tape_reset(tape);
}

/* ---- the operators, each beside its naive version ---- */

typedef struct shape { size_t rows, cols; } shape;

typedef struct op_case {
    const char *name;
    orl_tensor *(*op)(orl_tensor **x);           /* on `tape` */
    void (*naive)(const double *const *x, double *y);
    double (*each)(double a, double b);          /* in its place where an operator is elementwise */
    shape in[3], out;                            /* rows 0: no such input */
    double low, high;                            /* of the inputs */
} op_case;

static orl_tensor *op_add(orl_tensor **x) { return orl_add(tape, x[0], x[1]); }
static orl_tensor *op_sub(orl_tensor **x) { return orl_sub(tape, x[0], x[1]); }
static orl_tensor *op_mul(orl_tensor **x) { return orl_mul(tape, x[0], x[1]); }
static orl_tensor *op_min(orl_tensor **x) { return orl_min(tape, x[0], x[1]); }
static orl_tensor *op_max(orl_tensor **x) { return orl_max(tape, x[0], x[1]); }
static orl_tensor *op_scale(orl_tensor **x) { return orl_scale(tape, x[0], -1.5); }
static orl_tensor *op_shift(orl_tensor **x) { return orl_shift(tape, x[0], 0.75); }
static orl_tensor *op_exp(orl_tensor **x) { return orl_exp(tape, x[0]); }
static orl_tensor *op_log(orl_tensor **x) { return orl_log(tape, x[0]); }
static orl_tensor *op_tanh(orl_tensor **x) { return orl_tanh(tape, x[0]); }
static orl_tensor *op_square(orl_tensor **x) { return orl_square(tape, x[0]); }
static orl_tensor *op_softplus(orl_tensor **x) { return orl_softplus(tape, x[0]); }
static orl_tensor *op_clamp(orl_tensor **x) { return orl_clamp(tape, x[0], -0.5055, 0.7555); }
static orl_tensor *op_gelu(orl_tensor **x) { return orl_gelu(tape, x[0]); }
static orl_tensor *op_swiglu(orl_tensor **x) { return orl_swiglu(tape, x[0], x[1]); }
static orl_tensor *op_gelu_erf(orl_tensor **x) { return orl_gelu_erf(tape, x[0]); }
static orl_tensor *op_geglu(orl_tensor **x) { return orl_geglu(tape, x[0], x[1]); }
static double each_add(double a, double b) { return a + b; }
static double each_sub(double a, double b) { return a - b; }
static double each_mul(double a, double b) { return a * b; }
static double each_min(double a, double b) { return a < b ? a : b; }
static double each_max(double a, double b) { return a > b ? a : b; }
static double each_scale(double a, double b) { return (void)b, -1.5 * a; }
static double each_shift(double a, double b) { return (void)b, a + 0.75; }
static double each_exp(double a, double b) { return (void)b, exp(a); }
static double each_log(double a, double b) { return (void)b, log(a); }
static double each_tanh(double a, double b) { return (void)b, tanh(a); }
static double each_square(double a, double b) { return (void)b, a * a; }
static double each_softplus(double a, double b) { return (void)b, log(1 + exp(a)); }
static double each_clamp(double a, double b) { return (void)b, a < -0.5055 ? -0.5055 : a > 0.7555 ? 0.7555 : a; }
static double each_gelu(double a, double b) { return (void)b, 0.5 * a * (1 + tanh(0.7978845608028654 * (a + 0.044715 * a * a * a))); }
static double each_swiglu(double a, double b) { return a / (1 + exp(-a)) * b; }
static double each_gelu_erf(double a, double b) { return (void)b, 0.5 * a * (1 + erf(a / sqrt(2.0))); }
static double each_geglu(double a, double b) { return each_gelu(a, 0) * b; }

/* Uses of one tensor at several places: gradients add up. */
static orl_tensor *op_uses(orl_tensor **x) {
    orl_tensor *a = x[0], *b = orl_mul(tape, a, a), *c = orl_swiglu(tape, a, a);
    return orl_add(tape, orl_sub(tape, orl_add(tape, orl_exp(tape, a), orl_min(tape, a, b)), c), orl_sub(tape, orl_scale(tape, b, 2), b));
}
static double each_uses(double a, double b) { return (void)b, exp(a) + each_min(a, a * a) - each_swiglu(a, a) + a * a; }

static orl_tensor *op_sum(orl_tensor **x) { return orl_sum(tape, x[0]); }
static void naive_sum(const double *const *x, double *y) {
    size_t i;
    for (*y = 0, i = 0; i < 35; i++) *y += x[0][i];
}

static const size_t group_start[] = {1, 4, 4, 10, 11}; /* a group is empty, rows 0 and 11 belong to none */
static orl_tensor *op_groups(orl_tensor **x) { return orl_sum_groups(tape, x[0], group_start, 4); }
static void naive_groups(const double *const *x, double *y) {
    size_t g, i;
    for (g = 0; g < 4; g++)
        for (y[g] = 0, i = group_start[g]; i < group_start[g + 1]; i++) y[g] += x[0][i];
}

static const size_t gathered[] = {3, 0, 3, 3, 4, 0};
static orl_tensor *op_gather(orl_tensor **x) { return orl_gather(tape, x[0], gathered, 6); }
static void naive_gather(const double *const *x, double *y) {
    size_t i;
    for (i = 0; i < 6 * 7; i++) y[i] = x[0][gathered[i / 7] * 7 + i % 7];
}
static orl_tensor *op_every(orl_tensor **x) { return orl_every(tape, x[0], 1, 3); }
static void naive_every(const double *const *x, double *y) {
    size_t i;
    for (i = 0; i < 3 * 5; i++) y[i] = x[0][(1 + 3 * (i / 5)) * 5 + i % 5];
}

static const int32_t looked_up[] = {2, 5, 2, 0, 2, 5, 4};
static orl_tensor *op_embedding(orl_tensor **x) { return orl_embedding(tape, x[0], looked_up, 7); }
static void naive_embedding(const double *const *x, double *y) {
    size_t i;
    for (i = 0; i < 7 * 5; i++) y[i] = x[0][(size_t)looked_up[i / 5] * 5 + i % 5];
}

/* x: (n, in), w: (out, in), b: (out) or NULL */
static void naive_product(const double *x, const double *w, const double *b, size_t n, size_t in, size_t out, double *y) {
    size_t i, j, k;
    for (i = 0; i < n; i++)
        for (j = 0; j < out; j++) {
            double sum = b ? b[j] : 0;
            for (k = 0; k < in; k++) sum += x[i * in + k] * w[j * in + k];
            y[i * out + j] = sum;
        }
}
static orl_tensor *op_linear(orl_tensor **x) { return orl_linear(tape, x[0], x[1], NULL); }
static orl_tensor *op_linear_bias(orl_tensor **x) { return orl_linear(tape, x[0], x[1], x[2]); }
static orl_tensor *op_linear_twice(orl_tensor **x) { return orl_linear(tape, orl_linear(tape, x[0], x[0], NULL), x[1], NULL); }
static void naive_linear(const double *const *x, double *y) { naive_product(x[0], x[1], NULL, 37, 7, 19, y); }
static void naive_linear_bias(const double *const *x, double *y) { naive_product(x[0], x[1], x[2], 37, 7, 19, y); }
static void naive_linear_twice(const double *const *x, double *y) {
    double square[5 * 5];
    naive_product(x[0], x[0], NULL, 5, 4, 5, square);
    naive_product(square, x[1], NULL, 5, 5, 3, y);
}

static void naive_norm(const double *x, const double *w, const double *b, size_t n, size_t d, double *y) {
    size_t i, j;
    for (i = 0; i < n; i++) {
        double mean = 0, square = 0;
        for (j = 0; j < d && b; j++) mean += x[i * d + j] / (double)d;
        for (j = 0; j < d; j++) square += (x[i * d + j] - mean) * (x[i * d + j] - mean) / (double)d;
        for (j = 0; j < d; j++) y[i * d + j] = (x[i * d + j] - mean) / sqrt(square + 1e-3) * w[j] + (b ? b[j] : 0);
    }
}
static orl_tensor *op_layernorm(orl_tensor **x) { return orl_layernorm(tape, x[0], x[1], x[2], 1e-3); }
static orl_tensor *op_rmsnorm(orl_tensor **x) { return orl_rmsnorm(tape, x[0], x[1], 1e-3); }
static void naive_layernorm(const double *const *x, double *y) { naive_norm(x[0], x[1], x[2], 35, 9, y); }
static void naive_rmsnorm(const double *const *x, double *y) { naive_norm(x[0], x[1], NULL, 35, 9, y); }
static void naive_head_norm(const double *const *x, double *y) { naive_norm(x[0], x[1], NULL, 35 * 3, 5, y); }

/* ---- sequences. Lengths are odd and cross the borders of attention's tiles of 16 positions. ---- */

/* A root with chains of depth 2 and siblings, a segment of length 1, a tree of two tokens, a plain one. */
static void fill_stream(orl_stream *s) {
    static const size_t length[] = {13, 6, 1, 17, 9, 2, 19}, parent[] = {ORL_ROOT, 0, 1, 1, 0, ORL_ROOT, ORL_ROOT};
    int32_t token[32];
    size_t i, k;
    orl_stream_clear(s);
    for (i = 0; i < 7; i++) {
        for (k = 0; k < length[i]; k++) token[k] = (int32_t)((5 * s->tokens + 3 * k * k) % 11);
        check(orl_stream_add(s, token, length[i], parent[i]) == i);
    }
}
#define TOKENS 67 /* of that stream */

static orl_tensor *rotate(orl_tensor *x, const orl_stream *s, size_t heads, double theta) {
    orl_rotation r = {theta, 0, 0, 0, 0, 0};
    return orl_rope(tape, x, s, heads, &r);
}
static orl_tensor *attend(orl_tensor *q, orl_tensor *k, orl_tensor *v, const orl_stream *s, size_t heads, size_t kv_heads) {
    orl_heads heading = {heads, kv_heads, 0, 0};
    return orl_attention(tape, q, k, v, s, &heading);
}

static void naive_rope(const double *x, size_t heads, size_t half, double theta, double *y) {
    size_t t, h, i;
    for (t = 0; t < TOKENS; t++)
        for (h = 0; h < heads; h++)
            for (i = 0; i < half; i++) {
                size_t at = (t * heads + h) * 2 * half + i;
                double angle = (double)stream->position[t] * pow(theta, -(double)i / (double)half);
                y[at] = x[at] * cos(angle) - x[at + half] * sin(angle);
                y[at + half] = x[at + half] * cos(angle) + x[at] * sin(angle);
            }
}
static orl_tensor *op_rope(orl_tensor **x) { return rotate(x[0], stream, 2, 100); }
static void naive_rope_once(const double *const *x, double *y) { naive_rope(x[0], 2, 3, 100, y); }
/* Two rotations of different kinds on one tape, as when two models share it. */
static orl_tensor *op_rope_twice(orl_tensor **x) { return orl_add(tape, rotate(x[0], stream, 3, 100), rotate(x[0], stream, 1, 50)); }
static void naive_rope_twice(const double *const *x, double *y) {
    double once[TOKENS * 6];
    size_t i;
    naive_rope(x[0], 3, 1, 100, once);
    naive_rope(x[0], 1, 3, 50, y);
    for (i = 0; i < TOKENS * 6; i++) y[i] += once[i];
}

static void naive_window(const double *q, const double *k, const double *v, size_t heads, size_t kv_heads, size_t d,
                         size_t window, double scale, double *y) {
    size_t s, i, h, p, c;
    for (s = 0; s < stream->segments; s++)
        for (i = 0; i < stream->segment[s].length; i++)
            for (h = 0; h < heads; h++) {
                size_t row = stream->segment[s].start + i, kv = h * kv_heads / heads, seen = stream->segment[s].position + i + 1;
                size_t first = window && seen > window ? seen - window : 0;
                double weight[64], sum = 0, *out = y + (row * heads + h) * d;
                for (c = 0; c < d; c++) out[c] = 0;
                for (p = first; p < seen; p++) {
                    size_t at = (orli_stream_row(stream, s, p) * kv_heads + kv) * d;
                    for (weight[p] = 0, c = 0; c < d; c++) weight[p] += q[(row * heads + h) * d + c] * k[at + c];
                    sum += weight[p] = exp(weight[p] * scale);
                }
                for (p = first; p < seen; p++)
                    for (c = 0; c < d; c++) out[c] += weight[p] / sum * v[(orli_stream_row(stream, s, p) * kv_heads + kv) * d + c];
            }
}
static void naive_attention(const double *q, const double *k, const double *v, size_t heads, size_t kv_heads, size_t d, double *y) {
    naive_window(q, k, v, heads, kv_heads, d, 0, 1 / sqrt((double)d), y);
}
/* A token sees itself and the six before it, across segments too. */
static orl_tensor *op_window(orl_tensor **x) {
    orl_heads heading = {4, 2, 7, 0.8};
    return orl_attention(tape, x[0], x[1], x[2], stream, &heading);
}
static void naive_windowed(const double *const *x, double *y) { naive_window(x[0], x[1], x[2], 4, 2, 3, 7, 0.8, y); }
/* Of heads of 6 numbers the first 4 turn, by frequencies scaled as Llama 3's or linearly. */
static orl_tensor *op_rope_part(orl_tensor **x) {
    orl_rotation scaled = {100, 4, 8, 1, 4, 64}, linear = {50, 4, 3, 0, 0, 0};
    return orl_add(tape, orl_rope(tape, x[0], stream, 2, &scaled), orl_rope(tape, x[0], stream, 2, &linear));
}
static double llama3_frequency(double f) { /* as transformers writes it */
    double wavelength = 2 * 3.14159265358979324 / f, smooth;
    if (wavelength > 64 / 1.0) return f / 8;
    if (wavelength < 64 / 4.0) return f;
    smooth = (64 / wavelength - 1) / (4 - 1);
    return (1 - smooth) * f / 8 + smooth * f;
}
static void naive_rope_part(const double *const *x, double *y) {
    size_t t, h, i;
    for (t = 0; t < TOKENS; t++)
        for (h = 0; h < 2; h++) {
            const double *from = x[0] + (t * 2 + h) * 6, p = (double)stream->position[t];
            double *to = y + (t * 2 + h) * 6;
            for (i = 0; i < 2; i++) {
                double a = p * llama3_frequency(pow(100, -(double)i / 2)), b = p * pow(50, -(double)i / 2) / 3;
                to[i] = from[i] * (cos(a) + cos(b)) - from[i + 2] * (sin(a) + sin(b));
                to[i + 2] = from[i + 2] * (cos(a) + cos(b)) + from[i] * (sin(a) + sin(b));
                to[i + 4] = 2 * from[i + 4];
            }
        }
}
static orl_tensor *op_attention(orl_tensor **x) { return attend(x[0], x[1], x[2], stream, 4, 2); }
static void naive_grouped(const double *const *x, double *y) { naive_attention(x[0], x[1], x[2], 4, 2, 3, y); }
static orl_tensor *op_self_attention(orl_tensor **x) { return attend(x[0], x[0], x[0], stream, 2, 2); }
static void naive_self_attention(const double *const *x, double *y) { naive_attention(x[0], x[0], x[0], 2, 2, 3, y); }

/* ---- the language head: 259 rows are two blocks of 256; 5 of 7 rows of w compete ---- */

#define HEAD_ROWS 259
static int32_t head_target[HEAD_ROWS];
static void naive_head(const double *const *x, double *logp, double *entropy) {
    size_t i, j;
    for (i = 0; i < HEAD_ROWS; i++) {
        double z[5], sum = 0;
        naive_product(x[0] + i * 3, x[1], NULL, 1, 3, 5, z);
        for (j = 0; j < 5; j++) sum += exp(z[j]);
        logp[i] = z[head_target[i]] - log(sum);
        for (entropy[i] = 0, j = 0; j < 5; j++) entropy[i] -= exp(z[j]) / sum * (z[j] - log(sum));
    }
}
static orl_tensor *op_logp(orl_tensor **x) { return orl_token_logp(tape, x[0], x[1], 5, head_target, NULL); }
static void naive_logp(const double *const *x, double *y) {
    double entropy[HEAD_ROWS];
    naive_head(x, y, entropy);
}
static orl_tensor *op_entropy(orl_tensor **x) {
    orl_tensor *entropy;
    orl_token_logp(tape, x[0], x[1], 5, head_target, &entropy);
    return entropy;
}
static void naive_entropy(const double *const *x, double *y) {
    double logp[HEAD_ROWS];
    naive_head(x, logp, y);
}
static orl_tensor *op_logp_entropy(orl_tensor **x) {
    orl_tensor *entropy, *logp = orl_token_logp(tape, x[0], x[1], 5, head_target, &entropy);
    return orl_add(tape, orl_square(tape, logp), orl_mul(tape, logp, entropy));
}
static void naive_logp_entropy(const double *const *x, double *y) {
    double entropy[HEAD_ROWS];
    size_t i;
    naive_head(x, y, entropy);
    for (i = 0; i < HEAD_ROWS; i++) y[i] = y[i] * y[i] + y[i] * entropy[i];
}

#define ONE(r, c) {{r, c}, {0, 0}, {0, 0}}
#define TWO(r, c) {{r, c}, {r, c}, {0, 0}}
static const op_case cases[] = {
    {"add", op_add, NULL, each_add, TWO(7, 5), {7, 5}, -2, 2},
    {"sub", op_sub, NULL, each_sub, TWO(7, 5), {7, 5}, -2, 2},
    {"mul", op_mul, NULL, each_mul, TWO(7, 5), {7, 5}, -2, 2},
    {"min", op_min, NULL, each_min, TWO(7, 5), {7, 5}, -2, 2},
    {"max", op_max, NULL, each_max, TWO(7, 5), {7, 5}, -2, 2},
    {"scale", op_scale, NULL, each_scale, ONE(7, 5), {7, 5}, -2, 2},
    {"shift", op_shift, NULL, each_shift, ONE(7, 5), {7, 5}, -2, 2},
    {"exp", op_exp, NULL, each_exp, ONE(7, 5), {7, 5}, -3, 3},
    {"log", op_log, NULL, each_log, ONE(7, 5), {7, 5}, 0.2, 4},
    {"tanh", op_tanh, NULL, each_tanh, ONE(7, 5), {7, 5}, -3, 3},
    {"square", op_square, NULL, each_square, ONE(7, 5), {7, 5}, -2, 2},
    {"softplus", op_softplus, NULL, each_softplus, ONE(7, 5), {7, 5}, -6, 6},
    {"clamp", op_clamp, NULL, each_clamp, ONE(7, 5), {7, 5}, -2, 2},
    {"gelu", op_gelu, NULL, each_gelu, ONE(7, 5), {7, 5}, -4, 4},
    {"swiglu", op_swiglu, NULL, each_swiglu, TWO(7, 5), {7, 5}, -4, 4},
    {"several uses", op_uses, NULL, each_uses, ONE(7, 5), {7, 5}, -2, 2},
    {"sum", op_sum, naive_sum, NULL, ONE(7, 5), {1, 1}, -2, 2},
    {"sum_groups", op_groups, naive_groups, NULL, ONE(12, 1), {4, 1}, -2, 2},
    {"gather", op_gather, naive_gather, NULL, ONE(5, 7), {6, 7}, -2, 2},
    {"every", op_every, naive_every, NULL, ONE(9, 5), {3, 5}, -2, 2},
    {"embedding", op_embedding, naive_embedding, NULL, ONE(6, 5), {7, 5}, -2, 2},
    {"linear", op_linear, naive_linear, NULL, {{37, 7}, {19, 7}, {0, 0}}, {37, 19}, -1, 1},
    {"linear with bias", op_linear_bias, naive_linear_bias, NULL, {{37, 7}, {19, 7}, {1, 19}}, {37, 19}, -1, 1},
    {"linear of itself", op_linear_twice, naive_linear_twice, NULL, {{5, 4}, {3, 5}, {0, 0}}, {5, 3}, -1, 1},
    {"layernorm", op_layernorm, naive_layernorm, NULL, {{35, 9}, {1, 9}, {1, 9}}, {35, 9}, -1, 1},
    {"rmsnorm", op_rmsnorm, naive_rmsnorm, NULL, {{35, 9}, {1, 9}, {0, 0}}, {35, 9}, -1, 1},
    {"rope", op_rope, naive_rope_once, NULL, ONE(TOKENS, 12), {TOKENS, 12}, -1, 1},
    {"two ropes", op_rope_twice, naive_rope_twice, NULL, ONE(TOKENS, 6), {TOKENS, 6}, -1, 1},
    {"attention", op_attention, naive_grouped, NULL, {{TOKENS, 12}, {TOKENS, 6}, {TOKENS, 6}}, {TOKENS, 12}, -2, 2},
    {"self-attention", op_self_attention, naive_self_attention, NULL, ONE(TOKENS, 6), {TOKENS, 6}, -1, 1},
    {"token_logp", op_logp, naive_logp, NULL, {{HEAD_ROWS, 3}, {7, 3}, {0, 0}}, {HEAD_ROWS, 1}, -2, 2},
    {"entropy", op_entropy, naive_entropy, NULL, {{HEAD_ROWS, 3}, {7, 3}, {0, 0}}, {HEAD_ROWS, 1}, -2, 2},
    {"token_logp and entropy", op_logp_entropy, naive_logp_entropy, NULL, {{HEAD_ROWS, 3}, {7, 3}, {0, 0}}, {HEAD_ROWS, 1}, -2, 2},
    {"gelu by erf", op_gelu_erf, NULL, each_gelu_erf, ONE(7, 5), {7, 5}, -4, 4},
    {"geglu", op_geglu, NULL, each_geglu, TWO(7, 5), {7, 5}, -4, 4},
    {"rmsnorm by heads", op_rmsnorm, naive_head_norm, NULL, {{35, 15}, {1, 5}, {0, 0}}, {35, 15}, -1, 1},
    {"part of a rope, scaled", op_rope_part, naive_rope_part, NULL, ONE(TOKENS, 12), {TOKENS, 12}, -1, 1},
    {"attention in a window", op_window, naive_windowed, NULL, {{TOKENS, 12}, {TOKENS, 6}, {TOKENS, 6}}, {TOKENS, 12}, -2, 2}};

/* ---- the one checker ---- */

typedef struct instance { /* a case with its inputs, in double and as the build has them */
    const op_case *c;
    double x[3][MOST];
    size_t inputs, n[3], out;
} instance;

static double mix(size_t i) { return (double)(orl_real)cos(1.7 * (double)i + 0.3); } /* the weight of result i in the scalar */

static void instance_fill(instance *s, const op_case *c) {
    orli_rng r = orli_rng_new(7, (uint64_t)(c - cases));
    size_t k, i;
    s->c = c, s->out = c->out.rows * c->out.cols;
    for (s->inputs = 0; s->inputs < 3 && c->in[s->inputs].rows; s->inputs++) {
        k = s->inputs, s->n[k] = c->in[k].rows * c->in[k].cols;
        for (i = 0; i < s->n[k]; i++) { /* a grid of 0.01, shifted for each input: a ≠ b and no kink within h */
            double x = c->low + (c->high - c->low) * orli_rng_uniform(&r);
            s->x[k][i] = (double)(orl_real)(0.01 * floor(100 * x) + 0.0023 + 0.0031 * (double)k);
        }
    }
}

/* Σ mix_i·y_i on the tape; *loss is its tensor and v its variables. */
static double instance_run(const instance *s, orl_tensor **v, orl_tensor **result, orl_tensor **loss) {
    orl_real value[MOST];
    orl_tensor *weight;
    size_t k, i;
    orl_tape_reset(tape);
    for (k = 0; k < s->inputs; k++) {
        for (i = 0; i < s->n[k]; i++) value[i] = (orl_real)s->x[k][i];
        v[k] = orl_variable(tape, value, s->c->in[k].rows, s->c->in[k].cols);
    }
    *result = s->c->op(v);
    for (i = 0; i < s->out; i++) value[i] = (orl_real)mix(i);
    weight = orl_constant(tape, value, s->c->out.rows, s->c->out.cols);
    *loss = orl_sum(tape, orl_mul(tape, *result, weight));
    return *loss ? (double)orl_data(*loss)[0] : 0;
}

static double instance_naive(const instance *s, double *y) {
    const double *x[3];
    double sum = 0;
    size_t i;
    x[0] = s->x[0], x[1] = s->x[1], x[2] = s->x[2];
    if (s->c->naive) s->c->naive(x, y);
    for (i = 0; i < s->out; i++) {
        if (!s->c->naive) y[i] = s->c->each(x[0][i], x[1][i]);
        sum += mix(i) * y[i];
    }
    return sum;
}

static double instance_at(instance *s, size_t k, size_t i, double x) { /* the scalar with one input moved */
    static double y[MOST];
    orl_tensor *v[3], *result, *loss;
    double before = s->x[k][i], value;
    s->x[k][i] = x;
    value = ORLI_DOUBLE ? instance_run(s, v, &result, &loss) : instance_naive(s, y);
    s->x[k][i] = before;
    return value;
}

static void check_case(const op_case *c) {
    static instance s;
    static double y[MOST], g[3][MOST];
    orl_tensor *v[3], *result, *loss;
    double most = 1e-8, worst = 0;
    size_t k, i;
    int before = test_failed;
    instance_fill(&s, c);
    instance_run(&s, v, &result, &loss);
    check(!orl_failed(ctx) && result && orl_rows(result) == c->out.rows && orl_cols(result) == c->out.cols);
    if (!loss) return;
    instance_naive(&s, y);
    for (i = 0; i < s.out; i++) most = fmax(most, fabs(y[i])), worst = fmax(worst, fabs(y[i] - (double)orl_data(result)[i]));
    check_near(worst, 0, FORWARD_TOLERANCE * most);
    check(orl_backward(tape, loss) == ORL_OK);
    for (k = 0; k < s.inputs; k++) {
        check(orl_grad(v[k]) != NULL);
        for (i = 0; i < s.n[k] && orl_grad(v[k]); i++) g[k][i] = (double)orl_grad(v[k])[i];
    }
    for (k = 0; k < s.inputs; k++) {
        const double h = 1e-5;
        for (most = 1e-8, i = 0; i < s.n[k]; i++) most = fmax(most, fabs(g[k][i]));
        for (worst = 0, i = 0; i < s.n[k]; i++) {
            double x = s.x[k][i], numeric = (instance_at(&s, k, i, x + h) - instance_at(&s, k, i, x - h)) / (2 * h);
            worst = fmax(worst, numeric == numeric ? fabs(numeric - g[k][i]) : HUGE_VAL);
        }
        check_near(worst, 0, GRADIENT_TOLERANCE * most);
    }
    if (test_failed != before) printf("    in operator \"%s\"\n", c->name);
}

/* ---- shared prefixes: the same numbers as separate copies ---- */

typedef struct tiny { orl_tensor *table, *wq, *wk, *wv, *y; } tiny; /* embedding, rope, attention of 2 heads on 1 */

static tiny tiny_run(const orl_stream *s, const double *row_weight) {
    orl_real table[11 * 8], wq[8 * 8], wk[4 * 8], wv[4 * 8], *weight = (orl_real *)malloc(s->tokens * 8 * sizeof *weight);
    orli_rng r = orli_rng_new(3, 0);
    orl_tensor *x, *q, *k;
    tiny t;
    size_t i;
    for (i = 0; i < 88; i++) table[i] = (orl_real)orli_rng_normal(&r);
    for (i = 0; i < 64; i++) wq[i] = (orl_real)orli_rng_normal(&r);
    for (i = 0; i < 32; i++) wk[i] = (orl_real)orli_rng_normal(&r), wv[i] = (orl_real)orli_rng_normal(&r);
    for (i = 0; i < s->tokens * 8; i++) weight[i] = (orl_real)(row_weight[i / 8] * (1 + (double)(i % 8)));
    t.table = orl_variable(tape, table, 11, 8), t.wq = orl_variable(tape, wq, 8, 8);
    t.wk = orl_variable(tape, wk, 4, 8), t.wv = orl_variable(tape, wv, 4, 8);
    x = orl_embedding(tape, t.table, s->token, s->tokens);
    q = rotate(orl_linear(tape, x, t.wq, NULL), s, 2, 10000);
    k = rotate(orl_linear(tape, x, t.wk, NULL), s, 1, 10000);
    t.y = attend(q, k, orl_linear(tape, x, t.wv, NULL), s, 2, 1);
    check(orl_backward(tape, orl_sum(tape, orl_mul(tape, t.y, orl_constant(tape, weight, s->tokens, 8)))) == ORL_OK);
    free(weight);
    return t;
}

static void check_same_gradient(const orl_tensor *a, const orl_tensor *b) {
    double most = 1e-30, worst = 0;
    size_t i;
    for (i = 0; i < orl_rows(a) * orl_cols(a); i++) {
        most = fmax(most, fabs((double)orl_grad(a)[i]));
        worst = fmax(worst, fabs((double)orl_grad(a)[i] - (double)orl_grad(b)[i]));
    }
    check_near(worst, 0, (ORLI_DOUBLE ? 1e-12 : 1e-5) * most);
}

static void test_shared_prefixes(void) {
    orl_stream *copies = orl_stream_create(ctx);
    orl_tape *first = tape, *second = orl_tape_create(ctx);
    double shared_weight[TOKENS], copy_weight[400];
    size_t where[400], s, i, p; /* where: the shared row a copied one repeats */
    unsigned char seen[TOKENS] = {0};
    tiny a, b;
    int same = 1;
    for (s = 0; s < stream->segments; s++) { /* every leaf becomes a sequence of its own, ancestors first */
        size_t end = stream->segment[s].position + stream->segment[s].length, row[64];
        int32_t token[64];
        int leaf = 1;
        for (i = 0; i < stream->segments; i++) leaf &= stream->segment[i].parent != s;
        if (!leaf) continue;
        for (p = 0; p < end; p++) {
            row[p] = orli_stream_row(stream, s, p);
            token[p] = stream->token[row[p]];
            where[copies->tokens + p] = row[p];
        }
        orl_stream_add(copies, token, end, ORL_ROOT);
    }
    for (i = 0; i < TOKENS; i++) shared_weight[i] = cos((double)i);
    for (i = 0; i < copies->tokens; i++) { /* a row counts where it stands first */
        copy_weight[i] = seen[where[i]] ? 0 : shared_weight[where[i]];
        seen[where[i]] = 1;
    }
    orl_tape_reset(tape);
    a = tiny_run(stream, shared_weight);
    tape = second;
    b = tiny_run(copies, copy_weight);
    tape = first;
    for (i = 0; i < copies->tokens; i++) same &= memcmp(orl_data(b.y) + i * 8, orl_data(a.y) + where[i] * 8, 8 * sizeof(orl_real)) == 0;
    check(same); /* forwards the very bits */
    check_same_gradient(a.table, b.table);
    check_same_gradient(a.wq, b.wq);
    check_same_gradient(a.wk, b.wk);
    check_same_gradient(a.wv, b.wv);
    orl_tape_free(second);
    orl_stream_free(copies);
}

/* ---- what flows where ---- */

static void test_constants(void) { /* nothing flows into constants, and operators on them are left alone */
    orl_real x[TOKENS * 6];
    orl_tensor *q, *k, *v, *y, *half;
    size_t i;
    for (i = 0; i < TOKENS * 6; i++) x[i] = (orl_real)sin((double)i);
    orl_tape_reset(tape);
    q = orl_variable(tape, x, TOKENS, 6);
    half = orl_constant(tape, x, TOKENS, 6);
    k = orl_scale(tape, half, 0.5);
    v = orl_linear(tape, half, orl_constant(tape, x, 6, 6), NULL);
    y = attend(q, k, v, stream, 2, 2);
    check(orl_backward(tape, orl_sum(tape, y)) == ORL_OK);
    check(orl_grad(q) != NULL && orl_grad(half) == NULL && orl_grad(k) == NULL && orl_grad(v) == NULL);
    orl_tape_reset(tape);
    y = orl_sum(tape, orl_constant(tape, x, 3, 3));
    check(orl_backward(tape, y) == ORL_OK && orl_grad(y) == NULL);
    orl_tape_reset(tape); /* a result's own gradient is there to be read if it was asked for */
    y = rotate(orl_variable(tape, x, TOKENS, 6), stream, 3, 10000);
    check(orl_backward(tape, orl_sum(tape, y)) == ORL_OK && orl_grad(y) == NULL);
    orl_tape_reset(tape);
    y = rotate(orl_variable(tape, x, TOKENS, 6), stream, 3, 10000);
    orl_keep_grad(y);
    check(orl_backward(tape, orl_sum(tape, y)) == ORL_OK);
    for (i = 0; i < TOKENS * 6; i++)
        if (orl_grad(y)[i] < 1 || orl_grad(y)[i] > 1) break;
    check(i == TOKENS * 6);
}

/* Log-probabilities whose gradient is known beforehand: the same values and gradients; another one is refused. */
static void test_foretold(void) {
    enum { N = 5, D = 3, CLASSES = 7 };
    static const int32_t target[N] = {0, 6, 3, 3, 1};
    static const orl_real slope[N] = {-1, (orl_real)-0.5, 0, -2, (orl_real)1.5};
    orl_real x[CLASSES * D], logp[2][N], dh[2][N * D], dw[2][CLASSES * D];
    orl_params *set = orl_params_create(ctx);
    orl_param *p = orl_param_add(set, "w", CLASSES, D, 2);
    size_t i, k;
    for (i = 0; i < CLASSES * D; i++) x[i] = (orl_real)sin((double)i), orl_param_data(p)[i] = (orl_real)cos((double)i);
    orli_params_train(set);
    for (k = 0; k < 3; k++) {
        orl_tensor *h, *y;
        orl_params_zero_grad(set);
        orl_tape_reset(tape);
        h = orl_variable(tape, x, N, D);
        y = orli_token_logp(tape, h, orl_use(tape, p), CLASSES, target, NULL, k ? slope : NULL);
        y = orl_mul(tape, y, orl_constant(tape, slope, N, 1));
        if (k == 2) {
            check(orl_backward(tape, orl_sum(tape, orl_scale(tape, y, 2))) == ORL_ERR_ARGUMENT);
            orl_clear_error(ctx);
            break;
        }
        for (i = 0; i < N; i++) logp[k][i] = orl_data(y)[i];
        check(orl_backward(tape, orl_sum(tape, y)) == ORL_OK);
        memcpy(dh[k], orl_grad(h), sizeof dh[k]);
        memcpy(dw[k], orl_param_grad(p), sizeof dw[k]);
    }
    for (i = 0; i < N; i++) check_near(logp[1][i], logp[0][i], FORWARD_TOLERANCE);
    for (i = 0; i < N * D; i++) check_near(dh[1][i], dh[0][i], FORWARD_TOLERANCE);
    for (i = 0; i < CLASSES * D; i++) check_near(dw[1][i], dw[0][i], FORWARD_TOLERANCE);
    orli_object_free(&set->object);
}

static void test_params(void) {
    orl_params *set = orl_params_create(ctx);
    orl_param *w = orl_param_add(set, "w", 2, 3, 2), *b = orl_param_add(set, "b", 1, 2, 1);
    orl_real x[3] = {1, 2, 3};
    orl_tensor *y;
    size_t i, pass;
    check(orl_params_count(set) == 8 && orl_param_find(set, "w") == w && orl_param_find(set, "v") == NULL);
    check(orl_param_grad(w) == NULL);
    orl_params_zero_grad(set); /* from here on they train */
    for (pass = 1; pass <= 2; pass++) { /* gradients add up over passes */
        orl_tape_reset(tape);
        y = orl_linear(tape, orl_constant(tape, x, 1, 3), orl_use(tape, w), orl_use(tape, b));
        check(orl_backward(tape, orl_sum(tape, y)) == ORL_OK);
        for (i = 0; i < 6; i++) check_near(orl_param_grad(w)[i], (double)pass * (double)x[i % 3], 0);
        check_near(orl_param_grad(b)[1], (double)pass, 0);
    }
    check(orl_param_add(set, "late", 1, 1, 1) == NULL);
    expect_error_reset(ORL_ERR_ARGUMENT, "before their first gradient");
    check(orl_param_add(set, "w", 1, 1, 1) == NULL);
    expect_error_reset(ORL_ERR_ARGUMENT, "'w' is there already");
    /* a frozen set packs its weights once per version: a change must be seen */
    orli_params_freeze(set);
    tape->inference = 1;
    for (pass = 0; pass < 2; pass++) {
        for (i = 0; i < 6; i++) orl_param_data(w)[i] = (orl_real)(pass + 1);
        orl_param_changed(w);
        orl_tape_reset(tape);
        y = orl_linear(tape, orl_constant(tape, x, 1, 3), orl_use(tape, w), NULL);
        check_near(orl_data(y)[1], 6.0 * (double)(pass + 1), 0);
    }
    tape->inference = 0;
    orli_object_free(&set->object);
}

/* ---- wrong use ---- */

static void test_errors(void) {
    orl_real x[64] = {0};
    orl_tensor *a, *b;
    static const int32_t outside[] = {1, 3}, negative[] = {-1};
    static const size_t row[] = {0, 3}, beyond[] = {0, 4}, falling[] = {0, 9, 3};
    orl_stream *s = orl_stream_create(ctx);
#define FAILS(call, status, part) do { \
        orl_tape_reset(tape); \
        a = orl_variable(tape, x, 3, 4), b = orl_variable(tape, x, 4, 3); \
        check((call) == NULL); \
        expect_error(status, part); \
    } while (0)
    FAILS(orl_add(tape, a, b), ORL_ERR_ARGUMENT, "orl_add: shapes (3, 4) and (4, 3)");
    FAILS(orl_swiglu(tape, a, b), ORL_ERR_ARGUMENT, "orl_swiglu");
    FAILS(orl_linear(tape, a, b, NULL), ORL_ERR_ARGUMENT, "orl_linear");
    FAILS(orl_linear(tape, a, a, b), ORL_ERR_ARGUMENT, "bias");
    FAILS(orl_layernorm(tape, a, b, b, 1e-5), ORL_ERR_ARGUMENT, "norm");
    FAILS(orl_gather(tape, a, row, 2), ORL_ERR_ARGUMENT, "row 3 of 3");
    FAILS(orl_sum_groups(tape, a, row, 1), ORL_ERR_ARGUMENT, "(n, 1)");
    FAILS(orl_sum_groups(tape, orl_variable(tape, x, 3, 1), beyond, 1), ORL_ERR_ARGUMENT, "at most n");
    FAILS(orl_sum_groups(tape, orl_variable(tape, x, 3, 1), falling, 2), ORL_ERR_ARGUMENT, "ascend");
    FAILS(orl_embedding(tape, a, outside, 2), ORL_ERR_MISMATCH, "token id 3 is outside the vocabulary of 3");
    FAILS(orl_embedding(tape, a, negative, 1), ORL_ERR_MISMATCH, "token id -1");
    FAILS(orl_token_logp(tape, a, a, 2, outside, NULL), ORL_ERR_MISMATCH, "outside the vocabulary of 2");
    FAILS(orl_token_logp(tape, a, a, 4, outside, NULL), ORL_ERR_ARGUMENT, "orl_token_logp");
    FAILS(rotate(a, stream, 2, 10000), ORL_ERR_ARGUMENT, "orl_rope");
    FAILS(attend(a, a, a, stream, 2, 2), ORL_ERR_ARGUMENT, "orl_attention");
#undef FAILS
    a = orl_variable(tape, x, 3, 4);
    check(orl_backward(tape, a) == ORL_ERR_ARGUMENT);
    expect_error_reset(ORL_ERR_ARGUMENT, "must be one number");
    /* a parent must be of the tree added last */
    check(orl_stream_add(s, outside, 2, ORL_ROOT) == 0 && orl_stream_add(s, outside, 2, ORL_ROOT) == 1);
    check(orl_stream_add(s, outside, 2, 0) == ORL_ROOT);
    expect_error_reset(ORL_ERR_ARGUMENT, "tree added last");
    check(orl_stream_add(s, outside, 2, 7) == ORL_ROOT);
    expect_error_reset(ORL_ERR_ARGUMENT, "tree added last");
    orl_stream_free(s);
}

static void test_nothing(void) { /* NULL goes in, NULL comes out, and no error hides the first */
    orl_tensor *x, *entropy = NULL;
    static const size_t row[] = {0};
    static const int32_t id[] = {0};
    orl_real one = 1;
    x = orl_variable(tape, &one, 1, 1);
    check(!orl_add(tape, x, NULL) && !orl_add(tape, NULL, x) && !orl_exp(tape, NULL) && !orl_sum(tape, NULL) && !orl_clamp(tape, NULL, 0, 1));
    check(!orl_gather(tape, NULL, row, 1) && !orl_every(tape, NULL, 0, 1) && !orl_sum_groups(tape, NULL, row, 0));
    check(!orl_linear(tape, NULL, x, NULL) && !orl_linear(tape, x, NULL, NULL) && !orl_embedding(tape, NULL, id, 1));
    check(!orl_layernorm(tape, NULL, x, x, 0) && !orl_rmsnorm(tape, x, NULL, 0) && !rotate(NULL, stream, 1, 1) && !orl_rope(tape, x, stream, 1, NULL));
    check(!attend(x, NULL, x, stream, 1, 1) && !orl_attention(tape, x, x, x, stream, NULL) && !orl_token_logp(tape, x, NULL, 1, id, &entropy) && !entropy);
    check(!orl_use(tape, NULL) && !orl_constant(NULL, &one, 1, 1) && !orl_add(NULL, x, x) && !orl_data(NULL) && !orl_grad(NULL) && !orl_rows(NULL));
    check(!orl_failed(ctx));
    check(orl_backward(tape, NULL) == ORL_ERR_ARGUMENT);
    orl_clear_error(ctx);
    orl_tape_reset(tape);
    orl_tape_reset(NULL), orl_tape_free(NULL), orl_stream_free(NULL), orl_stream_clear(NULL), orl_params_zero_grad(NULL), orl_param_changed(NULL);
    check(orl_stream_create(NULL) == NULL && orl_tape_create(NULL) == NULL && orl_params_create(NULL) == NULL);
}

static void test_context_and_memory(void) {
    orl_config config = orl_config_default();
    orl_model_config mc = orl_model_config_default(ORL_GPT2);
    static orl_real x[80000];
    orl_model *m;
    orl_stream *s = orl_stream_create(ctx);
    orl_ctx *small;
    orl_tape *t;
    orl_tensor *y;
    int32_t ids[17] = {0};
    int done = 0, ran_out = 0, backwards = 0;
    mc.dim = 8, mc.heads = mc.kv_heads = 2, mc.layers = 1, mc.ffn = 8, mc.vocab = 5, mc.context = 16;
    m = orl_model_create(ctx, &mc, NULL);
    orl_stream_add(s, ids, 10, ORL_ROOT);
    orl_stream_add(s, ids, 7, 0); /* 17 positions on one path */
    check(orl_hidden(tape, m, s) == NULL);
    expect_error_reset(ORL_ERR_DATA, "17 tokens does not fit the context of 16");
    orl_stream_clear(s);
    orl_stream_add(s, ids, 16, ORL_ROOT);
    check(orl_hidden(tape, m, s) != NULL && orl_rows(orl_logits(tape, m, s)) == 16);
    orl_stream_free(s);
    orl_model_free(m);
    /* memory runs out in ever later operators, forwards and then backwards: an error, never a crash */
    config.threads = 1;
    for (done = 0; !done && config.memory_limit < (64u << 20); config.memory_limit += 450000) {
        if (!config.memory_limit) config.memory_limit = ORLI_SCRATCH + 100000;
        small = orl_create(&config);
        t = orl_tape_create(small);
        y = orl_variable(t, x, 2, 40000);
        y = orl_tanh(t, orl_scale(t, orl_exp(t, orl_square(t, y)), 0.5));
        y = orl_linear(t, orl_add(t, y, orl_softplus(t, y)), orl_variable(t, x, 1, 40000), NULL);
        y = orl_sum(t, y);
        if (y) backwards++;
        orl_backward(t, y);
        done = !orl_failed(small);
        check(done || orl_error_status(small) == ORL_ERR_MEMORY);
        if (!done) ran_out++;
        check_near(orl_memory_now(small) > config.memory_limit, 0, 0);
        orl_destroy(small);
    }
    check(done && ran_out > 5 && backwards > 1);
}

/* ---- a dry tape knows what a real one will use ---- */

static size_t dry_and_real(orl_model *m, size_t *used) {
    orl_tape *t = orl_tape_create(ctx);
    size_t predicted = 0, i, pass;
    int32_t target[TOKENS];
    for (i = 0; i < TOKENS; i++) target[i] = stream->token[i];
    for (pass = 0; pass < 2; pass++) {
        orl_tensor *h, *entropy, *logp, *loss;
        t->values.dry = pass == 0;
        orl_tape_reset(t);
        h = orl_hidden(t, m, stream);
        logp = orl_token_logp(t, orl_gather(t, h, gathered, 6), orl_head(t, m), m->classes, target, &entropy);
        loss = orl_sum(t, orl_add(t, logp, orl_mul(t, entropy, logp)));
        check(loss && orl_backward(t, loss) == ORL_OK);
        if (pass == 0) predicted = t->values.peak;
    }
    *used = t->values.total;
    orl_tape_free(t);
    return predicted;
}

static void test_dry(void) {
    int arch, tied;
    for (arch = 0; arch < 2; arch++)
        for (tied = 0; tied < 2; tied++) {
            orl_model_config mc = orl_model_config_default((orl_arch)arch);
            orl_model *m;
            size_t used = 0, predicted;
            mc.dim = 24, mc.heads = 4, mc.kv_heads = arch == ORL_GPT2 ? 4 : 2, mc.layers = 2, mc.ffn = 20, mc.vocab = 11, mc.context = 64;
            mc.tied = tied;
            m = orl_model_create(ctx, &mc, NULL);
            orl_params_zero_grad(orl_model_params(m));
            predicted = dry_and_real(m, &used);
            check(predicted == used);
            if (predicted != used) printf("    %zu bytes predicted, %zu used\n", predicted, used);
            orl_model_free(m);
        }
}

int main(void) {
    orl_config config = orl_config_default();
    size_t i, before;
    config.threads = ORLI_DOUBLE ? 1 : 2;
    ctx = orl_create(&config);
    before = orl_memory_now(ctx);
    tape = orl_tape_create(ctx);
    stream = orl_stream_create(ctx);
    fill_stream(stream);
    check(stream->tokens == TOKENS);
    for (i = 0; i < HEAD_ROWS; i++) head_target[i] = (int32_t)(i * i % 5);
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case(&cases[i]);
        orl_clear_error(ctx);
    }
    test_shared_prefixes();
    test_constants();
    test_foretold();
    test_params();
    test_errors();
    test_nothing();
    test_context_and_memory();
    test_dry();
    check(!orl_failed(ctx));
    orl_tape_free(tape);
    orl_stream_free(stream);
    check(orl_memory_now(ctx) == before);
    orl_destroy(ctx);
    return test_report("test_07_tensor");
}
