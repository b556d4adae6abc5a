# A test program per source file: test_<file>. The variables with _common are
# for tests that need libctsd.
AM_TESTS_ENVIRONMENT = CTS_SRCDIR='$(abs_top_srcdir)'; CTS_BUILDDIR='$(abs_top_builddir)'; \
    export CTS_SRCDIR CTS_BUILDDIR; ASAN_OPTIONS=handle_segv=2:detect_leaks=1; export ASAN_OPTIONS;
tests_ldadd = libctsd.la $(CMOCKA_LIBS) -lm
EXTRA_DIST += %D%/golden

include tests/common.mk
include tests/kernels.mk
include tests/model.mk
include tests/compress.mk
include tests/engine.mk
include tests/serve.mk
include tests/client.mk
include tests/system/local.mk
include tests/fuzz/local.mk

TESTS += $(check_PROGRAMS) $(dist_check_SCRIPTS)
