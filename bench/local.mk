# bench programs
noinst_PROGRAMS += %D%/bench_ring
bench_bench_ring_LDADD = libctsclient.la libctsshm.la libctsproto.la libctsbase.la
noinst_PROGRAMS += %D%/bench_kernels
bench_bench_kernels_SOURCES = %D%/bench_kernels.c
bench_bench_kernels_LDADD = libctskernels.la libctsbase.la -lm
noinst_PROGRAMS += %D%/bench_engine
bench_bench_engine_LDADD = libctsd.la -lm
EXTRA_DIST += %D%/RESULTS.md
