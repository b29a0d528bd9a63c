/* The unit that uses the library; compiled as C and as C++. */
#include "offline_rlhf.h"

int main(void) {
    orl_ctx *ctx = orl_create(NULL);
    int bad = orl_failed(ctx);
    orl_destroy(ctx);
    return bad;
}
