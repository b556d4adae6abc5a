# tests of kernels
ctsk_tests_ldadd = libctskernels.la libctsbase.la $(CMOCKA_LIBS) -lm
check_PROGRAMS += %D%/test_ctsk_matmul
tests_test_ctsk_matmul_SOURCES = %D%/test_ctsk_matmul.c %D%/ctsk_rig.c %D%/ctsk_rig.h %D%/check.h
tests_test_ctsk_matmul_LDADD = $(ctsk_tests_ldadd)
