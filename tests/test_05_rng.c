/* test_05_rng.c - the generator's known answers, its moments, and that it is a function of its counter. */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#include "test.h"

/* kat_vectors of Random123 1.14 (philox4x32 10). Its counter words 0 and 1 are our counter, 2 and 3
 * our stream, its key words our key, low word first. */
static void test_known_answers(void) {
    static const uint32_t known[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}};
    size_t i;
    for (i = 0; i < 3; i++) {
        const uint32_t *k = known[i];
        uint32_t out[4];
        orli_philox(k[4] | (uint64_t)k[5] << 32, k[2] | (uint64_t)k[3] << 32, k[0] | (uint64_t)k[1] << 32, out);
        check(memcmp(out, k + 6, sizeof out) == 0);
    }
}

static void test_sequence(void) {
    orli_rng r = orli_rng_new(11, 22), other;
    uint32_t out[4];
    size_t i, block, wrong = 0;
    for (block = 0; block < 50; block++) { /* the words of block 0, 1, 2, … in order */
        orli_philox(11, 22, block, out);
        for (i = 0; i < 4; i++) wrong += orli_rng_u32(&r) != out[i];
    }
    check(wrong == 0);
    other = r; /* a copy goes on alike */
    for (i = 0; i < 9; i++) wrong += orli_rng_u32(&r) != orli_rng_u32(&other);
    check(wrong == 0);
    other = orli_rng_new(11, 22);
    other.counter = 7; /* and a block can be reached without those before it */
    orli_philox(11, 22, 7, out);
    check(orli_rng_u32(&other) == out[0]);
    { /* streams and keys differ from one another in about half their bits */
        static const uint64_t seeds[4][2] = {{1, 0}, {0, 1}, {1, 1}, {(uint64_t)1 << 63, 0}};
        size_t s, bits, j;
        for (s = 0; s < 4; s++) {
            orli_rng a = orli_rng_new(0, 0), b = orli_rng_new(seeds[s][0], seeds[s][1]);
            for (bits = 0, j = 0; j < 1000; j++) {
                uint32_t x = orli_rng_u32(&a) ^ orli_rng_u32(&b);
                for (; x; x &= x - 1) bits++;
            }
            check(bits > 15600 && bits < 16400); /* 16000, σ = 89 */
        }
    }
}

static void test_uniform(void) {
    enum { N = 1000000, CELLS = 64 };
    orli_rng r = orli_rng_new(1, 2);
    double sum = 0, squares = 0, last = 0, product = 0, least = 1, most = 0, chi = 0;
    static size_t cell[CELLS];
    size_t i;
    for (i = 0; i < N; i++) {
        double u = orli_rng_uniform(&r);
        sum += u - 0.5, squares += (u - 0.5) * (u - 0.5), product += (u - 0.5) * (last - 0.5);
        least = ORLI_MIN(least, u), most = ORLI_MAX(most, u);
        cell[(size_t)(u * CELLS)]++;
        last = u;
    }
    check(least >= 0 && most < 1 && least < 1e-5 && most > 1 - 1e-5);
    check_near(sum / N, 0, 4 * 0.2887e-3);            /* σ of the mean: √(1/12)/√N */
    check_near(squares / N, 1.0 / 12, 4 * 0.0745e-3); /* √(1/180)/√N */
    check_near(product / N, 0, 4 * 0.0834e-3);        /* neighbours: 1/12/√N */
    for (i = 0; i < CELLS; i++) chi += ((double)cell[i] - N / CELLS) * ((double)cell[i] - N / CELLS) / (N / CELLS);
    check(chi > 25 && chi < 115); /* 63 ± 11.2: within 4.6 σ */
}

static void test_below(void) {
    static const size_t n[] = {1, 2, 3, 7, 10, 1000};
    orli_rng r = orli_rng_new(3, 4);
    size_t i, j;
    for (i = 0; i < sizeof n / sizeof n[0]; i++) {
        size_t seen[1000] = {0}, wrong = 0;
        double chi = 0;
        for (j = 0; j < 100000; j++) {
            size_t v = orli_rng_below(&r, n[i]);
            if (v < n[i]) seen[v]++;
            else wrong++;
        }
        for (j = 0; j < n[i]; j++) {
            double mean = 1e5 / (double)n[i], d = (double)seen[j] - mean;
            chi += d * d / mean;
        }
        check(wrong == 0);
        check(chi <= (double)(n[i] - 1) + 5 * sqrt(2 * (double)n[i])); /* χ² has n − 1 degrees, σ = √(2(n−1)) */
    }
}

static void test_normal(void) {
    enum { N = 1000000 };
    orli_rng r = orli_rng_new(5, 6);
    double m[5] = {0}, within = 0, most = 0;
    size_t i, k;
    for (i = 0; i < N; i++) {
        double x = orli_rng_normal(&r), power = 1;
        for (k = 1; k < 5; k++) power *= x, m[k] += power / N;
        within += fabs(x) < 1.959964;
        most = ORLI_MAX(most, fabs(x));
    }
    check_near(m[1], 0, 4e-3);
    check_near(m[2], 1, 4 * 1.414e-3);
    check_near(m[3], 0, 4 * 3.873e-3); /* √15/√N */
    check_near(m[4], 3, 4 * 9.798e-3); /* √96/√N */
    check_near(within / N, 0.95, 4 * 0.218e-3);
    check(most > 4 && most < 7);
}

static void test_shuffle(void) {
    size_t n, i, order[300], again[300], six[6] = {0};
    for (n = 0; n <= 300; n += n < 5 ? 1 : 59) {
        size_t seen[300] = {0}, missing = 0;
        orli_shuffle(order, n, 7, 8);
        for (i = 0; i < n; i++) if (order[i] < n) seen[order[i]]++;
        for (i = 0; i < n; i++) missing += seen[i] != 1;
        check(missing == 0); /* a permutation */
        orli_shuffle(again, n, 7, 8);
        check(memcmp(order, again, n * sizeof *order) == 0);
    }
    orli_shuffle(order, 300, 7, 8);
    orli_shuffle(again, 300, 7, 9);
    check(memcmp(order, again, sizeof order) != 0);
    for (i = 0; i < 60000; i++) { /* all six orders of three are equally likely */
        orli_shuffle(order, 3, 99, i);
        six[order[0] * 2 + (order[1] > order[2])]++;
    }
    for (i = 0; i < 6; i++) check_near(six[i], 10000, 5 * 91.3);
}

int main(void) {
    test_known_answers();
    test_sequence();
    test_uniform();
    test_below();
    test_normal();
    test_shuffle();
    return test_report("test_05_rng");
}
