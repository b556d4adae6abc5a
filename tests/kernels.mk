# tests of kernels
ctsk_tests_ldadd = libctskernels.la libctsbase.la $(CMOCKA_LIBS) -lm
ctsk_rig = %D%/ctsk_rig.c %D%/ctsk_rig.h %D%/check.h

# A test that makes allocations fail lists fault.c among its sources and has
# _LDFLAGS = $(AM_LDFLAGS) $(fault_ldflags).
fault_files = %D%/fault.c %D%/fault.h
fault_ldflags = -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=aligned_alloc,--wrap=strdup,--wrap=free \
    -Wl,--wrap=mmap,--wrap=munmap,--wrap=pthread_create

check_PROGRAMS += %D%/test_ctsk %D%/test_ctsk_matmul %D%/test_ctsk_rows %D%/test_ctsk_attention \
    %D%/test_ctsk_adapt %D%/test_ctsk_async %D%/test_pool
tests_test_ctsk_SOURCES = %D%/test_ctsk.c $(ctsk_rig) $(fault_files)
tests_test_ctsk_LDADD = $(ctsk_tests_ldadd)
tests_test_ctsk_LDFLAGS = $(AM_LDFLAGS) $(fault_ldflags)
tests_test_ctsk_matmul_SOURCES = %D%/test_ctsk_matmul.c $(ctsk_rig)
tests_test_ctsk_matmul_LDADD = $(ctsk_tests_ldadd)
tests_test_ctsk_rows_SOURCES = %D%/test_ctsk_rows.c $(ctsk_rig)
tests_test_ctsk_rows_LDADD = $(ctsk_tests_ldadd)
tests_test_ctsk_attention_SOURCES = %D%/test_ctsk_attention.c $(ctsk_rig)
tests_test_ctsk_attention_LDADD = $(ctsk_tests_ldadd)
tests_test_ctsk_adapt_SOURCES = %D%/test_ctsk_adapt.c $(ctsk_rig)
tests_test_ctsk_adapt_LDADD = $(ctsk_tests_ldadd)
tests_test_ctsk_async_SOURCES = %D%/test_ctsk_async.c $(ctsk_rig)
tests_test_ctsk_async_LDADD = $(ctsk_tests_ldadd)
tests_test_pool_SOURCES = %D%/test_pool.c %D%/check.h
tests_test_pool_LDADD = $(ctsk_tests_ldadd)
