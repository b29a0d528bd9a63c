/* The unit that holds the library: nothing else needs to be in it. */
#define OFFLINE_RLHF_IMPLEMENTATION
#include "offline_rlhf.h"
