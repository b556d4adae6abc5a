# tests of kernels
ctsk_tests_ldadd = libctskernels.la libctsbase.la $(CMOCKA_LIBS) -lm
ctsk_rig = %D%/ctsk_rig.c %D%/ctsk_rig.h %D%/check.h
check_PROGRAMS += %D%/test_ctsk_matmul %D%/test_ctsk_rows %D%/test_ctsk_attention %D%/test_ctsk_adapt
tests_test_ctsk_matmul_SOURCES = %D%/test_ctsk_matmul.c $(ctsk_rig)
tests_test_ctsk_matmul_LDADD = $(ctsk_tests_ldadd)
tests_test_ctsk_rows_SOURCES = %D%/test_ctsk_rows.c $(ctsk_rig)
tests_test_ctsk_rows_LDADD = $(ctsk_tests_ldadd)
tests_test_ctsk_attention_SOURCES = %D%/test_ctsk_attention.c $(ctsk_rig)
tests_test_ctsk_attention_LDADD = $(ctsk_tests_ldadd)
tests_test_ctsk_adapt_SOURCES = %D%/test_ctsk_adapt.c $(ctsk_rig)
tests_test_ctsk_adapt_LDADD = $(ctsk_tests_ldadd)
