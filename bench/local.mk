# bench programs
noinst_PROGRAMS += %D%/bench_ring
bench_bench_ring_LDADD = libctsclient.la libctsshm.la libctsproto.la libctsbase.la
