/* With ORL_STATIC a second unit may hold a copy of its own without a clash. */
#include "offline_rlhf.h"

int second_unit(void);
int second_unit(void) { return orl_failed(NULL); }
