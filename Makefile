# Everything here needs cc and make; what else is found is used, and what is missing is named.
# `make help` lists the targets. All output goes into build/.

CC ?= cc
OPT ?= -O2
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
WARN = -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wundef -Wcast-qual -Wvla -Wdouble-promotion \
       -Wstrict-prototypes -Wmissing-prototypes
WERROR ?= -Werror
LIBS = -lm -lpthread
Q = $(if $(V),,@) # V=1 shows how tests are compiled

# A test program uses some of test.h, not all of it; tests/test_compile.sh looks for unused functions.
TEST_FLAGS = $(WARN) $(WERROR) -Wno-unused-function $(CFLAGS)
ASAN_FLAGS = -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
TSAN_FLAGS = -O1 -g -fsanitize=thread

# A line such as  /* builds: float double threads */  in the first ten lines of a test says that it is
# built with -DORL_REAL=double too (double), and that `make sanitize` runs it under TSan (threads).
marked = $(shell for f in tests/test_*.c; do head -n 10 "$$f" 2>/dev/null | grep -q 'builds:.*$(1)' && basename "$$f" .c; done)
ALL_TESTS := $(patsubst tests/%.c,%,$(shell ls -r tests/test_*.c 2>/dev/null)) # later sections take longest: they go first
TEST_HEADERS := $(wildcard tests/*.h examples/*.h)
SCRIPTS   := $(patsubst tests/%.sh,%,$(sort $(wildcard tests/test_*.sh)))
EXAMPLES  := $(patsubst examples/%.c,build/%,$(sort $(wildcard examples/*.c)))
BENCHES   := $(patsubst tests/%.c,build/%,$(sort $(wildcard tests/bench/*.c)))
TEST_RUNS := $(SCRIPTS:%=build/test/%) $(ALL_TESTS:%=build/test/%) $(patsubst %,build/test/%.double,$(call marked,double))
SANITIZE_RUNS := $(ALL_TESTS:%=build/asan/%) $(patsubst %,build/tsan/%,$(call marked,threads))

.SUFFIXES:
.SECONDARY:
.PHONY: all help test one sanitize fault cross blis fuzz matrix gguf peft lint examples demo study bench clean FORCE

all: examples

help:
	@echo 'make            the example programs, into build/'
	@echo 'make test       everything that gates a change; ends with "N passed, M failed"'
	@echo 'make one T=test_05_rng   builds and runs one test (test_07_tensor.double: its double build)'
	@echo 'make sanitize   the test programs, shortened, under ASan + UBSan, and under TSan where they use threads'
	@echo 'make fault      the tests that refuse memory at each request in turn, under ASan + UBSan'
	@echo 'make cross      tests of the arm64 build, shortened, under qemu (CROSS_CC, QEMU)'
	@echo 'make blis       tests of the build with ORL_USE_BLIS, shortened (BLIS_TESTS)'
	@echo 'make fuzz       every file format under libFuzzer for FUZZ_SECONDS=60 (needs clang)'
	@echo 'make matrix     the compile matrix alone: standards, compilers, options, sections, symbols, macros'
	@echo 'make gguf       GGUF files read by llama.cpp and by Hugging Face, from npm (PEERS=DIR; tests/gguf_check.mjs says how)'
	@echo 'make peft       adapters merged by their definition in numpy, beside our merging'
	@echo 'make lint       text checks, and cppcheck if it is installed'
	@echo 'make demo       the whole pipeline on the built-in task, one seed: table and build/demo/report.html'
	@echo 'make study      the same for five seeds, into build/study'
	@echo 'make bench      speed and memory beside the peers found on this machine'
	@echo 'make clean      removes build/'
	@echo 'Variables: CC, CFLAGS, OPT=-O2, WERROR= (tolerate warnings), JOBS=$(JOBS), V=1 (show commands)'

# ---- programs: no flags but what the README tells people to type ----

build/%: examples/%.c offline_rlhf.h $(wildcard examples/*.h)
	@mkdir -p $(@D)
	$(CC) $(OPT) $(CFLAGS) $< -o $@ $(LIBS)

build/bench/%: tests/bench/%.c $(wildcard tests/bench/*.h) offline_rlhf.h
	@mkdir -p $(@D)
	$(CC) $(OPT) $(CFLAGS) $< -o $@ $(LIBS) -ldl

examples: $(EXAMPLES)

demo: build/orl
	@rm -rf build/demo
	build/orl demo --out build/demo

study: build/orl
	@rm -rf build/study
	build/orl demo --seeds 5 --out build/study

bench: export BENCH_JSONL = build/bench.jsonl
bench: # at most ten minutes; BENCH_TRAIN=alone leaves PyTorch out; BENCH_PAIRS: files of real pairs
	@$(MAKE) -j$(JOBS) --no-print-directory $(BENCHES)
	@rm -f $(BENCH_JSONL)
	build/bench/bench_kernels 2
	build/bench/bench_train 2 $(BENCH_TRAIN)
	build/bench/bench_share 2
	build/bench/bench_score 2 $(BENCH_PAIRS) $(filter alone,$(BENCH_TRAIN))
	build/bench/bench_generate 2
	build/bench/bench_prefill 2
	build/bench/bench_scaling
	build/bench/bench_tokenizer
	build/bench/bench_learn 2

# ---- tests: compile and run in parallel, then one total; a test that does not compile is a failure ----

build/test/%: tests/%.c offline_rlhf.h $(TEST_HEADERS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(OPT) $(TEST_FLAGS) $< -o $@ $(LIBS)

build/test/%.double: tests/%.c offline_rlhf.h $(TEST_HEADERS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(OPT) -DORL_REAL=double $(TEST_FLAGS) $< -o $@ $(LIBS)

build/asan/%: tests/%.c offline_rlhf.h $(TEST_HEADERS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ASAN_FLAGS) $(TEST_FLAGS) $< -o $@ $(LIBS)

build/tsan/%: tests/%.c offline_rlhf.h $(TEST_HEADERS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(TSAN_FLAGS) $(TEST_FLAGS) $< -o $@ $(LIBS)

%.log: % FORCE
	@sh tests/run.sh one $@ $<

build/test/%.log: tests/%.sh FORCE
	@CC='$(CC)' JOBS='$(JOBS)' sh tests/run.sh one $@ sh $<

build/test/test_tool.log: build/orl

FORCE:

test:
	@rm -f build/test/*.log
	@$(MAKE) -k -j$(JOBS) --no-print-directory $(TEST_RUNS:%=%.log) || true
	@sh tests/run.sh total $(TEST_RUNS)

sanitize:
	@rm -f build/asan/*.log build/tsan/*.log
	@ORL_TEST_QUICK=1 $(MAKE) -k -j$(JOBS) --no-print-directory $(SANITIZE_RUNS:%=%.log) || true
	@sh tests/run.sh total $(SANITIZE_RUNS)

# the tests that bring an allocator of their own
FAULT_RUNS := $(patsubst tests/%.c,build/asan/%,$(shell grep -lE 'define ORL_MALLOC|fault\.h' tests/test_*.c 2>/dev/null))
fault:
	@rm -f $(FAULT_RUNS:%=%.log)
	@ORL_TEST_QUICK=1 $(MAKE) -k -j$(JOBS) --no-print-directory $(FAULT_RUNS:%=%.log) || true
	@sh tests/run.sh total $(FAULT_RUNS)

# arm64 on another machine: linked statically, so that the emulator needs no libraries of that system
CROSS_CC ?= aarch64-linux-gnu-gcc
QEMU ?= qemu-aarch64
# two are left out: qemu 7.2 breaks down where test_14 forks beside threads, and test_15 trains for too long
CROSS_TESTS := $(filter-out test_14_train test_15_rlhf,$(ALL_TESTS))
CROSS_RUNS := $(CROSS_TESTS:%=build/cross/%)

build/cross/%: tests/%.c offline_rlhf.h $(TEST_HEADERS)
	@mkdir -p $(@D)
	$(Q)$(CROSS_CC) $(OPT) -static $(TEST_FLAGS) $< -o $@ $(LIBS)

build/cross/%.log: build/cross/% FORCE
	@sh tests/run.sh one $@ $(QEMU) $<

build/cross/alone.o: tests/two_units/implements.c offline_rlhf.h # here unused functions are warned of too
	@mkdir -p $(@D)
	$(Q)$(CROSS_CC) $(OPT) $(WARN) $(WERROR) -I. -c $< -o $@

cross:
	@mkdir -p build/cross
	@rm -f build/cross/*.log
	@echo 'int main(void) { return 0; }' | $(CROSS_CC) -static -x c - -o build/cross/try 2>/dev/null && $(QEMU) build/cross/try 2>/dev/null || \
	    { echo 'make cross needs $(CROSS_CC), a static libc for it and $(QEMU)'; \
	      echo '(Debian: apt install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)'; exit 1; }
	@$(MAKE) -s --no-print-directory build/cross/alone.o
	@ORL_TEST_QUICK=1 $(MAKE) -k -j$(JOBS) --no-print-directory $(CROSS_RUNS:%=%.log) || true
	@sh tests/run.sh total $(CROSS_RUNS)

# products through BLIS, under ASan too; BLIS_ARCH_TYPE says which kernels it takes (BLIS 0.9: a number)
BLIS_TESTS ?= test_06_kernels test_06_kernels.double test_07_tensor test_07_tensor.double test_golden test_determinism.double test_15_rlhf.double
BLIS_RUNS := $(BLIS_TESTS:%=build/blis/%) build/blis/test_06_kernels.asan
BLIS_FLAGS = $(TEST_FLAGS) -DORL_USE_BLIS

build/blis/%: tests/%.c offline_rlhf.h $(TEST_HEADERS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(OPT) $(BLIS_FLAGS) $< -o $@ -lblis $(LIBS)

build/blis/%.double: tests/%.c offline_rlhf.h $(TEST_HEADERS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(OPT) -DORL_REAL=double $(BLIS_FLAGS) $< -o $@ -lblis $(LIBS)

build/blis/%.asan: tests/%.c offline_rlhf.h $(TEST_HEADERS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ASAN_FLAGS) $(BLIS_FLAGS) $< -o $@ -lblis $(LIBS)

blis:
	@mkdir -p build/blis
	@rm -f build/blis/*.log
	@if ! printf '#include <blis.h>\nint main(void) { bli_init(); return 0; }\n' | $(CC) -x c - -o build/blis/try -lblis $(LIBS) 2>/dev/null; then \
	    echo 'skipped: no libblis (apt install libblis-dev)'; else \
	    ORL_TEST_QUICK=1 $(MAKE) -k -j$(JOBS) --no-print-directory $(BLIS_RUNS:%=%.log) || true; \
	    sh tests/run.sh total $(BLIS_RUNS); fi

FUZZ_SECONDS ?= 60
fuzz:
	@mkdir -p build/fuzz
	@echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' | clang -fsanitize=fuzzer -x c - -o build/fuzz/try 2>/dev/null || \
	    { echo 'make fuzz needs clang with libFuzzer (Debian: apt install clang libclang-rt-dev)'; exit 1; }
	clang -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all tests/fuzz/fuzz_formats.c -o build/fuzz/fuzz_formats $(LIBS)
	cd build/fuzz && ./fuzz_formats -max_total_time=$(FUZZ_SECONDS) -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 corpus 2>fuzz.log || \
	    { tail -n 40 fuzz.log; echo 'fuzz: failed; the input is build/fuzz/crash-…'; exit 1; }
	@grep -h 'number_of_executed_units' build/fuzz/fuzz.log | sed 's/.*: */fuzz: nothing found, inputs tried: /'

one: build/test/$(T)
	$<

matrix:
	@CC='$(CC)' JOBS='$(JOBS)' sh tests/test_compile.sh

PEERS ?= build/peers
gguf: build/orl
	@if command -v node >/dev/null; then node tests/gguf_check.mjs $(PEERS); else echo 'gguf_check: skipped: no node'; fi

peft: build/orl
	@if python3 -c 'import numpy' 2>/dev/null; then python3 tests/peft_check.py; else echo 'peft_check: skipped: no python3 with numpy'; fi

lint:
	@sh tests/lint.sh

clean:
	rm -rf build
